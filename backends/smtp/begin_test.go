package smtp

import (
	"context"
	"errors"
	"fmt"
	"net"
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
		var mu sync.Mutex
		var log []string
		note := func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, fmt.Sprintf(format, args...))
		}
		dial := cfg.Dial
		cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			return &watchedConn{c, func(octets []byte) {
				for line := range strings.Lines(string(octets)) {
					if from, ok := strings.CutPrefix(line, "MAIL FROM:"); ok {
						note("MAIL %s", address(from))
					}
				}
			}}, err
		}
		newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{
			Messages: letters(4),
			Begin:    func(i int) error { note("begin %d", i); return nil },
			Report:   func([]mailer.Report) {},
		})
		want := "begin 0, MAIL a@x, begin 1, MAIL b@x, begin 2, MAIL c@x, begin 3, MAIL d@x"
		if got := strings.Join(log, ", "); got != want {
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
				b.SendBatch(t.Context(), mailer.Batch{
					Messages: letters(4),
					Begin:    func(i int) error { return tt.no[i] },
					Report:   each(func(i int, r mailer.Result) { results[i] = r }),
				})
				for i, r := range results {
					if !errors.Is(r.Err, tt.no[i]) || (r.Err == nil) != (tt.no[i] == nil) {
						t.Errorf("message %d: got %v, want %v", i, r.Err, tt.no[i])
					}
				}
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
		all := letters(3)
		sendAll(t, b, all[:1])
		<-time.After(10 * time.Second) // the connection is idle for longer than it is taken for alive unasked
		var asked []int
		no := errors.New("too late")
		results := make([]mailer.Result, 2)
		b.SendBatch(t.Context(), mailer.Batch{
			Messages: all[1:],
			Begin: func(i int) error {
				if asked = append(asked, i); len(asked) == 2 {
					return no
				}
				return nil
			},
			Report: each(func(i int, r mailer.Result) { results[i] = r }),
		})
		if !slices.Equal(asked, []int{0, 0, 1}) {
			t.Errorf("asked for %d", asked)
		}
		if !errors.Is(results[0].Err, no) || results[0].Connection == "" || results[1].Err != nil {
			t.Errorf("got %+v", results)
		}
		synctest.Wait()
		if got := strings.Join(p.senders(), " "); got != "a@x c@x" || p.conns != 2 {
			t.Errorf("the server took %q over %d connections", got, p.conns)
		}
	})
}

// TestBackend_beginOnce: a message that was accepted for some recipients goes on to the
// others without asking.
func TestBackend_beginOnce(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		taken := 0
		p.script = func(at event) string {
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
		asked := 0
		newBackend(t, cfg).SendBatch(t.Context(), mailer.Batch{
			Messages: []*mailer.EmailMessage{letter("a@x", "1@x", "2@x", "3@x", "4@x", "5@x")},
			Begin: func(int) error {
				if asked++; asked > 1 {
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
		synctest.Wait()
		if asked != 1 || len(p.mails) != 3 {
			t.Errorf("asked %d times for %d transactions", asked, len(p.mails))
		}
	})
}
