package workercli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// What is changed comes first, and the rest only if it is asked for.
func TestCheck_changedFirst(t *testing.T) {
	t.Setenv("REDIS_URL", redistest.Start(t, redistest.Options{}).URL())
	t.Setenv("EMAIL_QUEUE_BACKEND", "dummy")
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("LOG_LEVEL", "debug")
	short := worker(t.Context(), t, backends.Builtin(), "check")
	if lines := strings.Split(short.out, "\n"); len(lines) < 5 || !strings.HasPrefix(lines[0], "EMAIL_HOSTNAME") || strings.Contains(short.out, "EMAIL_PORT") ||
		!strings.Contains(short.out, " settings are not changed (worker check --all prints them)\n") {
		t.Errorf("check:\n%s", short.out)
	}
	all := worker(t.Context(), t, backends.Builtin(), "check", "--all")
	level, port := strings.Index(all.out, "LOG_LEVEL"), strings.Index(all.out, "EMAIL_PORT ")
	if level < 0 || port < level || strings.Contains(all.out, "are not changed") {
		t.Errorf("check --all: LOG_LEVEL at %d, EMAIL_PORT at %d:\n%s", level, port, all.out)
	}
	if short.code != 0 || all.code != 0 {
		t.Errorf("exit codes %d and %d\n%s", short.code, all.code, short.out)
	}
}

// What works here and is refused elsewhere is a warning that names the setting.
func TestCheck_settingWarnings(t *testing.T) {
	port, _ := relay(t, nil)
	redisURL := redistest.Start(t, redistest.Options{}).URL()
	good := map[string]string{"DEFAULT_FROM_EMAIL": "shop@example.com", "SERVER_EMAIL": "root@example.com", "EMAIL_HOSTNAME": "app.example.com"}
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string // "" is no warning
	}{
		{"all is well", nil, ""},
		{"an unknown backend", map[string]string{"EMAIL_BACKEND": "smpt"}, `EMAIL_BACKEND: backends: no backend is named "smpt"; did you mean smtp?`},
		{"the queue", map[string]string{"EMAIL_BACKEND": "queue"}, ""},
		{"Django's path", map[string]string{"EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend"}, ""},
		{"no sender", map[string]string{"DEFAULT_FROM_EMAIL": ""}, "DEFAULT_FROM_EMAIL is not set: a message that names no sender is from webmaster@localhost"},
		{"no domain", map[string]string{"DEFAULT_FROM_EMAIL": "Shop <shop>"}, "DEFAULT_FROM_EMAIL: Shop <shop> has no domain"},
		{"localhost", map[string]string{"DEFAULT_FROM_EMAIL": "webmaster@localhost"}, "DEFAULT_FROM_EMAIL: no other network knows the domain localhost"},
		{"a domain of one's own", map[string]string{"SERVER_EMAIL": "root@vm.local"}, "SERVER_EMAIL: no other network knows the domain vm.local"},
		{"an address literal", map[string]string{"SERVER_EMAIL": "root@[192.0.2.1]", "EMAIL_HOSTNAME": "[192.0.2.1]"}, ""},
		{"no sender for admins", map[string]string{"SERVER_EMAIL": "", "ADMINS": "ann@example.com"}, "SERVER_EMAIL is not set: mail to ADMINS and MANAGERS is from root@localhost"},
		{"a short name", map[string]string{"EMAIL_HOSTNAME": "vm"}, "EMAIL_HOSTNAME: no other network knows the name vm"},
		{"a name nobody needs", map[string]string{"EMAIL_HOSTNAME": "vm", "EMAIL_QUEUE_BACKEND": "console"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("REDIS_URL", redisURL)
			t.Setenv("EMAIL_HOST", "127.0.0.1")
			t.Setenv("EMAIL_PORT", port)
			for _, env := range []map[string]string{good, tt.env} {
				for name, value := range env {
					t.Setenv(name, value)
				}
			}
			got := worker(t.Context(), t, backends.Builtin(), "check")
			said, _, _ := strings.Cut(got.out, "\n\n")
			if got.code != 0 || strings.Contains(said, "warning") != (tt.want != "") || !strings.Contains(said, tt.want) {
				t.Errorf("exit code %d, want the warning %q:\n%s", got.code, tt.want, said)
			}
		})
	}
}

// A machine without a domain name is warned of, whatever this one is.
func TestNameWarnings(t *testing.T) {
	s := settings.Default()
	for name, want := range map[string]string{
		"": "EMAIL_HOSTNAME is not set, and this machine", "vm.localdomain": "no other network knows the name of this machine, vm.localdomain",
		"mail.example.com": "", "[192.0.2.1]": "",
	} {
		got := strings.Join(nameWarnings(s, name), "\n")
		if (got == "") != (want == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q", name, got)
		}
	}
}

// tlsRelays starts a server for STARTTLS and one for TLS at once. Both know the login ann.
func tlsRelays(t *testing.T) (start, implicit, ca string) {
	t.Helper()
	authority, err := testserver.NewAuthority(t.TempDir(), "authority")
	if err == nil {
		err = authority.Issue("server", "server", x509.ExtKeyUsageServerAuth)
	}
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(authority.CertFiles("server"))
	if err != nil {
		t.Fatal(err)
	}
	login := func(string, string) error { return nil }
	for _, s := range []struct {
		addr *string
		cfg  catcher.Config
	}{{&start, catcher.Config{Login: login}}, {&implicit, catcher.Config{Login: login, ImplicitTLS: true}}} {
		s.cfg.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server, err := catcher.Start(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
		*s.addr = server.Addr()
	}
	return start, implicit, authority.CAFile()
}

// TLS where the server speaks otherwise, and the reverse, is recognised within seconds, with the setting to change.
func TestCheck_tls(t *testing.T) {
	start, implicit, ca := tlsRelays(t)
	plain, secure := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{TLS: true})
	for _, tt := range []struct {
		name, redis, relay string
		tls, ssl           string
		want               string // "" is that all is well
	}{
		{"STARTTLS", plain.URL(), start, "1", "", ""},
		{"TLS at once", secure.URL(), implicit, "", "1", ""},
		{"rediss:// to a Redis without TLS", "rediss://" + plain.Addr(), start, "1", "", "speaks no TLS, and REDIS_URL does: begin it with redis://"},
		{"redis:// to a Redis with TLS", "redis://" + secure.Addr(), start, "1", "", "speaks TLS, and REDIS_URL does not: begin it with rediss://"},
		{"TLS at once to a port for STARTTLS", plain.URL(), start, "", "1", "use STARTTLS (EMAIL_USE_TLS), not TLS at once (EMAIL_USE_SSL)"},
		{"STARTTLS to a port for TLS", plain.URL(), implicit, "1", "", "speaks TLS at once: use EMAIL_USE_SSL, and not EMAIL_USE_TLS"},
		{"TLS at once to a port for something else", plain.URL(), other(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), "", "1", "speaks neither TLS nor SMTP: is it the right port (EMAIL_PORT)?"},
		{"no TLS to a port for TLS", plain.URL(), implicit, "", "", "speaks TLS at once: use EMAIL_USE_SSL, and not EMAIL_USE_TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host, port, _ := net.SplitHostPort(tt.relay)
			for name, value := range map[string]string{
				"REDIS_URL": tt.redis, "EMAIL_HOST": host, "EMAIL_PORT": port, "EMAIL_USE_TLS": tt.tls, "EMAIL_USE_SSL": tt.ssl, "EMAIL_SSL_CAFILE": ca,
				"EMAIL_HOST_USER": "ann", "EMAIL_HOST_PASSWORD": "secret", "EMAIL_HOSTNAME": "app.example.com", "DEFAULT_FROM_EMAIL": "ann@example.com",
			} {
				t.Setenv(name, value)
			}
			began := time.Now()
			got := worker(t.Context(), t, backends.Builtin(), "check")
			if code := map[bool]int{true: 0, false: 69}[tt.want == ""]; got.code != code || !strings.Contains(got.out, tt.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", got.code, code, tt.want, got.out, got.err)
			}
			// What waits for a deadline takes 15 seconds or more. A busy machine is given time.
			if took := time.Since(began); took > 12*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// other is a server that speaks something else.
func other(t *testing.T, says string) (addr string) {
	t.Helper()
	return testserver.Serve(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, says)
		_, _ = io.Copy(io.Discard, conn) // until the client has seen enough: a close with unread bytes would be a reset
	})
}

// A server that says nothing is no riddle: the check names the settings.
func TestCheck_silent(t *testing.T) {
	s := settings.Default()
	silent := func(step mailer.Step) error {
		return &mailer.SendError{Class: mailer.Unavailable, Step: step, Err: context.DeadlineExceeded}
	}
	for _, tt := range []struct {
		err  error
		ssl  bool
		said bool
	}{
		{silent(mailer.StepGreet), false, true},
		{silent(mailer.StepTLS), true, true},
		{silent(mailer.StepTLS), false, false}, // it has greeted
		{silent(mailer.StepAuth), true, false},
		{errors.New("refused"), true, false},
		{nil, true, false},
	} {
		s.SMTP.UseSSL = tt.ssl
		got := silentError(s, tt.err)
		if said := got != nil && strings.Contains(got.Error(), "look at EMAIL_HOST and EMAIL_PORT"); said != tt.said || !errors.Is(got, tt.err) {
			t.Errorf("%v with EMAIL_USE_SSL=%v: %v", tt.err, tt.ssl, got)
		}
	}
}

// A server that wants TLS before a login says so in several ways.
func TestCheck_loginWantsTLS(t *testing.T) {
	redisURL := redistest.Start(t, redistest.Options{}).URL()
	for _, tt := range []struct{ name, offers, auth, mail, want string }{
		{"AUTH after STARTTLS only", "250-STARTTLS", "", "", "no AUTH before STARTTLS, and a login is configured: use EMAIL_USE_TLS"},
		{"AUTH is refused without TLS", "250-STARTTLS\r\n250-AUTH PLAIN", "538 5.7.11 Encryption required", "", "the relay wants TLS before the login: set EMAIL_USE_TLS"},
		{"AUTH is refused with 530", "250-STARTTLS\r\n250-AUTH PLAIN", "530 5.7.0 Must issue a STARTTLS command first", "", "the relay wants TLS before the login: set EMAIL_USE_TLS"},
		{"MAIL is refused without TLS", "250-STARTTLS\r\n250-AUTH PLAIN", "235 2.7.0 Ok", "530 5.7.0 Must issue a STARTTLS command first", "the relay wants TLS: set EMAIL_USE_TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			replies := map[string]string{"EHLO": "250-relay.example\r\n" + tt.offers + "\r\n250 8BITMIME", "AUTH": tt.auth}
			if tt.mail != "" {
				replies["MAIL"] = tt.mail
			}
			port, _ := relay(t, replies)
			for name, value := range map[string]string{
				"REDIS_URL": redisURL, "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": port, "EMAIL_HOST_USER": "ann", "EMAIL_HOST_PASSWORD": "secret",
				"EMAIL_HOSTNAME": "app.example.com", "DEFAULT_FROM_EMAIL": "ann@example.com",
			} {
				t.Setenv(name, value)
			}
			got := worker(t.Context(), t, backends.Builtin(), "check")
			if got.code != 69 || !strings.Contains(got.out, tt.want) || strings.Contains(got.out, "secret\n") {
				t.Errorf("exit code %d, want %q:\n%s", got.code, tt.want, got.out)
			}
		})
	}
}

func TestCheck_lineEnd(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1/0\n")
	t.Setenv("EMAIL_USE_TLS", "true\n")
	t.Setenv("EMAIL_HOST_PASSWORD", "the-secret\r\n")
	got := worker(t.Context(), t, backends.Builtin(), "check")
	for _, name := range []string{"REDIS_URL", "EMAIL_USE_TLS", "EMAIL_HOST_PASSWORD"} {
		if !strings.Contains(got.err, name+": has a line end at its end") {
			t.Errorf("nothing of %s in\n%s", name, got.err)
		}
	}
	if got.code != 78 || strings.Contains(got.out+got.err, "the-secret") {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.err)
	}
}
