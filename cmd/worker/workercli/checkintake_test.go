package workercli

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// What other programs need to hand mail in is tried, and each thing that is wrong has a line.
func TestCheck_intake(t *testing.T) {
	ca, err := testserver.NewAuthority(t.TempDir(), "authority")
	if err == nil {
		err = ca.Issue("server", "mail", x509.ExtKeyUsageServerAuth)
	}
	if err == nil {
		err = ca.Issue("other", "mail", x509.ExtKeyUsageServerAuth)
	}
	if err != nil {
		t.Fatal(err)
	}
	cert, key := ca.CertFiles("server")
	_, otherKey := ca.CertFiles("other")
	dir := t.TempDir()
	keys, bad := filepath.Join(dir, "keys"), filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("# none\n{\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	apiKey(t, keys, "shop", "--mailer", "marketing", "--queue", "news")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	for name, value := range map[string]string{
		"REDIS_URL": redistest.Start(t, redistest.Options{}).URL(), "EMAIL_QUEUE_BACKEND": "dummy", "EMAIL_HOSTNAME": "app.example.com",
		"EMAIL_SUBMISSION_ADDR": "127.0.0.1:0,unix://" + dir + "/none/smtp.sock," + busy.Addr().String(), "EMAIL_SUBMISSION_CERTFILE": cert, "EMAIL_SUBMISSION_KEYFILE": key,
		"EMAIL_API_ADDR": "localhost:0", "EMAIL_API_KEYS_FILE": keys,
		"EMAIL_WEBHOOK_URL": "https://h.invalid/x?token=hunter2", "EMAIL_WEBHOOK_SECRET": oldWebhookSecret,
	} {
		t.Setenv(name, value)
	}
	got := worker(t.Context(), t, backends.Builtin(), "check")
	for _, want := range []string{
		"Keys " + keys + ": ok\n", "  warning: key shop: EMAIL_MAILERS does not have its mailer marketing, so its mail ends as dead letters", "  warning: key shop: a worker with these settings takes nothing from its queue news",
		"Certificate EMAIL_SUBMISSION_CERTFILE for localhost until 20", "  warning: the certificate in " + cert + " expires on 20",
		"SMTP 127.0.0.1:0: ok\n", "SMTP unix://" + dir + "/none/smtp.sock: stat ", "SMTP " + busy.Addr().String() + ": ok\n  warning: somebody listens there already",
		"API localhost:0: ok\n", "Webhook h.invalid: lookup h.invalid",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if got.code != 69 || strings.Contains(got.out+got.err, "hunter2") || strings.Contains(got.out+got.err, oldWebhookSecret) {
		t.Errorf("exit %d:\n%s%s", got.code, got.out, got.err)
	}
	t.Setenv("EMAIL_SUBMISSION_KEYFILE", otherKey)
	t.Setenv("EMAIL_API_KEYS_FILE", bad)
	t.Setenv("EMAIL_WEBHOOK_URL", "https://localhost.example.invalid/")
	got = worker(t.Context(), t, backends.Builtin(), "check")
	for _, want := range []string{"Keys " + bad + ": " + bad + ": line 2: ", "Certificate EMAIL_SUBMISSION_CERTFILE: " + cert + " and " + otherKey + ": tls: private key does not match"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("it does not say %q:\n%s", want, got.out)
		}
	}
}

// An endpoint whose name leads into a private network gets nothing, unless that is allowed.
func TestCheckEndpoint(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url     string
		private bool
		want    string
	}{
		{"https://127.0.0.1/", false, "which is no public address"},
		{"https://[::ffff:10.1.2.3]/", false, "which is no public address"},
		{"https://127.0.0.1/", true, ""},
		{"https://93.184.215.14/", false, ""},
	} {
		err := checkEndpoint(context.Background(), net.DefaultResolver, tt.url, tt.private)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.url, err)
		}
	}
}
