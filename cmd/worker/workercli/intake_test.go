package workercli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/testserver"
)

// apiKey makes a key in a file, and returns its secret.
func apiKey(t *testing.T, file, name string, flags ...string) string {
	t.Helper()
	made := worker(t.Context(), t, backends.Builtin(), append([]string{"key", "new", name, "--file", file}, flags...)...)
	if made.code != 0 {
		t.Fatalf("exit %d: %s", made.code, made.err)
	}
	return strings.TrimSpace(made.out)
}

const letter = "From: Shop <shop@example.com>\r\nTo: ann@example.org\r\nSubject: Hello\r\n\r\nIt works.\r\n"

// handIn hands a message in over SMTP, as Go's own client does it, with a login if there is a secret.
func handIn(addr, secret string) error {
	host, _, _ := net.SplitHostPort(addr)
	var login smtp.Auth
	if secret != "" {
		login = smtp.PlainAuth("", "any", secret, host)
	}
	return smtp.SendMail(addr, login, "shop@example.com", []string{"ann@example.org"}, []byte(letter))
}

// wantCode wants the reply of a server in an error.
func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	var reply *textproto.Error
	if !errors.As(err, &reply) || reply.Code != code {
		t.Errorf("got %v, want %d", err, code)
	}
}

// post hands a message in over HTTP.
func post(t *testing.T, client *http.Client, url, secret string) (code int, body string) {
	t.Helper()
	const email = `{"from":"shop@example.com","to":"ann@example.org","subject":"Hello","text":"It works."}`
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(email))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	reply, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(reply.Body)
	if err = errors.Join(err, reply.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

// An intake takes mail into the queue, says when it cannot, reads its keys again, and ends in order.
func TestIntake(t *testing.T) {
	t.Parallel()
	keys, smtpAddr, apiAddr, pages := filepath.Join(t.TempDir(), "keys"), testserver.FreeAddr(t), testserver.FreeAddr(t), testserver.FreeAddr(t)
	shop := apiKey(t, keys, "shop", "--from", "example.com", "--queue", "bulk")
	p := newCommandProcess(t, "intake", "", "EMAIL_SUBMISSION_ADDR="+smtpAddr, "EMAIL_API_ADDR="+apiAddr, "EMAIL_API_KEYS_FILE="+keys, "EMAIL_HTTP_ADDR="+pages, "EMAIL_HOST_PASSWORD_FILE=/nowhere")
	p.start(t)
	client := p.server.Client(t)

	if err := handIn(smtpAddr, shop); err != nil {
		t.Fatal(err)
	}
	api := "http://" + apiAddr + "/emails"
	for secret, want := range map[string]int{shop: http.StatusOK, "mp_WRONG": http.StatusForbidden, "": http.StatusUnauthorized} {
		if code, body := post(t, http.DefaultClient, api, secret); code != want {
			t.Errorf("over HTTP: %d, want %d: %s", code, want, body)
		}
	}
	if n := client.LLen(t.Context(), "asynq:{bulk}:pending").Val(); n != 2 {
		t.Errorf("%d messages wait", n)
	}
	wantCode(t, handIn(smtpAddr, ""), 530)
	wantCode(t, handIn(smtpAddr, "mp_WRONG"), 535)
	if code, body := fetch(t, "http://"+pages+"/readyz"); code != http.StatusOK || !strings.Contains(body, `"ready":true`) {
		t.Errorf("/readyz: %d %s", code, body)
	}
	_, body := fetch(t, "http://"+pages+"/metrics")
	for _, want := range []string{
		`mailpouch_submission_messages_total{code="250"} 1`, `mailpouch_submission_messages_total{code="451"} 0`,
		`mailpouch_submission_logins_total{result="ok"} 1`, `mailpouch_submission_logins_total{result="failed"} 1`, "mailpouch_workers 0",
		`mailpouch_api_requests_total{code="200",route="POST /emails"} 1`, `mailpouch_api_requests_total{code="403",route="POST /emails"} 1`, "mailpouch_build_info{",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if strings.Contains(body, "mailpouch_messages_total{") {
		t.Error("an intake counts what is delivered")
	}

	// A key that is taken away is refused, a new one is known; a file that is wrong changes nothing.
	if got := worker(t.Context(), t, backends.Builtin(), "key", "remove", "shop", "--file", keys); got.code != 0 {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	news := apiKey(t, keys, "news")
	p.signal(t, syscall.SIGHUP)
	if line := p.until(t, "files of keys, certificates and secrets read again"); !strings.Contains(line, `"changed":["EMAIL_API_KEYS_FILE"]`) {
		t.Error(line)
	}
	wantCode(t, handIn(smtpAddr, shop), 535)
	if code, _ := post(t, http.DefaultClient, api, shop); code != http.StatusForbidden {
		t.Errorf("the key is gone, and over HTTP: %d", code)
	}
	if err := os.WriteFile(keys, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	if line := p.until(t, "EMAIL_API_KEYS_FILE"); !strings.Contains(line, "line 1: name: is missing") || !strings.Contains(line, "What was read before is kept") {
		t.Error(line)
	}
	if line := p.until(t, "read again"); !strings.Contains(line, `"changed":[]`) {
		t.Error(line)
	}
	if err := handIn(smtpAddr, news); err != nil {
		t.Errorf("with the keys of before: %v", err)
	}
	if _, body := fetch(t, "http://"+pages+"/status.json"); !strings.Contains(body, `"secrets_wrong":["EMAIL_API_KEYS_FILE: `) {
		t.Errorf("the page does not say it: %s", body)
	}

	p.server.Stop()
	wantCode(t, handIn(smtpAddr, news), 451)
	if code, body := post(t, http.DefaultClient, api, news); code != http.StatusServiceUnavailable {
		t.Errorf("without Redis: %d %s", code, body)
	}
	if code, _ := fetch(t, "http://"+pages+"/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz without Redis: %d", code)
	}
	http.DefaultClient.CloseIdleConnections()
	p.ends(t)
	if err := handIn(smtpAddr, news); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("it has ended, and yet: %v", err)
	}
}

// A worker takes mail and delivers it.
func TestRun_intake(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "smtp.sock")
	p := startProcess(t, "", "EMAIL_SUBMISSION_ADDR=unix://"+socket)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := errors.Join(c.Mail("shop@example.com"), c.Rcpt("ann@example.org")); err != nil {
			t.Fatal(err)
		}
		w, err := c.Data()
		if err == nil {
			_, err = fmt.Fprint(w, letter)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	p.queued = 3
	p.wait(t)
	p.ends(t)
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// What is wrong with the ways in is said at the start, all at once and with the setting's name.
func TestIntake_wrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	for _, tt := range []struct {
		name string
		env  []string
		code int
		want string
	}{
		{"nothing", nil, 78, "EMAIL_SUBMISSION_ADDR: is not set, and neither is EMAIL_API_ADDR: there is nothing to take mail at"},
		{"open to all", []string{"EMAIL_SUBMISSION_ADDR=:0"}, 78, "EMAIL_SUBMISSION_ADDR: nobody could hand in mail at :0"},
		{"no keys", []string{"EMAIL_SUBMISSION_ADDR=127.0.0.1:0", "EMAIL_API_KEYS_FILE=" + bad}, 78, "EMAIL_API_KEYS_FILE: " + bad + ": line 1: "},
		{"no certificate", []string{"EMAIL_SUBMISSION_ADDR=unix://" + dir + "/s", "EMAIL_SUBMISSION_CERTFILE=" + bad, "EMAIL_SUBMISSION_KEYFILE=" + bad}, 78, "EMAIL_SUBMISSION_CERTFILE: "},
		{"in use", []string{"EMAIL_SUBMISSION_ADDR=" + taken.Addr().String(), "EMAIL_SUBMISSION_NETWORKS=::1"}, 69, "EMAIL_SUBMISSION_ADDR: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, command := range []string{"intake", "run"} {
				if command == "run" && tt.env == nil {
					continue // it delivers all the same
				}
				p := newCommandProcess(t, command, "", tt.env...)
				if err := p.Start(); err != nil {
					t.Fatal(err)
				}
				line := p.until(t, `"level":"error"`)
				err := p.Wait()
				if p.ProcessState.ExitCode() != tt.code || !strings.Contains(line, tt.want) {
					t.Errorf("%s: %v, %s", command, err, line)
				}
			}
		})
	}
}

// Over TLS, and after SIGHUP with the certificate that is in the files then. One that cannot be used leaves the one before.
func TestIntake_tls(t *testing.T) {
	t.Parallel()
	ca, err := testserver.NewAuthority(t.TempDir(), "authority")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string) {
		t.Helper()
		if err := ca.Issue("server", name, x509.ExtKeyUsageServerAuth); err != nil {
			t.Fatal(err)
		}
	}
	issue("one")
	cert, key := ca.CertFiles("server")
	keys, starttls, implicit, apiAddr := filepath.Join(t.TempDir(), "keys"), testserver.FreeAddr(t), testserver.FreeAddr(t), testserver.FreeAddr(t)
	secret := apiKey(t, keys, "shop")
	p := newCommandProcess(t, "intake", "", "EMAIL_SUBMISSION_ADDR="+starttls+",smtps://"+implicit, "EMAIL_SUBMISSION_CERTFILE="+cert, "EMAIL_SUBMISSION_KEYFILE="+key,
		"EMAIL_API_ADDR="+apiAddr, "EMAIL_API_CERTFILE="+cert, "EMAIL_API_KEYFILE="+key, "EMAIL_API_KEYS_FILE="+keys)
	p.start(t)
	for _, want := range []string{"one", "two", "two"} {
		config := &tls.Config{RootCAs: ca.Pool, ServerName: "127.0.0.1"}
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}
		if code, body := post(t, &http.Client{Transport: transport}, "https://"+apiAddr+"/emails", secret); code != http.StatusOK {
			t.Errorf("over HTTPS: %d %s", code, body)
		}
		for _, addr := range []string{starttls, implicit, apiAddr} {
			if got := certificateName(t, addr, addr == starttls, config); got != want {
				t.Errorf("%s shows %s, want %s", addr, got, want)
			}
		}
		if want == "one" {
			issue("two")
		} else if err := os.WriteFile(cert, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p.signal(t, syscall.SIGHUP)
		if want == "two" {
			for _, variable := range []string{"EMAIL_SUBMISSION_CERTFILE", "EMAIL_API_CERTFILE"} {
				if line := p.until(t, variable); !strings.Contains(line, "What was read before is kept") {
					t.Error(line)
				}
			}
		}
		p.until(t, "certificates and secrets read again")
	}
	p.ends(t)
}

// certificateName is the name in the certificate that a server shows.
func certificateName(t *testing.T, addr string, starttls bool, config *tls.Config) string {
	t.Helper()
	var state tls.ConnectionState
	if starttls {
		c, err := smtp.Dial(addr)
		if err == nil {
			err = c.StartTLS(config)
		}
		if err != nil {
			t.Fatal(err)
		}
		state, _ = c.TLSConnectionState()
		_ = c.Close()
	} else {
		c, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		state = c.(*tls.Conn).ConnectionState()
		_ = c.Close()
	}
	return state.PeerCertificates[0].Subject.CommonName
}
