package smtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// TestBackend_begin: each message is asked for when nothing but its turn is left to wait
// for. Chunking, with room for one message at a time, waits for that room first.
func TestBackend_begin(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *peer, cfg Config) {
		cfg.Window = 1
		var log journal
		witness(&cfg, func(octets []byte) {
			for line := range strings.Lines(string(octets)) {
				if from, ok := strings.CutPrefix(line, "MAIL FROM:"); ok {
					log.note("MAIL %s", address(from))
				}
			}
		})
		newBackend(t, cfg).SendBatch(t.Context(), asking(mailer.Batch{
			Messages: letters(4),
			Report:   func([]mailer.Report) {},
		}, func(i int) error { log.note("begin %d", i); return nil }))
		want := "begin 0, MAIL a@x, begin 1, MAIL b@x, begin 2, MAIL c@x, begin 3, MAIL d@x"
		if got := strings.Join(log.lines, ", "); got != want {
			t.Errorf("got %s", got)
		}
	})
}

// TestBackend_beginRefuses: of a refused message nothing is sent, and the connection goes on
// with the others.
func TestBackend_beginRefuses(t *testing.T) {
	late := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: errors.New("too late")}
	for _, tt := range []struct {
		name string
		no   map[int]error
		took string
	}{
		{"the first", map[int]error{0: late}, "b@x c@x d@x"},
		{"some", map[int]error{1: late, 2: errors.New("not now")}, "a@x d@x"},
		{"the last", map[int]error{3: late}, "a@x b@x c@x"},
		{"all", map[int]error{0: late, 1: late, 2: late, 3: late}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *peer, cfg Config) {
				told := 0
				cfg.Hooks = &Hooks{Settled: func(context.Context, *Settled) { told++ }}
				b := newBackend(t, cfg)
				if _, err := b.Open(t.Context()); err != nil {
					t.Fatal(err)
				}
				results := make([]mailer.Result, 4)
				b.SendBatch(t.Context(), asking(mailer.Batch{
					Messages: letters(4),
					Report:   each(func(i int, r mailer.Result) { results[i] = r }),
				}, func(i int) error { return tt.no[i] }))
				failed(t, results, tt.no)
				synctest.Wait()
				if got := strings.Join(p.senders(), " "); got != tt.took {
					t.Errorf("the server took %q, want %q", got, tt.took)
				}
				if want := len(results) - len(tt.no); told != want {
					t.Errorf("hooks were told of %d messages, want %d", told, want)
				}
				if got := fates(sendAll(t, b, letters(2))); got != "sent sent" || p.conns != 1 {
					t.Errorf("afterwards: %s over %d connections", got, p.conns)
				}
			})
		})
	}
	if late.Refused != nil || late.Accepted {
		t.Errorf("the error of Begin was changed: %+v", late)
	}
}

// TestBackend_beginAgain: a message that goes on over a new connection is asked for anew.
func TestBackend_beginAgain(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		b := stale(t, p, cfg)
		var asked []int
		no := errors.New("too late")
		results := make([]mailer.Result, 2)
		b.SendBatch(t.Context(), asking(mailer.Batch{
			Messages: letters(3)[1:],
			Report:   each(func(i int, r mailer.Result) { results[i] = r }),
		}, func(i int) error {
			if asked = append(asked, i); len(asked) == 2 {
				return no
			}
			return nil
		}))
		if !slices.Equal(asked, []int{0, 0, 1}) {
			t.Errorf("asked for %d", asked)
		}
		if !errors.Is(results[0].Err, no) || results[0].Connection == "" || results[1].Err != nil {
			t.Errorf("got %+v", results)
		}
		if got := strings.Join(p.senders(), " "); got != "a@x c@x" || p.conns != 2 {
			t.Errorf("the server took %q over %d connections", got, p.conns)
		}
	})
}

// TestBackend_beginOnce: a message that was accepted for some recipients goes on to the
// others without asking.
func TestBackend_beginOnce(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		p.script = twoAtATime()
		asked := 0
		newBackend(t, cfg).SendBatch(t.Context(), asking(mailer.Batch{
			Messages: []*mailer.EmailMessage{letter("a@x", "1@x", "2@x", "3@x", "4@x", "5@x")},
			Report: each(func(_ int, r mailer.Result) {
				if r.Err != nil || len(r.Refused) > 0 {
					t.Errorf("got %+v", r)
				}
			}),
		}, func(int) error {
			if asked++; asked > 1 {
				return errors.New("too late")
			}
			return nil
		}))
		if taken := len(p.taken()); asked != 1 || taken != 3 {
			t.Errorf("asked %d times for %d transactions", asked, taken)
		}
	})
}

// TestBackend_commit: each message is asked for after the one before was reported, and before its body is written.
// Chunking, with room for one message at a time, waits for that room first. A strict session asks before DATA already.
func TestBackend_commit(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *peer, cfg Config) {
		cfg.Window = 1
		var log journal
		witness(&cfg, func(octets []byte) {
			for line := range strings.Lines(string(octets)) {
				if of, ok := strings.CutPrefix(line, "Subject: "); ok {
					log.note("body %s", strings.TrimSpace(of))
				}
			}
		})
		newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{
			Messages: letters(3),
			Commit:   func(i int) error { log.note("commit %d", i); return nil },
			Report:   each(func(i int, _ mailer.Result) { log.note("report %d", i) }),
		})
		want := "commit 0, body a@x, report 0, commit 1, body b@x, report 1, commit 2, body c@x, report 2"
		if got := strings.Join(slices.Compact(log.lines), ", "); got != want {
			t.Errorf("got %s", got)
		}
	})
}

// TestBackend_commitWindow: of a stream no more is asked for than is in the window.
func TestBackend_commitWindow(t *testing.T) {
	ways()[2].run(t, "window", func(t *testing.T, p *peer, cfg Config) {
		cfg.Window = 4
		var under, most int
		newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{
			Messages: letters(20),
			Commit: func(int) error {
				under++
				most = max(most, under)
				return nil
			},
			Report: func(group []mailer.Report) { under -= len(group) },
		})
		// The first message of a connection is asked for twice: it waits for the server in between.
		if taken := len(p.taken()); taken != 20 || most < 3 || most > cfg.Window+1 || under != 1 {
			t.Errorf("%d messages taken; up to %d were asked for and not reported, at the end %d", taken, most, under)
		}
	})
}

// TestBackend_commitRefuses: a message that is taken back at the last moment is not accepted, what was accepted before
// stays accepted, and the others are sent. Where the server was ready for the body the connection is cut.
func TestBackend_commitRefuses(t *testing.T) {
	late := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: errors.New("too late")}
	for _, tt := range []struct {
		name  string
		no    map[int]error
		took  string
		conns int // of a pipelined session
	}{
		{"the first", map[int]error{0: late}, "b@x c@x d@x e@x", 2},
		{"some", map[int]error{1: late, 2: errors.New("not now")}, "a@x d@x e@x", 3},
		{"the last", map[int]error{4: late}, "a@x b@x c@x d@x", 1},
		{"all", map[int]error{0: late, 1: late, 2: late, 3: late, 4: late}, "", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, p *peer, cfg Config) {
				b := newBackend(t, cfg)
				if _, err := b.Open(t.Context()); err != nil {
					t.Fatal(err)
				}
				results, times := make([]mailer.Result, 5), 0
				b.SendBatch(t.Context(), mailer.Batch{
					Messages: letters(5),
					Commit:   func(i int) error { return tt.no[i] },
					Report:   each(func(i int, r mailer.Result) { results[i] = r; times++ }),
				})
				failed(t, results, tt.no)
				synctest.Wait()
				if got := strings.Join(p.senders(), " "); got != tt.took || times != 5 {
					t.Errorf("the server took %q, want %q; %d reports", got, tt.took, times)
				}
				if conns := p.conns; conns != 1 && (!strings.HasSuffix(t.Name(), "pipelined") || conns > tt.conns) {
					t.Errorf("%d connections", conns)
				}
				if got := fates(sendAll(t, b, letters(2))); got != "sent sent" {
					t.Errorf("afterwards: %s", got)
				}
			})
		})
	}
	if late.Refused != nil || late.Accepted {
		t.Errorf("the error of Commit was changed: %+v", late)
	}
}

// TestBackend_commitAfterWaiting: where the server keeps us waiting after the question, it is asked again before the body.
func TestBackend_commitAfterWaiting(t *testing.T) {
	for _, w := range ways() {
		if w.name == "pipelined" {
			continue // it asks when the server has answered everything
		}
		w.run(t, "slow", func(t *testing.T, p *peer, cfg Config) {
			p.script = func(at event) string {
				if at.step == "DATA" || at.step == "RCPT" && w.name == "chunked" {
					<-time.After(30 * time.Second)
				}
				return ""
			}
			var asked []time.Time
			var result mailer.Result
			newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{
				Messages: letters(1),
				Commit: func(int) error {
					if asked = append(asked, time.Now()); len(asked) == 2 {
						return errors.New("another's by now")
					}
					return nil
				},
				Report: each(func(_ int, r mailer.Result) { result = r }),
			})
			if taken := len(p.taken()); len(asked) != 2 || asked[1].Sub(asked[0]) < 30*time.Second || result.Err == nil || taken != 0 {
				t.Errorf("asked at %v: %v, %d messages were taken", asked, result.Err, taken)
			}
		})
	}
}

// TestBackend_commitAgain: a message that goes on over a new connection is asked for anew, and one that was accepted for some
// recipients is not.
func TestBackend_commitAgain(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		b := stale(t, p, cfg)
		var asked []int
		results := make([]mailer.Result, 2)
		b.SendBatch(t.Context(), mailer.Batch{
			Messages: letters(3)[1:],
			Commit:   func(i int) error { asked = append(asked, i); return nil },
			Report:   each(func(i int, r mailer.Result) { results[i] = r }),
		})
		if !slices.Contains(asked, 0) || !slices.Contains(asked, 1) || results[0].Err != nil || results[1].Err != nil {
			t.Errorf("asked for %d: %+v", asked, results)
		}
		if got := strings.Join(p.senders(), " "); got != "a@x b@x c@x" {
			t.Errorf("the server took %q", got)
		}
	})
	everyWayNamed(t, "parted", func(t *testing.T, p *peer, cfg Config) {
		p.script = twoAtATime()
		no := false
		newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{
			Messages: []*mailer.EmailMessage{letter("a@x", "1@x", "2@x", "3@x", "4@x", "5@x")},
			Commit: func(int) error {
				if no = no || len(p.senders()) > 0; no {
					return errors.New("too late")
				}
				return nil
			},
			Report: each(func(_ int, r mailer.Result) {
				if r.Err != nil || len(r.Refused) > 0 {
					t.Errorf("got %+v", r)
				}
			}),
		})
		if taken := len(p.taken()); taken != 3 || no {
			t.Errorf("%d transactions", taken)
		}
	})
}

// TestBackend_beginChanges: what Begin returns is sent, whatever was rendered ahead; what it returns anew for a message that
// goes on over another connection too.
func TestBackend_beginChanges(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		b := stale(t, p, cfg)
		told, asked := 0, 0
		b.AddHooks(&Hooks{Settled: func(_ context.Context, s *Settled) {
			if told++; s.Conn == nil || s.Recipients != 1 {
				t.Errorf("told of %+v", s)
			}
		}})
		bad := letter("e@x", "r@x")
		bad.Subject = "x\ny"
		given := []*mailer.EmailMessage{letter("b@x", "r@x"), letter("c@x", "r@x"), letter("d@x", "r@x"), letter("d@x", "r@x"), letter("f@x", "r@x")}
		sent := []*mailer.EmailMessage{nil, letter("g@x", "s@x"), bad, {FromEmail: "d@x"}, letter("f@x", "s@x")}
		results := make([]mailer.Result, len(given))
		b.SendBatch(t.Context(), mailer.Batch{
			Messages: given,
			Begin: func(i int) (*mailer.EmailMessage, error) {
				asked++
				if i == 0 { // it breaks the first connection
					return letter("b@x", "s@x"), nil
				}
				return sent[i], nil
			},
			Report: each(func(i int, r mailer.Result) { results[i] = r }),
		})
		if got := strings.Join(p.senders(), " "); got != "a@x b@x g@x f@x" {
			t.Errorf("the server took %q", got)
		}
		for _, m := range p.taken()[1:] {
			if len(m.to) != 1 || m.to[0] != "s@x" {
				t.Errorf("%s went to %s", m.from, m.to)
			}
		}
		if !mailer.IsBadInput(results[2].Err) || mailer.ClassOf(results[2].Err) != mailer.Permanent || !results[3].Skipped {
			t.Errorf("got %+v", results)
		}
		if told != 3 || asked != 6 {
			t.Errorf("told of %d messages, asked %d times", told, asked)
		}
	})
}

// asking is a batch whose Begin only asks.
func asking(b mailer.Batch, ask func(i int) error) mailer.Batch {
	b.Begin = func(i int) (*mailer.EmailMessage, error) { return b.Messages[i], ask(i) }
	return b
}

// journal notes what happens.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// failed checks that the messages have these errors, by their index, and no others.
func failed(t *testing.T, results []mailer.Result, want map[int]error) {
	t.Helper()
	for i, r := range results {
		if !errors.Is(r.Err, want[i]) || (r.Err == nil) != (want[i] == nil) {
			t.Errorf("message %d: got %v, want %v", i, r.Err, want[i])
		}
	}
}

// stale is a backend that has sent the first of letters over a connection which will be closed at the second.
func stale(t *testing.T, p *peer, cfg Config) *Backend {
	t.Helper()
	p.script = func(at event) string {
		if at.conn == 1 && at.step == "MAIL" && at.mail == "b@x" {
			return "close"
		}
		return ""
	}
	b := newBackend(t, cfg)
	if _, err := b.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	sendAll(t, b, letters(1))
	<-time.After(10 * time.Second) // the connection is idle for longer than it is taken for alive unasked
	return b
}

// twoAtATime is the script of a server that takes two recipients for each message.
func twoAtATime() func(at event) string {
	taken := 0
	return func(at event) string {
		switch at.step {
		case "MAIL":
			taken = 0
		case "RCPT":
			if taken++; taken > 2 {
				return "452 4.5.3 too many"
			}
		}
		return ""
	}
}
