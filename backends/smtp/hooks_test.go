package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// diary writes down what hooks are told, connections by the order of their appearance.
type diary struct {
	conns []string
	lines []string
	sent  []Settled
	ends  []Closed
	begun []Connected
}

func (d *diary) note(format string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) number(c *Conn) int {
	for i, id := range d.conns {
		if id == c.ID {
			return i + 1
		}
	}
	d.conns = append(d.conns, c.ID)
	return len(d.conns)
}

func (d *diary) hooks() *Hooks {
	return &Hooks{
		Connected: func(_ context.Context, c Connected) {
			d.begun = append(d.begun, c)
			var failure *mailer.SendError
			if errors.As(c.Err, &failure) {
				d.note("conn %d failed at %s", d.number(c.Conn), failure.Step)
				return
			}
			d.note("conn %d opened", d.number(c.Conn))
		},
		Reused: func(_ context.Context, c *Conn, idle time.Duration) {
			d.note("conn %d reused after %v", d.number(c), idle)
		},
		Settled: func(_ context.Context, s *Settled) {
			d.sent = append(d.sent, *s)
			d.note("message %d on %d: %s %s", s.Index, d.number(s.Conn), s.Way, fates([]mailer.Result{s.Result}))
		},
		Closed: func(c Closed) {
			d.ends = append(d.ends, c)
			d.note("conn %d closed: %s, %d messages", d.number(c.Conn), c.Reason, c.Messages)
		},
	}
}

// hooked is a backend for the peer, and what its hooks are told.
func hooked(t *testing.T, p *peer, change func(*Config)) (*Backend, *diary) {
	d := &diary{}
	cfg := testConfig(t, p)
	cfg.Hooks = d.hooks()
	if change != nil {
		change(&cfg)
	}
	return newBackend(t, cfg), d
}

// TestHooks: who is told of what, in which order, for each way that a connection can end.
func TestHooks(t *testing.T) {
	tests := []struct {
		name   string
		offers []string
		script func(event) string
		change func(*Config)
		do     func(*testing.T, *peer, *Backend)
		want   string
	}{
		{
			name: "nobody had opened it", offers: []string{"PIPELINING"},
			do:   func(t *testing.T, _ *peer, b *Backend) { sendAll(t, b, letters(2)) },
			want: "conn 1 opened|message 0 on 1: pipelined sent|message 1 on 1: pipelined sent|conn 1 closed: done, 2 messages",
		},
		{
			name: "kept open and reused", do: func(t *testing.T, _ *peer, b *Backend) {
				mustOpen(t, b)
				sendAll(t, b, letters(1))
				<-time.After(2 * time.Second)
				mustOpen(t, b)
				sendAll(t, b, letters(1))
				_ = b.Close()
			},
			want: "conn 1 opened|message 0 on 1: strict sent|conn 1 reused after 2s|message 0 on 1: strict sent|conn 1 closed: done, 2 messages",
		},
		{
			name: "idle", do: func(t *testing.T, _ *peer, b *Backend) {
				mustOpen(t, b)
				<-time.After(2 * time.Minute)
				sendAll(t, b, letters(1))
				_ = b.Close()
			},
			want: "conn 1 opened|conn 1 closed: idle, 0 messages|conn 2 opened|message 0 on 2: strict sent|conn 2 closed: done, 1 messages",
		},
		{
			name: "stale", do: func(t *testing.T, p *peer, b *Backend) {
				mustOpen(t, b)
				p.drop("421 4.4.2 timeout")
				synctest.Wait()
				sendAll(t, b, letters(1))
				_ = b.Close()
			},
			want: "conn 1 opened|conn 1 closed: stale, 0 messages|conn 2 opened|message 0 on 2: strict sent|conn 2 closed: done, 1 messages",
		},
		{
			name: "full", change: func(c *Config) { c.MaxMessages = 1 },
			do: func(t *testing.T, _ *peer, b *Backend) { sendAll(t, b, letters(2)) },
			want: "conn 1 opened|message 0 on 1: strict sent|conn 1 closed: full, 1 messages|" +
				"conn 2 opened|message 1 on 2: strict sent|conn 2 closed: done, 1 messages",
		},
		{
			name: "421", script: on("MAIL", "b@x", "421 4.3.2 closing"),
			do: func(t *testing.T, _ *peer, b *Backend) { sendAll(t, b, letters(2)) },
			want: "conn 1 opened|message 0 on 1: strict sent|conn 1 closed: 421, 2 messages|conn 2 opened|" +
				"message 1 on 2: strict unavailable|conn 2 closed: 421, 1 messages",
		},
		{
			name: "broken in the moment of doubt", offers: []string{"PIPELINING", "CHUNKING"}, script: on("dot", "a@x", "close"),
			change: func(c *Config) { c.Chunking = Auto },
			do:     func(t *testing.T, _ *peer, b *Backend) { sendAll(t, b, letters(1)) },
			want:   "conn 1 opened|message 0 on 1: chunked unknown|conn 1 closed: lost, 1 messages",
		},
		{
			name: "silence", script: on("MAIL", "a@x", "stall"),
			do:   func(t *testing.T, _ *peer, b *Backend) { sendAll(t, b, letters(1)) },
			want: "conn 1 opened|message 0 on 1: strict unavailable|conn 1 closed: timeout, 1 messages",
		},
		{
			name: "nonsense", script: on("MAIL", "a@x", "hello"),
			do:   func(t *testing.T, _ *peer, b *Backend) { sendAll(t, b, letters(1)) },
			want: "conn 1 opened|message 0 on 1: strict temporary|conn 1 closed: protocol, 1 messages",
		},
		{
			name: "the context ends", script: on("MAIL", "a@x", "stall"),
			do: func(t *testing.T, _ *peer, b *Backend) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				b.SendBatch(ctx, mailer.Batch{Messages: letters(1), Report: func([]mailer.Report) {}})
			},
			want: "conn 1 opened|conn 1 closed: stopped, 1 messages|message 0 on 1: strict unavailable",
		},
		{
			name: "no second connection", script: func(at event) string {
				switch {
				case at.conn == 1 && at.mail == "b@x":
					return "close"
				case at.conn == 2 && at.step == "greeting":
					return "554 5.3.2 go away"
				}
				return ""
			},
			do: func(t *testing.T, _ *peer, b *Backend) { sendAll(t, b, letters(3)) },
			want: "conn 1 opened|message 0 on 1: strict sent|conn 1 closed: lost, 2 messages|" +
				"conn 2 failed at greeting|message 1 on 1: strict unavailable",
		},
		{
			name: "no connection", script: on("greeting", "", "554 5.3.2 go away"),
			do:   func(t *testing.T, _ *peer, b *Backend) { sendAll(t, b, letters(1)) },
			want: "conn 1 failed at greeting",
		},
		{
			name: "it cannot be rendered, or goes to nobody",
			do: func(t *testing.T, _ *peer, b *Backend) {
				sendAll(t, b, []*mailer.EmailMessage{letter("a@x", "to\r\n@x"), {FromEmail: "a@x", Subject: "x"}})
			},
			want: "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, tt.offers...)
				p.script = tt.script
				b, d := hooked(t, p, tt.change)
				tt.do(t, p, b)
				if got := strings.Join(d.lines, "|"); got != tt.want {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
			})
		})
	}
}

func mustOpen(t *testing.T, b *Backend) {
	t.Helper()
	if _, err := b.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestHooks_steps: fake time tells exactly what each step is given.
func TestHooks_steps(t *testing.T) {
	slow := map[string]time.Duration{
		"greeting": 10, "EHLO": 20, "AUTH": 30, "MAIL": 100, "RCPT": 200, "DATA": 400, "dot": 800, "chunk": 50, "RSET": 7,
	}
	each := Steps{Mail: 100, Rcpt: 2 * 200, Data: 400, End: 800}
	chunked := Steps{Mail: 100, Rcpt: 400, End: 850}
	tests := []struct {
		name   string
		offers []string
		change func(*Config)
		want   []Steps
	}{
		{"strict", nil, nil, []Steps{each, each}},
		{"pipelined", []string{"PIPELINING"}, nil, []Steps{each, each}},
		{
			"chunked", []string{"PIPELINING", "CHUNKING"}, func(c *Config) { c.Chunking = Auto },
			[]Steps{chunked, {Reset: 7, Mail: 100, Rcpt: 400, End: 800}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, append(tt.offers, "AUTH PLAIN")...)
				p.script = func(at event) string {
					<-time.After(slow[at.step])
					return ""
				}
				b, d := hooked(t, p, func(c *Config) {
					c.Username, c.Password, c.AllowInsecureAuth = "me", "secret", true
					if tt.change != nil {
						tt.change(c)
					}
				})
				sendAll(t, b, []*mailer.EmailMessage{letter("a@x", "1@x", "2@x"), letter("b@x", "1@x", "2@x")})
				for i, want := range tt.want {
					if got := d.sent[i].Steps; got != want {
						t.Errorf("message %d:\n got %+v\nwant %+v", i, got, want)
					}
				}
				c := d.begun[0]
				if c.Dial != 0 || c.Greeting != 10 || c.Hello != 20 || c.Auth != 30 || c.TLS != 0 {
					t.Errorf("%+v", c)
				}
				if c.Conn.Mechanism != "PLAIN" || c.Conn.TLS != "" || c.Conn.Addr != "peer.example:25" {
					t.Errorf("%+v", c.Conn)
				}
				if got, want := strings.Join(c.Conn.Features, " "), strings.Join(append(tt.offers, "AUTH"), " "); got != want {
					t.Errorf("features %s, want %s", got, want)
				}
			})
		})
	}
}

// TestHooks_settled: what is told of a message, and that a slow report is nobody's waiting.
func TestHooks_settled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t, "PIPELINING")
		p.script = func(at event) string {
			if at.rcpt == "no@x" {
				return "550 5.1.1 unknown"
			}
			return ""
		}
		b, d := hooked(t, p, nil)
		results := map[int]mailer.Result{}
		all := []*mailer.EmailMessage{letter("a@x", "yes@x", "no@x"), letter("b@x", "no@x"), letter("c@x")}
		b.SendBatch(t.Context(), mailer.Batch{Messages: all, Report: each(func(i int, r mailer.Result) {
			results[i] = r
			<-time.After(time.Minute)
		})})
		refused := []int{1, 1, 0}
		for i, s := range d.sent {
			if s.Index != i || s.MessageID != all[i].MessageID || s.Octets < 200 || s.Recipients != len(all[i].To) {
				t.Errorf("%+v", s)
			}
			if got := len(s.Refused()); got != refused[i] {
				t.Errorf("message %d: %d refused, want %d", i, got, refused[i])
			}
			if id := d.begun[0].Conn.ID; results[i].Connection != id || s.Result.Connection != id || len(id) != connIDLength {
				t.Errorf("connection %q, result %q", id, results[i].Connection)
			}
			if s.Steps != (Steps{}) {
				t.Errorf("message %d waited: %+v", i, s.Steps)
			}
		}
		if octets := int64(d.sent[0].Octets + d.sent[2].Octets); len(d.ends) != 1 || d.ends[0].Octets != octets || d.ends[0].Lived != 3*time.Minute {
			t.Errorf("%+v, want %d octets", d.ends, octets)
		}
	})
}

// TestHooks_secondConnection: a message that goes on over a new connection is told of once.
func TestHooks_secondConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.script = func(at event) string {
			if at.conn == 1 && at.mail == "b@x" {
				return "close"
			}
			return ""
		}
		b, d := hooked(t, p, nil)
		sendAll(t, b, letters(2))
		if len(d.sent) != 2 || d.sent[1].Conn.ID == d.sent[0].Conn.ID || len(d.ends) != 2 || !errors.Is(d.ends[0].Err, io.ErrUnexpectedEOF) {
			t.Errorf("%q", d.lines)
		}
	})
}

// TestBackend_AddHooks: all are told, and those without a function are left alone.
func TestBackend_AddHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		b, first := hooked(t, p, nil)
		second, sent := &diary{}, 0
		b.AddHooks(second.hooks())
		b.AddHooks(&Hooks{Settled: func(context.Context, *Settled) { sent++ }})
		b.AddHooks(nil)
		mustOpen(t, b)
		sendAll(t, b, letters(2))
		sendAll(t, b, letters(1))
		_ = b.Close()
		got, want := strings.Join(second.lines, "|"), strings.Join(first.lines, "|")
		if got != want || len(first.lines) != 6 || sent != 3 {
			t.Errorf("%s\n%s\n%d", got, want, sent)
		}
	})
}

// TestHooks_TLS: encryption is part of what is told.
func TestHooks_TLS(t *testing.T) {
	for name, mode := range map[string]TLSMode{"STARTTLS": TLSStart, "from the start": TLSImplicit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				keys := newPKI(t, never())
				p := newPeer(t, "STARTTLS")
				p.tls, p.implicit = keys.server, mode == TLSImplicit
				p.script = func(at event) string {
					if at.step == "STARTTLS" {
						<-time.After(time.Second)
					}
					return ""
				}
				b, d := hooked(t, p, func(c *Config) { c.TLS, c.CAFile = mode, keys.caFile })
				sendAll(t, b, letters(1))
				c := d.begun[0]
				if c.Conn.TLS != "TLS 1.3" || c.Conn.CipherSuite == "" || mode == TLSStart && c.TLS < time.Second {
					t.Errorf("%+v %+v", c, c.Conn)
				}
			})
		})
	}
}
