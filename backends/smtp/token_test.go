package smtp

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mailpouch/mailpouch/mailer"
)

// loopback is a connection to this machine, as far as its address says.
type loopback struct{ net.Conn }

func (loopback) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

// onLoopback makes the server of cfg one on this machine.
func onLoopback(cfg *Config) {
	dial := cfg.Dial
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return loopback{c}, err
	}
}

// tokens gives a configuration a source of one token, and a server that may see it.
func tokens(token string) func(cfg *Config) {
	return func(cfg *Config) {
		onLoopback(cfg)
		cfg.TokenSource = TokenFunc(func(context.Context) (string, error) { return token, nil })
	}
}

// changing is a source with a list of tokens: it goes on to the next one when one was refused.
type changing struct {
	list    []string
	asked   int
	refused []string
}

func (c *changing) Token(context.Context) (string, error) {
	c.asked++
	if len(c.list) == 0 {
		return "", errors.New("there is no other token")
	}
	return c.list[0], nil
}

func (c *changing) Refused(token string) {
	c.refused = append(c.refused, token)
	if len(c.list) > 0 && token == c.list[0] {
		c.list = c.list[1:]
	}
}

// TestBackend_tokenRefused: the login is tried once more with a new token, and not twice, with the mechanism that the
// server knows.
func TestBackend_tokenRefused(t *testing.T) {
	for _, tt := range []struct {
		name, offer string
		list        []string
		used        string
		refused     string
		want        string
	}{
		{"good", "XOAUTH2", []string{"good"}, "XOAUTH2", "", "sent"},
		{"old, then good", "XOAUTH2", []string{"first-old", "good"}, "XOAUTH2 XOAUTH2", "first-old", "sent"},
		{"old, then good, by OAUTHBEARER", "XOAUTH2 OAUTHBEARER", []string{"first-old", "good"}, "OAUTHBEARER OAUTHBEARER", "first-old", "sent"},
		{"old, and old again", "XOAUTH2 OAUTHBEARER", []string{"first-old", "second-old", "good"}, "OAUTHBEARER OAUTHBEARER", "first-old", "unavailable"},
		{"old, and none", "XOAUTH2", []string{"first-old"}, "XOAUTH2", "first-old", "unavailable"},
		{"none", "XOAUTH2", nil, "", "", "unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, "AUTH PLAIN "+tt.offer)
				p.auth = knows("me", "password", "good")
				cfg := testConfig(t, p)
				onLoopback(&cfg)
				source := &changing{list: tt.list}
				var trace strings.Builder
				cfg.Username, cfg.Password, cfg.TokenSource = "me", "password", source
				cfg.Trace = func(line string) { trace.WriteString(line + "\n") }
				results := sendAll(t, newBackend(t, cfg), letters(1))
				if got := fates(results); got != tt.want {
					t.Errorf("got %s, want %s: %v", got, tt.want, results[0].Err)
				}
				var used []string
				for _, c := range p.said() {
					if mech, ok := strings.CutPrefix(c, "AUTH "); ok {
						mech, _, _ = strings.Cut(mech, " ")
						used = append(used, mech)
					}
				}
				if got := strings.Join(used, " "); got != tt.used {
					t.Errorf("used %q, want %q", got, tt.used)
				}
				if got := strings.Join(source.refused[:min(1, len(source.refused))], " "); got != tt.refused {
					t.Errorf("the source was told of %q, want %q", source.refused, tt.refused)
				}
				if (p.conns == 0) != (tt.list == nil) {
					t.Errorf("%d connections", p.conns)
				}
				for _, secret := range []string{"first-old", "second-old", "password", b64("first-old")} {
					if strings.Contains(trace.String(), secret) || results[0].Err != nil && strings.Contains(results[0].Err.Error(), secret) {
						t.Errorf("%q is told to everybody: %v\n%s", secret, results[0].Err, trace.String())
					}
				}
			})
		})
	}
}

// TestBackend_tokenReason: what the server says of a token beside its reply is in the error, without the token.
func TestBackend_tokenReason(t *testing.T) {
	for mech, dummy := range map[string]string{"XOAUTH2": "", "OAUTHBEARER": "\x01"} {
		t.Run(mech, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, "AUTH "+mech)
				var answer string
				p.auth = func(_, _ string, ask func(string) string) bool {
					answer = ask(`{"status":"invalid_token","schemes":"bearer","scope":"mail-scope for a-token"}`)
					return false
				}
				cfg := testConfig(t, p)
				cfg.Username, cfg.AuthMechanisms = "me", []string{mech}
				tokens("a-token")(&cfg)
				s := sendError(t, sendAll(t, newBackend(t, cfg), letters(1))[0].Err)
				if s.Code != 535 || s.Class != mailer.Unavailable || answer != dummy {
					t.Errorf("got %v after the answer %q", s, answer)
				}
				if !strings.Contains(s.Text, "("+mech+" as me: status invalid_token, scope mail-scope for (hidden))") {
					t.Errorf("got %q", s.Text)
				}
			})
		})
	}
}

// TestBackend_tokenInClear: a token goes to no other machine without TLS, whatever is allowed to passwords.
func TestBackend_tokenInClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t, "AUTH XOAUTH2")
		cfg := testConfig(t, p)
		cfg.Username, cfg.AllowInsecureAuth = "me", true
		cfg.TokenSource = TokenFunc(func(context.Context) (string, error) { return "a-token", nil })
		if err := sendAll(t, newBackend(t, cfg), letters(1))[0].Err; !errors.Is(err, errInsecureToken) {
			t.Errorf("got %v", err)
		}
		if slices.ContainsFunc(p.said(), func(c string) bool { return strings.HasPrefix(c, "AUTH") }) {
			t.Errorf("it was sent: %q", p.said())
		}
	})
}
