package workercli

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/testserver/postfix"
	"github.com/mailpouch/mailpouch/internal/testserver/provider"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// world is a provider, a Postfix that takes its tokens, and a Redis, with settings for a worker.
type world struct {
	login  *provider.Provider
	relay  *postfix.Server
	redis  *redistest.Server
	file   string // of the refresh token, which is not there yet
	logged safeBuffer
}

func newTokenWorld(t *testing.T) *world {
	t.Helper()
	w := &world{login: provider.New(), redis: redistest.Start(t, redistest.Options{}), file: filepath.Join(t.TempDir(), "refresh-token")}
	w.login.Rotate = true
	base := w.login.Start(t)
	w.relay = postfix.Start(t, postfix.Options{TLS: true, Introspect: base + provider.IntrospectPath})
	host, port, err := net.SplitHostPort(w.relay.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"REDIS_URL": w.redis.URL(), "EMAIL_HOST": host, "EMAIL_PORT": port, "EMAIL_USE_TLS": "true", "EMAIL_SSL_CAFILE": w.relay.CAFile(), "EMAIL_SSL_SERVER_NAME": "localhost",
		"EMAIL_HOST_USER": provider.User, "EMAIL_OAUTH": "custom", "EMAIL_OAUTH_CLIENT_ID": provider.ClientID, "EMAIL_OAUTH_CLIENT_SECRET": provider.ClientSecret,
		"EMAIL_OAUTH_TOKEN_URL": base + provider.TokenPath, "EMAIL_OAUTH_DEVICE_URL": base + provider.DevicePath, "EMAIL_OAUTH_REFRESH_TOKEN_FILE": w.file,
		"EMAIL_HOSTNAME": "app.example.com", "DEFAULT_FROM_EMAIL": provider.User, "EMAIL_HTTP_ADDR": "127.0.0.1:0", "LOG_FORMAT": "json", "EMAIL_CONNECTIONS": "3",
	} {
		t.Setenv(name, value)
	}
	return w
}

// TestRun_tokens is the whole way: a worker without a refresh token holds its mail and spends no try; somebody agrees, and
// the mail goes out over connections that share a token; tokens that are revoked are replaced; and nowhere is a token to be seen.
func TestRun_tokens(t *testing.T) {
	w := newTokenWorld(t)
	client := w.redis.Client(t)
	queue := tasks.NewQueue(client, tasks.QueueConfig{})
	send := func(n int) {
		t.Helper()
		for range n {
			if _, err := queue.Enqueue(t.Context(), &mailer.EmailMessage{FromEmail: provider.User, To: []string{"ann@example.org"}, Subject: "Hello"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- Run(ctx, backends.Builtin(), []string{"run"}, io.Discard, &w.logged) }()
	defer func() {
		stop()
		if code := <-ended; code != 0 {
			t.Errorf("the worker ended with %d", code)
		}
		w.secretsAreNowhere(t, client)
	}()

	send(5)
	until(t, "the mailer is held", func() bool {
		return strings.Contains(w.logged.String(), "relay takes no mail") && strings.Contains(w.logged.String(), "has no refresh token yet: worker oauth login writes one")
	})
	if page := w.get(t, "/metrics"); !strings.Contains(page, `mailpouch_oauth_refreshes_total{mailer="default",result="refused"} `) ||
		strings.Contains(page, `mailpouch_oauth_refreshes_total{mailer="default",result="refused"} 0`) || !strings.Contains(page, `mailpouch_mailer_held{mailer="default"} 1`) {
		t.Error("the metrics do not tell")
	}
	if page := w.get(t, "/status.json"); !strings.Contains(page, `"token_error":"OAuth 2: no token of custom: `) {
		t.Errorf("the page does not tell: %s", page)
	}
	if n, err := w.relay.Connections(t.Context()); err != nil || n != 0 {
		t.Errorf("the relay was asked %d times without a token, %v", n, err)
	}

	w.login.Device(0, 1, "")
	got := worker(t.Context(), t, backends.Builtin(), "oauth", "login")
	if got.code != 0 || !strings.Contains(got.out, "Open  https://login.example.com/device\nEnter ABCD-EFGH\nand agree as "+provider.User+".") || strings.Contains(got.out, "keep-me-hidden") {
		t.Fatalf("%d: %s%s", got.code, got.out, got.err)
	}
	if info, err := os.Stat(w.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	if err := w.relay.Wait(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	for _, task := range w.records(t, client) {
		if strings.Contains(task, `"retried":`) && !strings.Contains(task, `"retried":0`) {
			t.Errorf("a try was spent: %s", task)
		}
	}
	page := w.get(t, "/metrics")
	if !strings.Contains(page, `mailpouch_oauth_refreshes_total{mailer="default",result="ok"} 1`) || strings.Contains(page, `mailpouch_oauth_token_expiry_timestamp_seconds{mailer="default"} 0`) {
		t.Error("the metrics do not tell of the token")
	}
	if page := w.get(t, "/status.json"); !strings.Contains(page, `"token_end":"`) || strings.Contains(page, `"token_error"`) {
		t.Errorf("the page does not tell of the token: %s", page)
	}
	send(50)
	if err := w.relay.Wait(t.Context(), 55); err != nil {
		t.Fatal(err)
	}
	if forms := w.login.Forms(); len(forms) > 5 {
		t.Errorf("the provider was asked %d times", len(forms))
	}
}

// get reads a page of the worker.
func (w *world) get(t *testing.T, path string) string {
	t.Helper()
	_, after, _ := strings.Cut(w.logged.String(), `"url":"http://127.0.0.1:`)
	port, _, ok := strings.Cut(after, "/")
	if !ok {
		t.Fatal("the worker has no pages")
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(body), "access-token-") || strings.Contains(string(body), "keep-me-hidden") || strings.Contains(string(body), provider.ClientSecret) {
		t.Errorf("a secret is to be seen at %s", path)
	}
	return string(body)
}

// records are all keys and values of Redis.
func (w *world) records(t *testing.T, client redis.UniversalClient) []string {
	t.Helper()
	ctx := context.Background()
	keys, err := client.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, key := range keys {
		dump, err := client.Dump(ctx, key).Result()
		if err != nil && err != redis.Nil { //nolint:errorlint // it is returned as it is
			t.Fatal(err)
		}
		fields, _ := client.HGetAll(ctx, key).Result() // a hash is compressed in a dump
		all = append(all, key, dump)
		for name, value := range fields {
			all = append(all, name, value)
		}
	}
	return all
}

// secretsAreNowhere looks for tokens and secrets in Redis and in the log.
func (w *world) secretsAreNowhere(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	seen := append(w.records(t, client), w.logged.String())
	if len(seen) < 10 {
		t.Fatalf("only %d texts were looked at", len(seen))
	}
	for _, text := range seen {
		for _, secret := range []string{"access-token-", "refresh-token-", provider.ClientSecret, "device-code-"} {
			if strings.Contains(strings.ReplaceAll(text, w.file, ""), secret) {
				i := strings.Index(text, secret)
				t.Errorf("%q is to be seen: %q", secret, text[max(0, i-100):min(len(text), i+100)])
			}
		}
	}
}

// TestCheck_tokens: worker check asks the provider, then the relay, and says what to do.
func TestCheck_tokens(t *testing.T) {
	w := newTokenWorld(t)
	check := func() string {
		t.Helper()
		got := worker(t.Context(), t, backends.Builtin(), "check")
		for _, secret := range []string{"access-token-", "keep-me-hidden", provider.ClientSecret} {
			if strings.Contains(got.out+got.err, secret) {
				t.Errorf("%q is to be seen:\n%s", secret, got.out)
			}
		}
		i := strings.Index(got.out, "Backend smtp at")
		if i < 0 {
			t.Fatalf("no line of the backend:\n%s%s", got.out, got.err)
		}
		return got.out[i:]
	}
	if got := check(); !strings.Contains(got, "OAuth 2: no token of custom: "+w.file+" has no refresh token yet: worker oauth login writes one\n") {
		t.Errorf("without a file: %s", got)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("an-old-one-keep-me-hidden")
	if got := check(); !strings.Contains(got, "OAuth 2: custom refuses a token: invalid_grant: AADSTS700082: The refresh token '(hidden)' has expired") || !strings.Contains(got, "worker oauth login") {
		t.Errorf("with an old one: %s", got)
	}
	write(provider.FirstRefresh)
	if got := check(); !strings.Contains(got, ": ok\n") {
		t.Errorf("with a good one: %s", got)
	}
	t.Setenv("EMAIL_HOST_USER", "another@example.com") // whom the token is not for
	if got := check(); !strings.Contains(got, "the provider has given a token, and the relay does not take it: is it for EMAIL_HOST_USER, and is EMAIL_OAUTH_SCOPE right?: AUTH: 535 5.7.8") &&
		!strings.Contains(got, "is it for EMAIL_HOST_USER") {
		t.Errorf("for another one: %s", got)
	}
}

// TestTokenHint: what Microsoft's refusals mean.
func TestTokenHint(t *testing.T) {
	for text, want := range map[string]string{
		"Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled": "switched off for the whole Microsoft 365 organisation",
		"Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.":                                        "switched off for this mailbox",
		"Authentication unsuccessful, the user credentials were incorrect.":                                                         "a policy of the Microsoft 365 organisation",
	} {
		s := settingsFor("microsoft")
		err := &mailer.SendError{Step: mailer.StepAuth, Code: 535, Enhanced: "5.7.139", Text: text}
		if got := loginError(s, err).Error(); !strings.Contains(got, want) || !strings.HasSuffix(got, err.Error()) {
			t.Errorf("got %s", got)
		}
	}
	err := &mailer.SendError{Step: mailer.StepAuth, Code: 535, Enhanced: "5.7.3", Text: "Authentication unsuccessful"}
	if got := loginError(settingsFor("microsoft"), err).Error(); !strings.Contains(got, "New-ServicePrincipal") {
		t.Errorf("got %s", got)
	}
	if got := loginError(settingsFor("off"), err); got != err { //nolint:errorlint // it is returned as it is
		t.Errorf("got %v for a password", got)
	}
}

func TestOAuthLogin_errors(t *testing.T) {
	w := newTokenWorld(t)
	for _, tt := range []struct {
		name string
		vars []string
		set  func()
		code int
		want string
	}{
		{"off", []string{"EMAIL_OAUTH", "off"}, nil, cli.ExitConfig, "EMAIL_OAUTH: is off"},
		{"no file", []string{"EMAIL_OAUTH_REFRESH_TOKEN_FILE", ""}, nil, cli.ExitConfig, "EMAIL_OAUTH_REFRESH_TOKEN_FILE: is missing"},
		{"no endpoint", []string{"EMAIL_OAUTH_DEVICE_URL", ""}, nil, cli.ExitConfig, "EMAIL_OAUTH_DEVICE_URL: is missing"},
		{"another client", []string{"EMAIL_OAUTH_CLIENT_ID", "another"}, nil, cli.ExitConfig, "OAuth 2: custom refuses a token: invalid_client"},
		{"refused", nil, func() { w.login.Device(0, 0, "access_denied") }, cli.ExitTempFail, "access_denied"},
		{"away", []string{"EMAIL_OAUTH_DEVICE_URL", "http://127.0.0.1:" + closedPort(t) + "/device"}, nil, cli.ExitUnavailable, "connection refused"},
		{"nowhere to write", []string{"EMAIL_OAUTH_REFRESH_TOKEN_FILE", "/nowhere/token"}, func() { w.login.Device(0, 0, "") }, cli.ExitUnavailable, "EMAIL_OAUTH_REFRESH_TOKEN_FILE: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i := 0; i < len(tt.vars); i += 2 {
				t.Setenv(tt.vars[i], tt.vars[i+1])
			}
			if tt.set != nil {
				tt.set()
			}
			got := worker(t.Context(), t, backends.Builtin(), "oauth", "login")
			if got.code != tt.code || !strings.Contains(got.err, tt.want) || strings.Contains(got.out+got.err, provider.ClientSecret) {
				t.Errorf("%d: %s%s", got.code, got.out, got.err)
			}
		})
	}
	if got := worker(t.Context(), t, backends.Builtin(), "oauth", "login", "--mailer", "nobody"); got.code != cli.ExitUsage {
		t.Errorf("an unknown mailer: %d: %s", got.code, got.err)
	}
	if _, err := os.Stat(w.file); !os.IsNotExist(err) {
		t.Errorf("a file was written: %v", err)
	}
}

func settingsFor(provider string) settings.Settings {
	s := settings.Default()
	s.OAuth.Provider = provider
	return s
}
