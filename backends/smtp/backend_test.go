package smtp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

func sendError(t *testing.T, err error) *mailer.SendError {
	t.Helper()
	var s *mailer.SendError
	if !errors.As(err, &s) {
		t.Fatalf("got %v, want a SendError", err)
	}
	return s
}

// everyWay runs a test in fake time for each way to send.
func everyWay(t *testing.T, f func(t *testing.T, p *peer, cfg Config)) {
	t.Helper()
	for _, w := range ways() {
		w.run(t, "way", f)
	}
}

func TestBackend_recipients(t *testing.T) {
	answers := map[string]string{
		"no@x": "550 5.1.1 unknown", "full@x": "452 4.2.2 mailbox full", "grey@x": "450 4.2.0 later",
		"odd@x": "252 2.1.5 cannot verify", "moved@x": "251 2.1.5 will forward", "wait@x": "454 4.7.0 not now",
	}
	tests := []struct {
		name  string
		to    []string
		want  string
		taken []string
		wrong string // the refused, with their classes
	}{
		{"some refused", []string{"a@x", "no@x", "b@x"}, "partly", []string{"a@x", "b@x"}, "no@x permanent"},
		{"all sorts", []string{"no@x", "grey@x", "odd@x", "wait@x", "moved@x"}, "partly", []string{"odd@x", "moved@x"},
			"no@x permanent, grey@x temporary, wait@x temporary"},
		{"all refused", []string{"no@x"}, "permanent", nil, "no@x permanent"},
		{"all later", []string{"grey@x"}, "temporary", nil, "grey@x temporary"},
		{"one of them may be accepted later", []string{"no@x", "grey@x"}, "temporary", nil, "no@x permanent, grey@x temporary"},
		{"mailbox full is not too many", []string{"a@x", "full@x"}, "partly", []string{"a@x"}, "full@x temporary"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *peer, cfg Config) {
				p.script = func(at event) string {
					if at.step == "RCPT" {
						return answers[at.rcpt]
					}
					return ""
				}
				results := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{letter("a@x"), letter("b@x", tt.to...), letter("c@x")})
				if got, want := fates(results), "sent "+tt.want+" sent"; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				refused := results[1].Refused
				if results[1].Err != nil {
					refused = sendError(t, results[1].Err).Refused
				}
				var wrong []string
				for _, r := range refused {
					wrong = append(wrong, r.Recipient+" "+r.Class.String())
				}
				if got := strings.Join(wrong, ", "); got != tt.wrong {
					t.Errorf("refused %s, want %s", got, tt.wrong)
				}
				for _, m := range p.taken() {
					if m.from == "b@x" && !slices.Equal(m.to, tt.taken) {
						t.Errorf("taken for %v, want %v", m.to, tt.taken)
					}
				}
				if p.conns != 1 {
					t.Errorf("%d connections", p.conns)
				}
			})
		})
	}
}

// TestBackend_tooManyRecipients: what is too much for one transaction goes in the next, at once.
func TestBackend_tooManyRecipients(t *testing.T) {
	for _, tt := range []struct {
		refusal     string
		limit, rcpt int
		want        int // transactions
	}{
		{"452 4.5.3 too many", 2, 5, 3},
		{"452 too many", 1, 3, 3},
		{"552 too many", 100, 150, 2},
		{"552 5.5.3 too many", 2, 5, 3},
		{"550 5.5.3 too many", 2, 5, 3},
		{"451 4.5.3 too many", 2, 5, 3},
	} {
		t.Run(tt.refusal, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *peer, cfg Config) {
				n := 0
				p.script = func(at event) string {
					switch at.step {
					case "MAIL":
						n = 0
					case "RCPT":
						if n++; n > tt.limit {
							return tt.refusal
						}
					}
					return ""
				}
				var to []string
				for i := range tt.rcpt {
					to = append(to, fmt.Sprintf("r%d@x", i))
				}
				results := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{letter("a@x", to...), letter("b@x")})
				if fates(results) != "sent sent" {
					t.Errorf("got %s: %v", fates(results), results[0].Error())
				}
				var taken []string
				transactions := 0
				for _, m := range p.taken() {
					if m.from == "a@x" {
						transactions++
						taken = append(taken, m.to...)
					}
				}
				if !slices.Equal(taken, to) || transactions != tt.want {
					t.Errorf("%d transactions for %v", transactions, taken)
				}
			})
		})
	}
}

// TestBackend_secondTransactionFails: some have the message already, so that it is sent.
func TestBackend_secondTransactionFails(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		dots := 0
		p.script = func(at event) string {
			switch {
			case at.step == "RCPT" && at.rcpt == "late@x" && dots == 0:
				return "452 4.5.3 too many"
			case at.step == "dot":
				if dots++; dots == 2 {
					return "close"
				}
			}
			return ""
		}
		results := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{letter("a@x", "early@x", "late@x")})
		if got := fates(results); got != "partly" || len(results[0].Refused) != 1 {
			t.Fatalf("got %s, %v", got, results[0])
		}
		if r := results[0].Refused[0]; r.Recipient != "late@x" || r.Class != mailer.Unknown {
			t.Errorf("got %v", r)
		}
	})
}

// TestBackend_stale: a connection that died while idle costs nothing but a new one.
func TestBackend_stale(t *testing.T) {
	for name, die := range map[string]func(p *peer){
		"closed":        func(p *peer) { p.drop("") },
		"421":           func(p *peer) { p.drop("421 4.4.2 timeout exceeded") },
		"unsolicited":   func(p *peer) { p.drop("250 here I am") },
		"silent":        func(p *peer) { p.script = func(at event) string { return map[int]string{1: "stall"}[at.conn] } },
		"421 to MAIL":   func(p *peer) { p.script = once("MAIL", "421 4.3.2 closing") },
		"close at MAIL": func(p *peer) { p.script = once("MAIL", "close") },
		"close at RCPT": func(p *peer) { p.script = once("RCPT", "close") },
	} {
		t.Run(name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *peer, cfg Config) {
				b := newBackend(t, cfg)
				if opened, err := b.Open(t.Context()); !opened || err != nil {
					t.Fatal(opened, err)
				}
				if got := fates(sendAll(t, b, letters(1))); got != "sent" {
					t.Fatal(got)
				}
				time.Sleep(2 * fresh)
				die(p)
				synctest.Wait()
				if got := fates(sendAll(t, b, letters(2))); got != "sent sent" {
					t.Errorf("got %s", got)
				}
				if p.conns != 2 {
					t.Errorf("%d connections", p.conns)
				}
				if opened, err := b.Open(t.Context()); opened || err != nil {
					t.Errorf("Open: %v, %v; it was open", opened, err)
				}
			})
		})
	}
}

// once makes a script that does something the first time that a step comes up.
func once(step, action string) func(event) string {
	var done atomic.Bool
	return func(at event) string {
		if at.step == step && done.CompareAndSwap(false, true) {
			return action
		}
		return ""
	}
}

func TestBackend_limits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(cfg *Config)
		conns int
	}{
		{"none", func(*Config) {}, 1},
		{"messages", func(cfg *Config) { cfg.MaxMessages = 2 }, 4},
		{"octets", func(cfg *Config) { cfg.MaxBytes = 1000 }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *peer, cfg Config) {
				tt.set(&cfg)
				if got := fates(sendAll(t, newBackend(t, cfg), letters(7))); got != "sent sent sent sent sent sent sent" {
					t.Errorf("got %s", got)
				}
				if tt.name == "octets" && (p.conns < 2 || p.conns > 7) || tt.name != "octets" && p.conns != tt.conns {
					t.Errorf("%d connections", p.conns)
				}
			})
		})
	}
}

func TestBackend_ages(t *testing.T) {
	for _, tt := range []struct {
		name      string
		max, idle time.Duration
		conns     int
	}{
		{"young", 0, time.Hour, 1},
		{"too old", 10 * time.Minute, time.Hour, 2},
		{"idle for too long", 0, 10 * time.Minute, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *peer, cfg Config) {
				cfg.MaxAge, cfg.IdleTimeout = tt.max, tt.idle
				b := newBackend(t, cfg)
				_, _ = b.Open(t.Context())
				sendAll(t, b, letters(1))
				time.Sleep(11 * time.Minute)
				if got := fates(sendAll(t, b, letters(1))); got != "sent" || p.conns != tt.conns {
					t.Errorf("%s, %d connections", got, p.conns)
				}
				if quits := slices.Index(p.said(), "QUIT") >= 0; quits != (tt.conns > 1) {
					t.Errorf("QUIT: %v", quits)
				}
			})
		})
	}
}

// TestBackend_neverHammers: a server that breaks every connection is not asked for ever.
func TestBackend_neverHammers(t *testing.T) {
	for _, step := range []string{"MAIL", "RCPT", "dot"} {
		t.Run(step, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *peer, cfg Config) {
				p.script = func(at event) string {
					if at.step == step {
						return "close"
					}
					return ""
				}
				results := sendAll(t, newBackend(t, cfg), letters(10))
				if w := strings.HasSuffix(t.Name(), "chunked"); w && step == "dot" {
					return // all ten were in the window
				}
				if p.conns != maxFruitless {
					t.Errorf("%d connections", p.conns)
				}
				if last := results[9]; mailer.ClassOf(last.Err) != mailer.Unavailable {
					t.Errorf("the last: %v", last.Err)
				}
			})
		})
	}
}

// TestBackend_oneMessageAConnection: but where each connection delivers something all goes on.
func TestBackend_oneMessageAConnection(t *testing.T) {
	for _, words := range []string{"421 4.7.0 enough", "close"} {
		for _, w := range ways()[:2] {
			w.run(t, words, func(t *testing.T, p *peer, cfg Config) {
				n := map[int]int{}
				p.script = func(at event) string {
					if at.step == "MAIL" {
						if n[at.conn]++; n[at.conn] > 1 {
							return words
						}
					}
					return ""
				}
				if got := fates(sendAll(t, newBackend(t, cfg), letters(6))); got != "sent sent sent sent sent sent" || p.conns != 6 {
					t.Errorf("%s, %d connections", got, p.conns)
				}
				checkTaken(t, p, "sent sent sent sent sent sent")
			})
		}
	}
}

// TestBackend_nobody: without a recipient or a good message there is no connection.
func TestBackend_nobody(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		b := newBackend(t, cfg)
		nobody, bad := letter("a@x"), letter("b@x")
		nobody.To = nil
		bad.Subject = "x\r\nBcc: y@x"
		results := sendAll(t, b, []*mailer.EmailMessage{nobody, bad})
		if fates(results) != "skipped permanent" || p.conns != 0 {
			t.Errorf("%s, %d connections", fates(results), p.conns)
		}
		if s := sendError(t, results[1].Err); s.Step != mailer.StepRender || !mailer.IsBadInput(s) {
			t.Errorf("got %v", s)
		}
		results = sendAll(t, b, []*mailer.EmailMessage{letter("a@x"), bad, nobody, letter("c@x")})
		if fates(results) != "sent permanent skipped sent" || p.conns != 1 {
			t.Errorf("%s, %d connections", fates(results), p.conns)
		}
		if sent, err := b.SendMessages(t.Context(), nil); sent != 0 || err != nil {
			t.Errorf("of nothing: %d, %v", sent, err)
		}
	})
}

// TestBackend_injection: an address that is a command stays out of commands.
func TestBackend_injection(t *testing.T) {
	for _, addr := range []string{
		"a@x>\r\nRCPT TO:<victim@x", "a@x\nDATA", "a\x00@x", "a@x> SIZE=1", "<a@x>\r\n.\r\nQUIT", "a@x\r", "a b@x", "\"a\r\n\"@x",
	} {
		t.Run(fmt.Sprintf("%q", addr), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, "PIPELINING")
				from := letter("a@x")
				from.FromEmail = addr
				results := sendAll(t, newBackend(t, testConfig(t, p)), []*mailer.EmailMessage{letter("a@x", addr), from})
				if got := fates(results); got != "permanent permanent" || p.conns != 0 {
					t.Errorf("got %s, %d connections", got, p.conns)
				}
			})
		})
	}
}

func TestIsPath(t *testing.T) {
	for addr, want := range map[string]bool{
		"": true, "a@x": true, `"a b"@x`: true, `"a\"<>b"@x`: true, "ü@x": true, "a@[IPv6:::1]": true,
		"a b@x": false, "a>@x": false, "<a@x>": false, `"a`: false, "a\r\n@x": false, `"a\`: false, "\"\\\r\"@x": false, "a\x7f@x": false,
	} {
		if got := isPath(addr); got != want {
			t.Errorf("isPath(%q) = %v", addr, got)
		}
	}
}

// TestBackend_354ToNobody: a server that wants the body although it refused everybody
// gets an empty one, and nothing counts as sent.
func TestBackend_354ToNobody(t *testing.T) {
	w := ways()[1]
	w.run(t, "lone dot", func(t *testing.T, p *peer, cfg Config) {
		p.script = func(at event) string {
			switch {
			case at.mail == "a@x" && at.step == "RCPT":
				return "550 5.1.1 nobody"
			case at.mail == "a@x" && at.step == "DATA":
				return "354 go ahead anyway"
			}
			return ""
		}
		if got := fates(sendAll(t, newBackend(t, cfg), letters(3))); got != "permanent sent sent" || p.conns != 1 {
			t.Errorf("%s, %d connections", got, p.conns)
		}
		checkTaken(t, p, "permanent sent sent")
		if i := slices.Index(p.said(), "RSET"); i < 0 {
			t.Error("no RSET behind it")
		}
	})
	w.run(t, "MAIL refused", func(t *testing.T, p *peer, cfg Config) {
		p.script = func(at event) string {
			switch {
			case at.step == "MAIL" && at.conn == 1:
				return "550 5.7.1 not you"
			case at.step == "RCPT without MAIL":
				return "250 fine"
			case at.step == "DATA" && at.conn == 1:
				return "354 go ahead" // in whose name?
			}
			return ""
		}
		if got := fates(sendAll(t, newBackend(t, cfg), letters(2))); got != "permanent sent" || p.conns != 2 {
			t.Errorf("%s, %d connections", got, p.conns)
		}
		checkTaken(t, p, "permanent sent")
	})
}

// TestBackend_acceptsNothing: BDAT LAST answered with 250 though everybody was refused.
func TestBackend_acceptsNothing(t *testing.T) {
	w := ways()[2]
	w.run(t, "250", func(t *testing.T, p *peer, cfg Config) {
		p.script = func(at event) string {
			switch {
			case at.mail == "b@x" && at.step == "RCPT":
				return "550 5.1.1 nobody"
			case at.step == "chunk refused":
				return "250 fine"
			}
			return ""
		}
		if got := fates(sendAll(t, newBackend(t, cfg), letters(3))); got != "sent permanent sent" {
			t.Error(got)
		}
	})
}

// TestBackend_noBDAT: a server that offers CHUNKING and does not know BDAT gets its mail
// otherwise, and sees no line of it as a command.
func TestBackend_noBDAT(t *testing.T) {
	for _, words := range []string{"500 5.5.1 what?", "502 5.5.1 not here", "421 no"} {
		ways()[2].run(t, words, func(t *testing.T, p *peer, cfg Config) {
			p.noBDAT = words
			b := newBackend(t, cfg)
			want := "sent sent sent"
			if words[0] == '4' {
				want = "unavailable unavailable unavailable"
			}
			if got := fates(sendAll(t, b, letters(3))); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			checkTaken(t, p, want)
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.violations = slices.DeleteFunc(p.violations, func(v string) bool {
				return v == `unknown command "FROM:"` // our first line, and no more
			})
		})
	}
}

// TestBackend_inDoubt: what has been written whole and is not reported, which may take any time, is no
// more than the window, and without one a single message.
func TestBackend_inDoubt(t *testing.T) {
	for _, tt := range []struct {
		name   string
		way    int
		window int
		octets int64
		most   int
	}{
		{"strict", 0, 16, 0, 1},
		{"pipelined", 1, 16, 0, 1},
		{"by messages", 2, 3, 0, 3},
		{"by octets", 2, 16, 1, 1},
		{"of one", 2, 1, 0, 1},
	} {
		ways()[tt.way].run(t, tt.name, func(t *testing.T, p *peer, cfg Config) {
			p.late = true
			cfg.Window, cfg.WindowBytes = tt.window, tt.octets
			var mu sync.Mutex
			written, reported, most, groups := 0, 0, 0, 0
			witness(&cfg, func(octets []byte) {
				mu.Lock()
				defer mu.Unlock()
				written += bytes.Count(octets, []byte(" LAST\r\n")) + bytes.Count(octets, []byte("\r\n.\r\n"))
				most = max(most, written-reported)
			})
			newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{Messages: letters(12), Report: func(group []mailer.Report) {
				synctest.Wait() // until the client has done all that it will do without our return
				mu.Lock()
				defer mu.Unlock()
				groups++
				reported += len(group)
			}})
			if reported != 12 || most != tt.most {
				t.Errorf("%d reported, %d in doubt", reported, most)
			}
			if tt.most == 1 && groups != 12 {
				t.Errorf("%d groups, want one for each message", groups)
			}
			if tt.most > 1 && groups >= 12 {
				t.Error("each message reported by itself, though several were answered meanwhile")
			}
		})
	}
}

// witness has all seen that is written to a connection.
func witness(cfg *Config, watch func(octets []byte)) {
	dial := cfg.Dial
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return &watchedConn{c, watch}, err
	}
}

// watchedConn is a connection with a witness of what is written.
type watchedConn struct {
	net.Conn
	watch func(octets []byte)
}

func (c *watchedConn) Write(p []byte) (int, error) {
	c.watch(p)
	return c.Conn.Write(p)
}

// TestBackend_panics: what the server has answered is reported though a later message makes us panic.
func TestBackend_panics(t *testing.T) {
	ways()[2].run(t, "nil", func(t *testing.T, p *peer, cfg Config) {
		p.late = true
		cfg.Window = 1
		reported := 0
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a nil message does not panic")
				}
			}()
			newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{Messages: append(letters(3), nil), Report: func(group []mailer.Report) { reported += len(group) }})
		}()
		p.forgive() // the connection ends in the middle of something
		if taken := len(p.taken()); reported < 2 || reported < taken-1 {
			t.Errorf("%d reported, %d delivered: only the one without a reply may be missing", reported, taken)
		}
	})
}

// TestBackend_reportsEarly: a message is reported while the next is still on its way.
func TestBackend_reportsEarly(t *testing.T) {
	for _, w := range ways()[:2] {
		w.run(t, "early", func(t *testing.T, p *peer, cfg Config) {
			var order []string
			p.script = func(at event) string {
				if at.step == "dot" {
					synctest.Wait()
					order = append(order, "dot "+at.mail)
				}
				return ""
			}
			newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{Messages: letters(3), Report: each(func(i int, _ mailer.Result) {
				order = append(order, fmt.Sprint("report ", i))
			})})
			want := "dot a@x, report 0, dot b@x, report 1, dot c@x, report 2"
			if got := strings.Join(order, ", "); got != want {
				t.Errorf("got %s", got)
			}
		})
	}
}

// TestBackend_context: the end of a context ends everything, except the wait for the
// reply to a message that is complete.
func TestBackend_context(t *testing.T) {
	for _, tt := range []struct {
		step string
		want string
	}{
		{"greeting", "unavailable unavailable unavailable"},
		{"EHLO", "unavailable unavailable unavailable"},
		{"MAIL", "sent unavailable unavailable"},
		{"RCPT", "sent unavailable unavailable"},
		{"body", "sent unavailable unavailable"},
		{"dot", "sent sent unavailable"},
	} {
		for _, w := range ways() {
			w.run(t, tt.step, func(t *testing.T, p *peer, cfg Config) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				p.script = func(at event) string {
					if at.step != tt.step || at.mail != "b@x" && at.mail != "" {
						return ""
					}
					cancel()
					time.Sleep(time.Minute) // of fake time: so long does the server think
					return map[string]string{"body": "stall"}[at.step]
				}
				messages := letters(3)
				if tt.step == "body" {
					messages[1].Body = strings.Repeat(strings.Repeat("x", 70)+"\n", 5000)
				}
				results := make([]mailer.Result, 3)
				start := time.Now()
				newBackend(t, cfg).SendBatch(ctx, mailer.Batch{Messages: messages, Report: each(func(i int, r mailer.Result) { results[i] = r })})
				want := tt.want
				switch {
				case w.name != "chunked":
				case tt.step == "MAIL", tt.step == "RCPT", tt.step == "dot":
					want = "sent sent sent" // all three were complete
				}
				if got := fates(results); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				for _, r := range results {
					if r.Err != nil && !errors.Is(r.Err, context.Canceled) {
						t.Errorf("got %v", r.Err)
					}
				}
				if took := time.Since(start); strings.HasSuffix(want, "unavailable") && tt.step != "dot" && took > time.Second {
					t.Errorf("took %v", took)
				}
				time.Sleep(2 * time.Minute)
				checkTaken(t, p, want)
			})
		}
	}
}

// TestBackend_slow: a reply may take long, and a body longer than any reply may.
func TestBackend_slow(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		p.script = func(at event) string {
			switch at.step {
			case "greeting", "EHLO", "MAIL", "RCPT", "DATA", "chunk":
				time.Sleep(4 * time.Minute)
			case "dot":
				time.Sleep(9 * time.Minute)
			}
			return ""
		}
		if got := fates(sendAll(t, newBackend(t, cfg), letters(2))); got != "sent sent" || p.conns != 1 {
			t.Errorf("%s, %d connections", got, p.conns)
		}
	})
}

// TestBackend_slowBody: as long as the server takes some of the body, all is well.
func TestBackend_slowBody(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		cfg.CommandTimeout, cfg.DataTimeout = time.Minute, 2*time.Minute
		cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := p.dial(ctx, network, addr)
			return &slowConn{c}, err
		}
		messages := letters(3)
		messages[1].Body = strings.Repeat(strings.Repeat("x", 70)+"\n", 10000)
		start := time.Now()
		if got := fates(sendAll(t, newBackend(t, cfg), messages)); got != "sent sent sent" {
			t.Error(got)
		}
		if took := time.Since(start); took < 5*time.Minute {
			t.Errorf("took only %v", took)
		}
	})
}

// slowConn takes 40 seconds for each big write.
type slowConn struct{ net.Conn }

func (c *slowConn) Write(p []byte) (int, error) {
	if len(p) > 10000 {
		time.Sleep(40 * time.Second)
	}
	return c.Conn.Write(p)
}

func TestBackend_oldServer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ehlo  string
		helo  string
		login bool
		want  string
	}{
		{"knows HELO only", "502 5.5.1 what?", "", false, "sent sent"},
		{"refuses both", "550 not you", "550 not you", false, "unavailable unavailable"},
		{"cannot log in", "500 what?", "", true, "unavailable unavailable"},
	} {
		everyWayNamed(t, tt.name, func(t *testing.T, p *peer, cfg Config) {
			p.script = func(at event) string {
				return map[string]string{"EHLO": tt.ehlo, "HELO": tt.helo}[at.step]
			}
			p.offers = nil
			if tt.login {
				cfg.Username, cfg.Password = "me", "secret"
			}
			if got := fates(sendAll(t, newBackend(t, cfg), letters(2))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			for _, c := range p.said() {
				if strings.HasPrefix(c, "MAIL") && c != "MAIL FROM:<a@x>" && c != "MAIL FROM:<b@x>" {
					t.Errorf("parameters after HELO: %s", c)
				}
			}
		})
	}
}

func everyWayNamed(t *testing.T, name string, f func(t *testing.T, p *peer, cfg Config)) {
	t.Run(name, func(t *testing.T) { everyWay(t, f) })
}

func TestBackend_hosts(t *testing.T) {
	refuse := errors.New("connection refused")
	for _, tt := range []struct {
		name  string
		dial  map[string]error
		first string // the script of the first connection
		want  string
		conns int
	}{
		{"first", nil, "", "sent", 1},
		{"second", map[string]error{"one:25": refuse}, "", "sent", 1},
		{"second, for the first will not", nil, "554 5.3.2 no service", "sent", 2},
		{"second, for the first is silent", nil, "stall", "sent", 3}, // and is asked whether it waits for TLS
		{"none", map[string]error{"one:25": refuse, "two:2525": refuse}, "", "unavailable", 0},
	} {
		everyWayNamed(t, tt.name, func(t *testing.T, p *peer, cfg Config) {
			cfg.Addrs = []string{"one", "two:2525"}
			cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if err := tt.dial[addr]; err != nil {
					return nil, err
				}
				return p.dial(ctx, network, addr)
			}
			if tt.first != "" {
				p.script = once("greeting", tt.first)
			}
			results := sendAll(t, newBackend(t, cfg), letters(1))
			if got := fates(results); got != tt.want || p.conns != tt.conns {
				t.Errorf("%s, %d connections", got, p.conns)
			}
			if err := results[0].Err; err != nil && (!errors.Is(err, refuse) || !strings.Contains(err.Error(), "two:2525")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestBackend_staysAfter421: a server that says 421 to a recipient and goes on says it of the
// recipient. The others have the message, and the connection is used on.
func TestBackend_staysAfter421(t *testing.T) {
	for name, tt := range map[string]struct {
		to   []string
		data string // instead of the usual reply to DATA
		want string
	}{
		"one of two": {[]string{"busy@x", "to@x"}, "", "sent partly sent"},
		"the last":   {[]string{"to@x", "busy@x"}, "", "sent partly sent"},
		"alone":      {[]string{"busy@x"}, "", "sent temporary sent"},
		"421 twice":  {[]string{"busy@x"}, "421 4.7.0 later, " + stays, "sent temporary sent"},
	} {
		for _, w := range ways()[:2] {
			w.run(t, name, func(t *testing.T, p *peer, cfg Config) {
				p.script = func(at event) string {
					switch {
					case at.rcpt == "busy@x":
						return "421 4.7.0 later, " + stays
					case at.mail == "b@x" && at.step == "DATA":
						return tt.data
					}
					return ""
				}
				results := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{letter("a@x"), letter("b@x", tt.to...), letter("c@x")})
				if got := fates(results); got != tt.want || p.conns != 1 {
					t.Errorf("got %s with %d connections, want %s with one", got, p.conns, tt.want)
				}
				if r := results[1].Refused; len(r) == 1 && (r[0].Class != mailer.Temporary || r[0].Recipient != "busy@x") {
					t.Errorf("refused: %v", r)
				}
			})
		}
	}
}

// TestBackend_nothingMore: after a failure between 354 and the final reply nothing is said
// that could complete the message, and no command either.
func TestBackend_nothingMore(t *testing.T) {
	for name, fail := range map[string]func(c net.Conn, cancel func()){
		"refused early":  func(c net.Conn, _ func()) { _, _ = io.WriteString(c, "552 5.3.4 too big\r\n") },
		"nonsense":       func(c net.Conn, _ func()) { _, _ = io.WriteString(c, "what?\r\n") },
		"accepted early": func(c net.Conn, _ func()) { _, _ = io.WriteString(c, "250 fine\r\n") },
		"closing":        func(c net.Conn, _ func()) { _, _ = io.WriteString(c, "421 bye\r\n") },
		"cancelled":      func(_ net.Conn, cancel func()) { cancel() },
	} {
		for _, lines := range []int{400, 1000, 20000} { // one slice, two, and a big message
			nothingMore(t, fmt.Sprintf("%s/%d lines", name, lines), lines, fail)
		}
	}
}

func nothingMore(t *testing.T, name string, lines int, fail func(c net.Conn, cancel func())) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ours, theirs := net.Pipe()
			body := make(chan string, 1)
			go func() {
				defer func() { _ = ours.Close() }()
				r := bufio.NewReader(ours)
				for _, reply := range []string{"220 hi", "250-hi\r\n250 PIPELINING", "250 ok", "250 ok", "354 go"} {
					if reply[:3] != "220" {
						_, _ = r.ReadString('\n')
					}
					_, _ = io.WriteString(ours, reply+"\r\n")
				}
				_, _ = io.CopyN(io.Discard, r, 10000)
				fail(ours, cancel)
				synctest.Wait() // until the client knows
				rest, _ := io.ReadAll(r)
				body <- string(rest)
			}()
			dials := 0
			m := letter("a@x")
			m.Body = strings.Repeat(strings.Repeat("x", 70)+"\n", lines)
			b := newBackend(t, Config{Hostname: "x", Dial: func(context.Context, string, string) (net.Conn, error) {
				if dials++; dials > 1 {
					return nil, errors.New("only once")
				}
				return theirs, nil
			}})
			results := make([]mailer.Result, 2)
			b.SendBatch(ctx, mailer.Batch{Messages: []*mailer.EmailMessage{m, letter("b@x")}, Report: each(func(i int, r mailer.Result) { results[i] = r })})
			if fate := fates(results[:1]); fate == "sent" || fate == "unknown" {
				t.Errorf("got %s: %v", fate, results[0].Err)
			}
			for line := range strings.Lines(<-body) {
				if !strings.HasPrefix(line, "xxx") && strings.Trim(line, "x\r\n") != "" {
					t.Errorf("said %q", line)
				}
			}
		})
	})
}

// failingConn fails to write what holds a final dot of b@x's message, behind keep octets.
type failingConn struct {
	net.Conn
	keep func(group string) int
}

func (c *failingConn) Write(p []byte) (int, error) {
	if s := string(p); strings.Contains(s, "Subject: b@x") && strings.Contains(s, "\r\n.\r\n") {
		n, _ := c.Conn.Write(p[:c.keep(s)])
		return n, errors.New("broken pipe")
	}
	return c.Conn.Write(p)
}

// TestBackend_halfWritten: a message is in doubt if its last octet has left this machine, and
// only then.
func TestBackend_halfWritten(t *testing.T) {
	for _, tt := range []struct {
		name string
		keep func(group string) int
		want string
	}{
		{"nothing", func(string) int { return 0 }, "sent temporary sent"},
		{"up to the dot", func(s string) int { return strings.Index(s, "\r\n.\r\n") + 4 }, "sent temporary sent"},
		{"the dot too", func(s string) int { return strings.Index(s, "\r\n.\r\n") + 5 }, "sent unknown sent"},
		{"some of the next envelope", func(s string) int { return strings.Index(s, "\r\n.\r\n") + 9 }, "sent unknown sent"},
	} {
		ways()[1].run(t, tt.name, func(t *testing.T, p *peer, cfg Config) {
			cfg.DataTimeout = time.Minute
			cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := p.dial(ctx, network, addr)
				return &failingConn{c, tt.keep}, err
			}
			p.script = on("dot", "b@x", "stall")
			if got := fates(sendAll(t, newBackend(t, cfg), letters(3))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestBackend_brokenLoneDot: what breaks at the dot of a message to nobody is not laid
// to the next message.
func TestBackend_brokenLoneDot(t *testing.T) {
	for _, words := range []string{"close", "stall", "354 more?", "421 bye", "250 taken"} {
		ways()[1].run(t, words, func(t *testing.T, p *peer, cfg Config) {
			p.script = func(at event) string {
				switch {
				case at.mail == "a@x" && at.step == "RCPT":
					return "550 5.1.1 nobody"
				case at.mail == "a@x" && at.step == "DATA":
					return "354 go ahead anyway"
				case at.mail == "a@x" && at.step == "dot":
					return words
				}
				return ""
			}
			if got := fates(sendAll(t, newBackend(t, cfg), letters(2))); got != "permanent sent" {
				t.Error(got)
			}
			checkTaken(t, p, "permanent sent")
		})
	}
}
