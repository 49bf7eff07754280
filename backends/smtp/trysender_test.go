package smtp

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
	"github.com/mailpouch/mailpouch/mailer"
)

// TestBackend_TrySender: what the server says to MAIL is told, and where that leaves the
// connection in order the next message goes over it.
func TestBackend_TrySender(t *testing.T) {
	for _, tt := range []struct {
		name, from   string
		offers       []string
		step, action string // of the peer's script
		code         int    // of the refusal, 0: none or another error
		class        mailer.Class
		failed       mailer.Step
		conns        int // with a message behind it
	}{
		{"taken", "Shop <shop@x>", nil, "", "", 0, 0, "", 1},
		{"wants a login", "shop@x", nil, "MAIL", "530 5.7.0 Authentication required", 530, mailer.Unavailable, mailer.StepMail, 1},
		{"another sender", "shop@x", nil, "MAIL", "553 5.7.1 not yours", 553, mailer.Permanent, mailer.StepMail, 1},
		{"for now", "shop@x", nil, "MAIL", "451 4.3.0 later", 451, mailer.Temporary, mailer.StepMail, 1},
		{"closes", "shop@x", nil, "MAIL", "421 4.3.2 closing", 421, mailer.Unavailable, mailer.StepMail, 2},
		{"hangs up", "shop@x", nil, "MAIL", "close", 0, mailer.Unavailable, mailer.StepMail, 2},
		{"stalls", "shop@x", nil, "MAIL", "stall", 0, mailer.Unavailable, mailer.StepMail, 2},
		{"knows no RSET", "shop@x", nil, "RSET", "500 what?", 500, mailer.Unavailable, mailer.StepReset, 2},
		{"no login possible", "shop@x", nil, "greeting", "554 no", 554, mailer.Unavailable, mailer.StepGreet, 3},
		{"beyond ASCII", "jürgen@x", []string{"SMTPUTF8"}, "", "", 0, 0, "", 1},
		{"beyond ASCII and the server", "jürgen@x", nil, "", "", 0, mailer.Permanent, mailer.StepMail, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, tt.offers...)
				p.script = once(tt.step, tt.action)
				b := newBackend(t, testConfig(t, p))
				_, _ = b.Open(t.Context())
				if tt.failed == mailer.StepGreet {
					p.script = once(tt.step, tt.action)
				}
				err := b.TrySender(t.Context(), tt.from)
				if tt.failed == "" && err != nil {
					t.Errorf("got %v", err)
				}
				if tt.failed != "" {
					if s := sendError(t, err); s.Code != tt.code || s.Class != tt.class || s.Step != tt.failed {
						t.Errorf("got %+v", s)
					}
				}
				if got := fates(sendAll(t, b, letters(1))); got != "sent" {
					t.Errorf("the next message: %s", got)
				}
				if p.conns != tt.conns {
					t.Errorf("%d connections, want %d", p.conns, tt.conns)
				}
				synctest.Wait()
				if n := len(p.senders()); n != 1 {
					t.Errorf("%d messages were sent, want the one", n)
				}
			})
		})
	}
}

// A server that says why and hangs up is quoted.
func TestBackend_TrySender_saysWhyAndHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.script = func(at event) string {
			return map[string]string{"MAIL": "530 5.7.0 login first", "RSET": "close"}[at.step]
		}
		b := newBackend(t, testConfig(t, p))
		if s := sendError(t, b.TrySender(t.Context(), "shop@x")); s.Code != 530 {
			t.Errorf("got %v", s)
		}
	})
}

func TestBackend_TrySender_commands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		b := newBackend(t, testConfig(t, p))
		if err := b.TrySender(t.Context(), "Shop <shop@x>"); err != nil {
			t.Fatal(err)
		}
		want := []string{"EHLO client.example", "MAIL FROM:<shop@x>", "RSET", "QUIT"}
		if !slices.Equal(p.said(), want) {
			t.Errorf("said %q, want %q", p.said(), want)
		}
		var invalid *mailer.InvalidMessageError
		for _, from := range []string{"", "<", "a@x\r\nRCPT TO:<b@x>"} {
			if err := b.TrySender(t.Context(), from); !errors.As(err, &invalid) && !mailer.IsBadInput(err) {
				t.Errorf("%q: %v", from, err)
			}
		}
	})
}

// TestPostfix_trySender: a Postfix that wants TLS first, or a login, says so at MAIL.
func TestPostfix_trySender(t *testing.T) {
	for name, tt := range map[string]struct {
		opts postfixtest.Options
		want string
	}{
		"anybody": {postfixtest.Options{}, ""},
		"TLS":     {postfixtest.Options{TLS: true, Main: []string{"smtpd_tls_security_level = encrypt"}}, "530 5.7.0 Must issue a STARTTLS command first"},
		"login": {postfixtest.Options{Main: []string{"smtpd_delay_reject = no",
			"smtpd_sender_restrictions = check_sender_access static:{530 5.7.0 Authentication required}"}}, "530 5.7.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := postfixtest.Start(t, tt.opts)
			b := newBackend(t, forPostfix(s, Config{}))
			if _, err := b.Open(t.Context()); err != nil {
				t.Fatalf("Open: %v, as before MAIL all is well", err)
			}
			err := b.TrySender(t.Context(), "shop@example.com")
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
