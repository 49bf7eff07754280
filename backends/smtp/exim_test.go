package smtp

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	eximtest "github.com/mailpouch/mailpouch/internal/testserver/exim"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

func forExim(s *eximtest.Server, cfg Config) Config {
	cfg.Addrs, cfg.Hostname = []string{s.Addr()}, "client.example"
	cfg.CommandTimeout, cfg.DataTimeout = 20*time.Second, 20*time.Second
	return cfg
}

// everyExim runs f for each way to send, each with an Exim of its own.
func everyExim(t *testing.T, opts eximtest.Options, f func(t *testing.T, s *eximtest.Server, cfg Config)) {
	for name, cfg := range postfixWays() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := eximtest.Start(t, opts)
			f(t, s, forExim(s, cfg))
		})
	}
}

// spooled returns what Exim has accepted, by sender and recipient.
func spooled(t *testing.T, s *eximtest.Server) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, m := range s.Messages() {
		key := m.From + " " + m.To
		if _, twice := got[key]; twice {
			t.Errorf("%s came twice", key)
		}
		got[key] = string(m.Raw)
	}
	return got
}

// rendered is what is to arrive of messages that are sent to all their recipients.
func rendered(messages ...*mailer.EmailMessage) map[string]string {
	want := map[string]string{}
	for _, m := range messages {
		var b strings.Builder
		_, _ = m.WriteTo(&b)
		for _, to := range m.To {
			want[m.FromEmail+" "+to] = b.String()
		}
	}
	return want
}

func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			t.Errorf("%s: got %.300q, want %.300q", key, got[key], want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			t.Errorf("%s: came, and must not", key)
		}
	}
}

func eximLetters(n int) []*mailer.EmailMessage {
	var all []*mailer.EmailMessage
	for i := range n {
		m := letter(fmt.Sprintf("n%d@x.example", i))
		m.Body = strings.Repeat(fmt.Sprintf(".%d\n..\n.\nÄ line of it\n\n", i), 1+i*i/64)
		all = append(all, m)
	}
	return all
}

// TestExim_bytes: two hundred messages, short and long, arrive as they were rendered,
// over one connection.
func TestExim_bytes(t *testing.T) {
	everyExim(t, eximtest.Options{}, func(t *testing.T, s *eximtest.Server, cfg Config) {
		messages := eximLetters(200)
		b := newBackend(t, cfg)
		if _, err := b.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, r := range sendAll(t, b, messages) {
			if r.Err != nil {
				t.Errorf("message %d: %v", i, r.Err)
			}
		}
		compare(t, spooled(t, s), rendered(messages...))
		if n := s.Connections(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

// TestExim_refusals: Exim refuses a sender at MAIL, RCPT then with 503, and DATA without
// recipients with 503 in several lines.
func TestExim_refusals(t *testing.T) {
	everyExim(t, eximtest.Options{MaxMessageSize: 200000}, func(t *testing.T, s *eximtest.Server, cfg Config) {
		b := newBackend(t, cfg)
		if _, err := b.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		reject, deferred, big := letter("g@x.example"), letter("h@x.example"), letter("j@x.example")
		reject.Headers = map[string]string{"X-Eximtest": "reject"}
		deferred.Headers = map[string]string{"X-Eximtest": "defer"}
		big.Body = strings.Repeat("0123456789\n", 30000)
		messages := []*mailer.EmailMessage{
			letter("a@x.example"), letter("b@x.example", "refused@x.example"), letter("c@x.example", "one@x.example", "refused@x.example", "two@x.example"),
			letter("d@x.example"), letter("refused-sender@x.example"), letter("later-sender@x.example"),
			letter("e@x.example", "later@x.example"), letter("f@x.example"), reject, deferred, big, letter("ü@x.example"), letter("k@x.example"),
		}
		results := sendAll(t, b, messages)
		want := "sent permanent partly sent permanent temporary temporary sent permanent temporary permanent sent sent"
		if got := fates(results); got != want {
			t.Errorf("got %s, want %s", got, want)
			for _, r := range results {
				t.Log(r.Reply, r.Error())
			}
		}
		for i, step := range map[int]mailer.Step{4: mailer.StepMail, 5: mailer.StepMail, 8: mailer.StepEnd, 9: mailer.StepEnd} {
			if e := sendError(t, results[i].Err); e.Step != step {
				t.Errorf("message %d: refused at %v, want %v", i, e.Step, step)
			}
		}
		if e := sendError(t, results[1].Err); e.Code != 550 || e.Enhanced != "5.1.1" || len(e.Refused) != 1 {
			t.Errorf("got %v", e)
		}
		all := rendered(messages[0], messages[2], messages[3], messages[7], messages[11], messages[12])
		delete(all, "c@x.example refused@x.example")
		compare(t, spooled(t, s), all)
		if n := s.Connections(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestExim_TLS(t *testing.T) {
	everyExim(t, eximtest.Options{TLS: true}, func(t *testing.T, s *eximtest.Server, cfg Config) {
		cfg.TLS, cfg.CAFile = TLSStart, s.CAFile()
		messages := eximLetters(20)
		if got, want := fates(sendAll(t, newBackend(t, cfg), messages)), strings.TrimSpace(strings.Repeat("sent ", 20)); got != want {
			t.Errorf("got %s", got)
		}
		compare(t, spooled(t, s), rendered(messages...))
		for _, m := range s.Messages() {
			if !strings.Contains(m.Received, "esmtps ") {
				t.Errorf("%s: %s", m.From, m.Received)
			}
		}
		cfg.CAFile = ""
		if got := fates(sendAll(t, newBackend(t, cfg), letters(1))); got != "unavailable" {
			t.Errorf("not our authority: %s", got)
		}
	})
}

// TestExim_messagesPerConnection: after so many messages Exim says 421 to MAIL, 503 to
// the rest, and leaves it to us to go.
func TestExim_messagesPerConnection(t *testing.T) {
	everyExim(t, eximtest.Options{MaxMessages: 10}, func(t *testing.T, s *eximtest.Server, cfg Config) {
		messages := eximLetters(55)
		cfg.Window = 8 // with more than ten resets after 421 Exim cuts the connection
		for i, r := range sendAll(t, newBackend(t, cfg), messages) {
			if r.Err != nil {
				t.Errorf("message %d: %v", i, r.Err)
			}
		}
		compare(t, spooled(t, s), rendered(messages...))
		if n := s.Connections(); n != 6 {
			t.Errorf("%d connections, want 6", n)
		}
	})
}

// TestExim_busy: Exim says 421 to RCPT and goes on: the message is for the other recipients.
// One that is streamed is told that the relay closes, and one that was streamed already is
// accepted for the others: it must not go out again.
func TestExim_busy(t *testing.T) {
	everyExim(t, eximtest.Options{}, func(t *testing.T, s *eximtest.Server, cfg Config) {
		messages := []*mailer.EmailMessage{
			letter("a@x.example"), letter("b@x.example", "busy@x.example"), letter("c@x.example"),
			letter("d@x.example"), letter("e@x.example", "one@x.example", "busy@x.example", "two@x.example"), letter("f@x.example"),
		}
		b := newBackend(t, cfg)
		got := fates(sendAll(t, b, messages[:3])) + ", " + fates(sendAll(t, b, messages[3:]))
		want := "sent temporary sent, sent partly sent"
		if cfg.Chunking == Auto {
			want = "sent unavailable sent, sent unknown sent"
		}
		all := rendered(messages[0], messages[2], messages[3], messages[4], messages[5])
		delete(all, "e@x.example busy@x.example")
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		compare(t, spooled(t, s), all)
	})
}

// TestExim_drops: Exim cuts the connection after three commands out of order, to which
// pipelining leads where it refuses the sender; after ten resets without a message; and
// for a recipient that it does not like. None of these is another message's fault; of
// those in the window, nobody knows.
func TestExim_drops(t *testing.T) {
	for bad, m := range map[string]*mailer.EmailMessage{
		"sender": letter("refused-sender@x.example"), "recipient": letter("b@x.example", "refused@x.example"),
		"dropped": letter("b@x.example", "dropped@x.example"),
	} {
		n := 12
		if bad == "dropped" {
			n = maxFruitless - 1
		}
		t.Run(bad, func(t *testing.T) {
			everyExim(t, eximtest.Options{}, func(t *testing.T, s *eximtest.Server, cfg Config) {
				var messages, good []*mailer.EmailMessage
				var want []string
				for _, g := range eximLetters(5) {
					messages, good = append(messages, g), append(good, g)
					want = append(want, "sent")
					for range n {
						messages, want = append(messages, m), append(want, "permanent")
					}
				}
				for i, r := range sendAll(t, newBackend(t, cfg), messages) {
					switch got := fates([]mailer.Result{r}); {
					case got == "unknown" && cfg.Chunking == Auto:
						good = slices.DeleteFunc(good, func(m *mailer.EmailMessage) bool { return m == messages[i] })
					case got != want[i] || got == "permanent" && sendError(t, r.Err).Code/10 != 55:
						t.Errorf("message %d: %s, want %s: %v", i, got, want[i], r.Err)
					}
				}
				compare(t, spooled(t, s), rendered(good...))
			})
		})
	}
}

// TestExim_stopped: Exim is stopped or killed in the middle of a batch, and started
// again. What was reported as sent is there once; what was not, is not.
func TestExim_stopped(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("kill=%v", kill), func(t *testing.T) {
			everyExim(t, eximtest.Options{}, func(t *testing.T, s *eximtest.Server, cfg Config) {
				messages := eximLetters(60)
				results := make([]mailer.Result, len(messages))
				n := 0
				b := newBackend(t, cfg)
				b.SendBatch(t.Context(), mailer.Batch{Messages: messages, Report: each(func(i int, r mailer.Result) {
					if results[i] = r; n == 20 {
						if !kill {
							s.Stop()
						}
						s.Restart()
					}
					n++
				})})
				must, may := map[string]string{}, spooled(t, s)
				for i, r := range results {
					key := messages[i].FromEmail + " to@example.com"
					_, came := may[key]
					switch {
					case r.Err == nil:
						maps.Copy(must, rendered(messages[i]))
					case mailer.ClassOf(r.Err) == mailer.Unknown:
						delete(may, key)
					case came:
						t.Errorf("message %d came, and was reported as: %v", i, r.Err)
					}
				}
				compare(t, may, must)
				if n != len(messages) || len(must) < 40 {
					t.Errorf("%d reported, %d sent", n, len(must))
				}
			})
		})
	}
}

// TestExim_reducedOffers: what is not offered is not used.
func TestExim_reducedOffers(t *testing.T) {
	for _, without := range []string{"pipelining", "chunking", "pipelining chunking smtputf8 dsn"} {
		t.Run(without, func(t *testing.T) {
			t.Parallel()
			off := map[string]string{}
			for name := range strings.FieldsSeq(without) {
				off[name+"_advertise_hosts"] = ""
			}
			s := eximtest.Start(t, eximtest.Options{Main: off})
			messages := eximLetters(20)
			b := newBackend(t, forExim(s, Config{Chunking: Auto, DSN: DSN{Notify: "NEVER", Return: "HDRS"}}))
			if got, want := fates(sendAll(t, b, messages)), strings.TrimSpace(strings.Repeat("sent ", 20)); got != want {
				t.Errorf("got %s", got)
			}
			compare(t, spooled(t, s), rendered(messages...))
		})
	}
}

// TestExim_conformance is the contract of mailer.Backend, against Exim.
func TestExim_conformance(t *testing.T) {
	for name, cfg := range postfixWays() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mailertest.Run(t, func(t *testing.T) mailertest.Harness {
				s := eximtest.Start(t, eximtest.Options{})
				return mailertest.Harness{
					Backend:     newBackend(t, forExim(s, cfg)),
					Refuses:     "refused@x.example",
					Connections: s.Connections,
					Break:       s.Restart,
					Down:        s.Stop,
					Received:    func() []mailertest.Mail { return receivedByExim(s) },
				}
			})
		})
	}
}

// receivedByExim puts the deliveries of a message to its recipients together again.
func receivedByExim(s *eximtest.Server) []mailertest.Mail {
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
