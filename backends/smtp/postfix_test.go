package smtp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

// postfixWays are the ways to send, as settings for a server that offers everything.
func postfixWays() map[string]Config {
	return map[string]Config{
		"strict":    {Pipelining: Off},
		"pipelined": {},
		"chunked":   {Chunking: Auto},
	}
}

func forPostfix(s *postfixtest.Server, cfg Config) Config {
	cfg.Addrs, cfg.Hostname = []string{s.Addr()}, "client.example"
	cfg.CommandTimeout, cfg.DataTimeout = 20*time.Second, 20*time.Second
	return cfg
}

// arrived waits until Postfix has delivered all it has accepted, and returns it by
// sender and recipient.
func arrived(t *testing.T, s *postfixtest.Server, min int) map[string]postfixtest.Message {
	t.Helper()
	if err := s.Wait(t.Context(), min); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]postfixtest.Message{}
	for _, m := range s.Messages() {
		key := m.From + " " + m.To
		if _, twice := got[key]; twice {
			t.Errorf("%s came twice", key)
		}
		got[key] = m
	}
	return got
}

// TestPostfix_batch: a batch with all that can go wrong with a message arrives, each
// good one once and as it was rendered, over one connection.
func TestPostfix_batch(t *testing.T) {
	for name, cfg := range postfixWays() {
		for _, guarded := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/guarded=%v", name, guarded), func(t *testing.T) {
				t.Parallel()
				s := postfixtest.Start(t, postfixtest.Options{RejectPipelining: guarded})
				b := newBackend(t, forPostfix(s, cfg))
				if _, err := b.Open(t.Context()); err != nil {
					t.Fatal(err)
				}
				reject, deferred := letter("g@x.example"), letter("h@x.example")
				reject.Headers = map[string]string{"X-Postfixtest": "reject"}
				deferred.Headers = map[string]string{"X-Postfixtest": "defer"}
				messages := []*mailer.EmailMessage{
					letter("a@x.example"), letter("b@x.example", "refused@x.example"), letter("c@x.example", "one@x.example", "refused@x.example", "two@x.example"),
					letter("d@x.example"), letter("refused-sender@x.example"), letter("later-sender@x.example"),
					letter("e@x.example", "later@x.example"), letter("f@x.example"), reject, deferred, letter("i@x.example"),
				}
				messages[3].Body = strings.Repeat(".dots\n..\n.\nand more of it all\n", 5000)
				want := "sent permanent partly sent permanent temporary temporary sent permanent temporary sent"
				results := sendAll(t, b, messages)
				if got := fates(results); got != want {
					t.Errorf("got %s, want %s", got, want)
					for _, r := range results {
						t.Log(r.Reply, r.Error())
					}
				}
				if s := sendError(t, results[1].Err); s.Code != 550 || s.Enhanced != "5.1.1" || len(s.Refused) != 1 {
					t.Errorf("got %v", s)
				}
				got := arrived(t, s, 6)
				for _, i := range []int{0, 2, 3, 7, 10} {
					var want strings.Builder
					_, _ = messages[i].WriteTo(&want)
					for _, to := range messages[i].To {
						m, ok := got[messages[i].FromEmail+" "+to]
						if refused := to == "refused@x.example"; ok == refused || !refused && string(m.Raw) != want.String() {
							t.Errorf("message %d for %s: arrived %v\n%q", i, to, ok, m.Raw)
						}
					}
				}
				if n, err := s.Connections(t.Context()); len(got) != 6 || n != 1 || err != nil {
					t.Errorf("%d deliveries, %d connections, %v", len(got), n, err)
				}
			})
		}
	}
}

func TestPostfix_TLS(t *testing.T) {
	s := postfixtest.Start(t, postfixtest.Options{
		TLS: true, Users: map[string]string{"fred": "s3cret pässword"},
	})
	cert, key := s.ClientCert()
	port := func(addr string) string { return "localhost" + addr[strings.LastIndex(addr, ":"):] }
	start, implicit := port(s.Addr()), port(s.TLSAddr())
	tests := []struct {
		name     string
		cfg      Config
		want     string
		received string
	}{
		{"STARTTLS, CRAM-MD5", Config{TLS: TLSStart, Addrs: []string{start}}, "sent sent", "using TLSv1.3"},
		{"implicit, PLAIN", Config{TLS: TLSImplicit, Addrs: []string{implicit}, AuthMechanisms: []string{"PLAIN"}}, "sent sent", "Authenticated sender: fred"},
		{"LOGIN", Config{TLS: TLSStart, Addrs: []string{start}, AuthMechanisms: []string{"LOGIN"}}, "sent sent", "Authenticated sender: fred"},
		{"client certificate", Config{TLS: TLSStart, Addrs: []string{start}, CertFile: cert, KeyFile: key}, "sent sent", "postfixtest client"},
		{"plain on loopback", Config{Addrs: []string{start}}, "sent sent", "Authenticated sender: fred"},
		{"chunked", Config{TLS: TLSImplicit, Addrs: []string{implicit}, Chunking: Auto}, "sent sent", "Authenticated sender: fred"},
		{"wrong password", Config{TLS: TLSStart, Addrs: []string{start}, Password: "other"}, "unavailable unavailable", ""},
		{"without login", Config{TLS: TLSStart, Addrs: []string{start}, Username: "none"}, "permanent permanent", ""},
		{"wrong name", Config{TLS: TLSStart, Addrs: []string{start}, ServerName: "other.example"}, "unavailable unavailable", ""},
		{"TLS on the wrong port", Config{TLS: TLSImplicit, Addrs: []string{start}}, "unavailable unavailable", ""},
		{"not our authority", Config{TLS: TLSImplicit, Addrs: []string{implicit}, CAFile: "none"}, "unavailable unavailable", ""},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := tt.cfg
			cfg.Hostname, cfg.CommandTimeout = "client.example", 20*time.Second
			if cfg.CAFile != "none" {
				cfg.CAFile = s.CAFile()
			} else {
				cfg.CAFile = ""
			}
			if cfg.Password == "" {
				cfg.Password = "s3cret pässword"
			}
			switch cfg.Username {
			case "":
				cfg.Username = "fred"
			case "none":
				cfg.Username = ""
			}
			from := fmt.Sprintf("t%d@x.example", i)
			results := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{letter(from), letter(from, "second@x.example")})
			if got := fates(results); got != tt.want {
				t.Fatalf("got %s, want %s: %v", got, tt.want, results[0].Err)
			}
			if tt.received == "" {
				return
			}
			if err := s.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			ours := slices.DeleteFunc(s.Messages(), func(m postfixtest.Message) bool { return m.From != from })
			if len(ours) != 2 || !strings.Contains(ours[0].Received, tt.received) {
				t.Errorf("got %d, %q", len(ours), ours)
			}
		})
	}
}

func TestPostfix_limits(t *testing.T) {
	for name, cfg := range postfixWays() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := postfixtest.Start(t, postfixtest.Options{MaxMessageSize: 20000, MaxRecipients: 3})
			var to []string
			for i := range 8 {
				to = append(to, fmt.Sprintf("r%d@x.example", i))
			}
			big := letter("b@x.example")
			big.Body = strings.Repeat("0123456789\n", 3000)
			utf8 := letter("c@x.example", "üser@x.example")
			messages := []*mailer.EmailMessage{letter("a@x.example", to...), big, utf8, letter("d@x.example", "x@bücher.example")}
			results := sendAll(t, newBackend(t, forPostfix(s, cfg)), messages)
			if got, want := fates(results), "sent permanent sent sent"; got != want {
				t.Fatalf("got %s, want %s: %v", got, want, results)
			}
			if got := arrived(t, s, 10); len(got) != 10 {
				t.Errorf("%d deliveries", len(got))
			}
		})
	}
}

// TestPostfix_reducedOffers: what is not offered is not used.
func TestPostfix_reducedOffers(t *testing.T) {
	for _, discard := range [][]string{
		{"PIPELINING"}, {"CHUNKING"}, {"PIPELINING", "CHUNKING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"},
	} {
		t.Run(strings.Join(discard, ","), func(t *testing.T) {
			t.Parallel()
			s := postfixtest.Start(t, postfixtest.Options{DiscardEHLO: discard, RejectPipelining: true})
			b := newBackend(t, forPostfix(s, Config{Chunking: Auto, DSN: DSN{Notify: "NEVER", Return: "HDRS"}}))
			want := "sent sent permanent sent"
			if len(discard) == 1 {
				want = "sent sent sent sent"
			}
			messages := []*mailer.EmailMessage{letter("a@x.example"), letter("b@x.example"), letter("c@x.example", "ü@x.example"), letter("d@x.example")}
			if got := fates(sendAll(t, b, messages)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if got := arrived(t, s, 3); len(got) != strings.Count(want, "sent") {
				t.Errorf("%d deliveries", len(got))
			}
		})
	}
}

// TestPostfix_closes: 421 in the middle of a batch, and a restart between two.
func TestPostfix_closes(t *testing.T) {
	for name, cfg := range postfixWays() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := postfixtest.Start(t, postfixtest.Options{})
			b := newBackend(t, forPostfix(s, cfg))
			if _, err := b.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			results := sendAll(t, b, []*mailer.EmailMessage{letter("a@x.example"), letter("b@x.example", "closing@x.example"), letter("c@x.example")})
			want := "sent unavailable sent"
			if name == "chunked" {
				want = "sent unavailable unknown"
			}
			if got := fates(results); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if got := fates(sendAll(t, b, []*mailer.EmailMessage{letter("d@x.example")})); got != "sent" {
				t.Errorf("got %s", got)
			}
			if err := s.Drain(t.Context()); err != nil { // what it is delivering when it is stopped, Postfix delivers again
				t.Fatal(err)
			}
			s.Restart()
			if got := fates(sendAll(t, b, []*mailer.EmailMessage{letter("e@x.example"), letter("f@x.example")})); got != "sent sent" {
				t.Errorf("after a restart: %s", got)
			}
			if got := arrived(t, s, strings.Count(want, "sent")+3); len(got) < 4 {
				t.Errorf("%d deliveries", len(got))
			}
		})
	}
}

// TestPostfix_tooManyErrors: after twenty refusals Postfix ends the connection, for which the
// next message is not to blame.
func TestPostfix_tooManyErrors(t *testing.T) {
	for name, cfg := range postfixWays() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := postfixtest.Start(t, postfixtest.Options{})
			var messages []*mailer.EmailMessage
			for i := range 50 {
				messages = append(messages, letter(fmt.Sprintf("n%d@x.example", i), "refused@x.example"))
			}
			messages = append(messages, letter("good@x.example"))
			cfg.Window = 1
			results := sendAll(t, newBackend(t, forPostfix(s, cfg)), messages)
			for i, r := range results[:50] {
				if c := mailer.ClassOf(r.Err); r.Err == nil || c != mailer.Permanent {
					t.Errorf("message %d: %v", i, r.Err)
				}
			}
			if results[50].Err != nil {
				t.Errorf("the good one: %v", results[50].Err)
			}
			if got := arrived(t, s, 1); len(got) != 1 {
				t.Errorf("%d deliveries", len(got))
			}
		})
	}
}

// TestConformance is the contract of mailer.Backend, against Postfix.
func TestConformance(t *testing.T) {
	for name, cfg := range postfixWays() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mailertest.Run(t, func(t *testing.T) mailertest.Harness {
				s := postfixtest.Start(t, postfixtest.Options{})
				return mailertest.Harness{
					Backend: newBackend(t, forPostfix(s, cfg)),
					Refuses: "refused@x.example",
					Connections: func() int {
						n, err := s.Connections(t.Context())
						if err != nil {
							t.Error(err)
						}
						return n
					},
					Break: s.Restart,
					Down:  s.Stop,
					Received: func() []mailertest.Mail {
						if err := s.Drain(t.Context()); err != nil {
							t.Error(err)
						}
						return received(s)
					},
				}
			})
		})
	}
}

// received puts the deliveries of a message to its recipients together again.
func received(s *postfixtest.Server) []mailertest.Mail {
	var all []mailertest.Mail
	for _, m := range s.Messages() {
		i := slices.IndexFunc(all, func(have mailertest.Mail) bool {
			return have.Envelope.From == m.From && string(have.Data) == string(m.Raw) && !slices.Contains(have.Envelope.To, m.To)
		})
		if i < 0 {
			i = len(all)
			all = append(all, mailertest.Mail{Envelope: mailer.Envelope{From: m.From}, Data: m.Raw})
		}
		all[i].Envelope.To = append(all[i].Envelope.To, m.To)
	}
	return all
}
