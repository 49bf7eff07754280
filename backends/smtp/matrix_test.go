package smtp

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// A way to send, by what the peer offers and the configuration asks for.
type way struct {
	name     string
	offers   []string
	chunking Mode
}

func ways() []way {
	offers := []string{"SIZE 50000000", "8BITMIME", "CHUNKING"}
	pipelining := append(slices.Clone(offers), "PIPELINING")
	return []way{{"strict", offers, Auto}, {"pipelined", pipelining, Off}, {"chunked", pipelining, Auto}}
}

// in runs a test once for each way to send, in fake time.
func (w way) run(t *testing.T, name string, f func(t *testing.T, p *peer, cfg Config)) {
	t.Run(name+"/"+w.name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t, w.offers...)
			cfg := testConfig(t, p)
			cfg.Chunking = w.chunking
			f(t, p, cfg)
		})
	})
}

// fault is what the peer does for a name in the tables.
func fault(name string) string {
	return map[string]string{
		"4yz": "451 4.3.0 later", "5yz": "550 5.7.1 never", "421": "421 4.3.2 closing",
		"garbage": "HTTP/1.1 400 Bad Request", "codes differ": "250-2.0.0 well|550 5.0.0 not", "out of place": "235 2.7.0 what?",
		"too long": strings.Repeat("250-x|", 2000) + "250 x", "long line": "250 " + strings.Repeat("x", 5000),
		"accepted": "250 2.0.0 Ok: queued", "close": "close", "stall": "stall",
	}[name]
}

// TestBackend_faults is the fault matrix. Of three messages, the second meets the
// fault at each of its tries; want is what becomes of it, and the others are sent.
// conns is the number of connections that takes: with 1 the connection survives,
// with 2 it does not, with 3 the second message had another try at once, since
// the first connection had served other messages.
//
// When chunking, all three messages may be on their way when the connection breaks:
// window is what becomes of the second and the third then.
func TestBackend_faults(t *testing.T) {
	tests := []struct {
		step, fault string
		want        string
		conns       int
		window      string
		windowConns int
	}{
		{"MAIL", "4yz", "temporary", 1, "", 0},
		{"MAIL", "5yz", "permanent", 1, "", 0},
		{"MAIL", "421", "unavailable", 3, "unavailable unknown", 2},
		{"MAIL", "close", "temporary", 3, "unknown unknown", 1},
		{"MAIL", "garbage", "temporary", 3, "unknown unknown", 1},
		{"MAIL", "codes differ", "temporary", 3, "unknown unknown", 1},
		{"MAIL", "too long", "temporary", 3, "unknown unknown", 1},
		{"MAIL", "long line", "sent", 1, "", 0},
		{"MAIL", "stall", "unavailable", 2, "unknown unknown", 1},

		{"RCPT", "4yz", "temporary", 1, "", 0},
		{"RCPT", "5yz", "permanent", 1, "", 0},
		{"RCPT", "421", "unavailable", 3, "unavailable unknown", 2},
		{"RCPT", "close", "temporary", 3, "unknown unknown", 1},
		{"RCPT", "garbage", "temporary", 3, "unknown unknown", 1},
		{"RCPT", "stall", "unavailable", 2, "unknown unknown", 1},

		{"DATA", "4yz", "temporary", 1, "", 0},
		{"DATA", "5yz", "permanent", 1, "", 0},
		{"DATA", "421", "unavailable", 3, "", 0},
		{"DATA", "close", "temporary", 3, "", 0},
		{"DATA", "garbage", "temporary", 3, "", 0},
		{"DATA", "out of place", "temporary", 2, "", 0},
		{"DATA", "stall", "unavailable", 2, "", 0},

		{"body", "4yz", "temporary", 2, "", 0},
		{"body", "5yz", "permanent", 2, "", 0},
		{"body", "421", "unavailable", 3, "", 0},
		{"body", "close", "temporary", 3, "", 0},
		{"body", "garbage", "temporary", 3, "", 0},
		{"body", "out of place", "temporary", 3, "", 0},
		{"body", "accepted", "temporary", 3, "", 0}, // before its last byte was written
		{"body", "stall", "temporary", 2, "", 0},
		{"small body", "accepted", "temporary", 3, "", 0},

		{"dot", "4yz", "temporary", 1, "", 0},
		{"dot", "5yz", "permanent", 1, "", 0},
		{"dot", "421", "unavailable", 2, "unavailable unknown", 1},
		{"dot", "close", "unknown", 2, "unknown unknown", 1},
		{"dot", "garbage", "unknown", 2, "unknown unknown", 1},
		{"dot", "codes differ", "unknown", 2, "unknown unknown", 1},
		{"dot", "out of place", "unknown", 2, "unknown unknown", 1},
		{"dot", "stall", "unknown", 2, "unknown unknown", 1},
	}
	for _, tt := range tests {
		for _, w := range ways() {
			if w.name == "chunked" && tt.step == "DATA" {
				continue // is not said
			}
			w.run(t, tt.step+"/"+tt.fault, func(t *testing.T, p *peer, cfg Config) {
				messages := letters(3)
				lines, step := 0, tt.step
				switch step { // so that some of it is written and some is not
				case "body":
					lines = 5000
				case "small body": // which is written in one go, but for its end
					lines, step = 500, "body"
				}
				if lines > 0 {
					messages[1].Body = strings.Repeat(strings.Repeat("x", 70)+"\n", lines)
				}
				p.script = on(step, "b@x", fault(tt.fault))
				want, conns := "sent "+tt.want+" sent", tt.conns
				if w.name == "chunked" && tt.window != "" {
					want, conns = "sent "+tt.window, tt.windowConns
				}
				if got := fates(sendAll(t, newBackend(t, cfg), messages)); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				if p.conns != conns {
					t.Errorf("got %d connections, want %d", p.conns, conns)
				}
				checkTaken(t, p, want)
			})
		}
	}
}

// checkTaken compares what the peer has taken with the fates of letters(n): what was
// sent it has once, what was refused it has not.
func checkTaken(t *testing.T, p *peer, fates string) {
	t.Helper()
	taken := p.senders()
	for i, fate := range strings.Fields(fates) {
		n, sender := 0, letters(i + 1)[i].FromEmail
		for _, s := range taken {
			if s == sender {
				n++
			}
		}
		if fate == "sent" && n != 1 || fate == "unknown" && n > 1 || fate != "sent" && fate != "unknown" && n != 0 {
			t.Errorf("%s: %s, and the peer has it %d times", sender, fate, n)
		}
	}
}

// TestBackend_connectFaults are the rows of the matrix before MAIL: no message has been spoken
// of, so that all fail as unavailable, at the step named.
func TestBackend_connectFaults(t *testing.T) {
	tests := []struct {
		step  string
		want  mailer.Step
		begin string // "" or what else is configured
	}{
		{"greeting", mailer.StepGreet, ""},
		{"EHLO", mailer.StepHello, "login"},
		{"STARTTLS", mailer.StepTLS, "tls"},
		{"AUTH", mailer.StepAuth, "login"},
	}
	for _, tt := range tests {
		for _, name := range []string{"4yz", "5yz", "421", "close", "garbage", "stall"} {
			t.Run(tt.step+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPeer(t, "AUTH PLAIN", "STARTTLS", "PIPELINING")
					p.script = on(tt.step, "", fault(name))
					cfg := testConfig(t, p)
					if tt.begin == "login" {
						cfg.Username, cfg.Password, cfg.AllowInsecureAuth = "me", "secret", true
					}
					if tt.begin == "tls" {
						cfg.TLS = TLSStart
					}
					start := time.Now()
					results := sendAll(t, newBackend(t, cfg), letters(2))
					for _, r := range results {
						var s *mailer.SendError
						if !errors.As(r.Err, &s) || s.Class != mailer.Unavailable || s.Step != tt.want {
							t.Errorf("got %v, want unavailable at %s", r.Err, tt.want)
						}
					}
					conns := 1
					if tt.step+"/"+name == "greeting/stall" {
						conns = 2 // it is asked whether it waits for TLS
					}
					if p.conns != conns || len(p.senders()) != 0 {
						t.Errorf("%d connections, messages %v", p.conns, p.senders())
					}
					if took := time.Since(start); name == "stall" && took != 5*time.Minute && (conns == 1 || took > 5*time.Minute+5*time.Second) {
						t.Errorf("waited %v", took)
					}
				})
			})
		}
	}
}

// TestBackend_quitFaults: nothing that a server does at the goodbye is of interest, and
// it does not take long.
func TestBackend_quitFaults(t *testing.T) {
	for _, name := range []string{"4yz", "5yz", "421", "close", "garbage", "stall"} {
		for _, w := range ways() {
			w.run(t, name, func(t *testing.T, p *peer, cfg Config) {
				p.script = on("QUIT", "", fault(name))
				start := time.Now()
				sent, err := newBackend(t, cfg).SendMessages(t.Context(), letters(2))
				if sent != 2 || err != nil {
					t.Errorf("got %d, %v", sent, err)
				}
				if took := time.Since(start); took > quitTimeout {
					t.Errorf("took %v", took)
				}
			})
		}
	}
}

// TestBackend_resetFaults: after a refused message RSET is not answered well. That is nobody's
// fault, and the next message goes over a new connection.
func TestBackend_resetFaults(t *testing.T) {
	for _, name := range []string{"4yz", "5yz", "421", "close", "garbage"} {
		for _, w := range ways()[:2] {
			w.run(t, name, func(t *testing.T, p *peer, cfg Config) {
				p.script = func(at event) string {
					switch {
					case at.step == "RCPT" && at.mail == "a@x":
						return "550 5.1.1 nobody"
					case at.step == "RSET":
						return fault(name)
					}
					return ""
				}
				want := "permanent sent sent"
				if got := fates(sendAll(t, newBackend(t, cfg), letters(3))); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				if p.conns != 2 {
					t.Errorf("%d connections", p.conns)
				}
				checkTaken(t, p, want)
			})
		}
	}
}

var _ tls.Config
