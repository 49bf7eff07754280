package tasks

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// What comes due while it is paused waits as well: what was scheduled, what is tried again, by itself or at once, what is replayed, and what is
// handed over right after the pause. A worker that is replaced meanwhile changes nothing. It all goes when it goes on, once.
func TestPause_comesDue(t *testing.T) {
	t.Parallel()
	for name, what := range map[string]PauseTarget{"queue": {Queue: "bulk"}, "mailer": {Mailer: "default"}, "mailing": {Mailing: "july"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			client, cfg := h.Client(t), h.config()
			july := Options{Queue: "bulk", Mailing: "july"}
			refused := make(chan string, 10)
			h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
				switch m.MessageID {
				case "<later@t>", "<at-once@t>":
					refused <- m.MessageID
					return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
				case "<dead@t>":
					refused <- m.MessageID
					return mailer.Result{Err: sendError(mailer.Permanent, 550, "no such user")}
				}
				return mailer.Result{}
			}
			cfg.Queues, cfg.Mailers = map[string]int{"default": 1, "bulk": 1}, map[string]int{"marketing": 1}
			cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour // and not before it is paused, on a machine of any speed
			stop := h.start(cfg)
			later, atOnce, dead := h.handOver("later", july), h.handOver("at-once", july), h.handOver("dead", july)
			for range 3 {
				<-refused
			}
			h.is(later, StateRetry, "", nil)
			h.is(atOnce, StateRetry, "", nil)
			h.is(dead, StateDead, "", nil)
			stop()
			h.relay.answer = nil

			h.pause(what)
			soon := redis.Z{Score: float64(time.Now().Add(time.Second).Unix()), Member: later}
			if err := client.ZAddXX(t.Context(), "asynq:{bulk}:retry", soon).Err(); err != nil {
				t.Fatal(err)
			}
			h.queue = NewQueue(client, QueueConfig{BulkSize: 1, Mailers: []string{"marketing"}})
			h.handOver("scheduled", Options{Queue: "bulk", Mailing: "july", ProcessIn: time.Second})
			h.handOver("new", july)
			if err := NewRetries(client).Now(t.Context(), "bulk", atOnce); err != nil {
				t.Fatal(err)
			}
			if _, err := NewDeadLetters(client).Replay(t.Context(), "bulk", dead); err != nil {
				t.Fatal(err)
			}
			stop = h.start(cfg)
			h.eventually("all is due", func() bool {
				retry, scheduled := client.ZCard(t.Context(), "asynq:{bulk}:retry").Val(), client.ZCount(t.Context(), "asynq:{bulk}:scheduled", "0", "4000000000").Val()
				return retry+scheduled == 0
			})
			stop()
			stop = h.start(cfg) // another one knows of the pause too
			other := Options{Queue: "default", Using: "marketing"}
			h.handOver("other", other)
			h.wait(1)
			h.once(1)
			h.eventually("all waits", func() bool {
				if what.Mailing != "" {
					return len(h.aside("bulk", "july")) == 5
				}
				return len(h.pending("bulk")) == 5
			})
			h.once(1)
			h.resume(what)
			h.wait(5)
			h.once(6)
			stop()
		})
	}
}

// All dead letters are replayed while a worker makes dead letters of them again at once: that ends, and each was tried once more.
func TestReplay_dieAgain(t *testing.T) {
	t.Parallel()
	const n = 400
	h := newHouse(t, redistest.Options{})
	tries := make(chan string, 10*n)
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		tries <- m.MessageID
		return mailer.Result{Err: sendError(mailer.Permanent, 554, "no spam here")}
	}
	h.send(n, nil)
	h.start(h.config())
	d := NewDeadLetters(h.Client(t))
	dead := func() bool {
		count, err := d.Count(t.Context(), "default")
		return err == nil && count == n
	}
	h.eventually("all are dead", dead)
	replayed := 0
	for l, err := range d.Each(t.Context(), Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		switch _, err := d.Replay(t.Context(), l.Queue, l.ID); {
		case err == nil:
			replayed++
		case !errors.Is(err, ErrNotDead):
			t.Fatal(err)
		}
		if replayed > n {
			t.Fatal("it does not end")
		}
	}
	h.eventually("all are dead again", dead)
	if replayed != n {
		t.Errorf("%d were replayed, want %d", replayed, n)
	}
	close(tries)
	count := map[string]int{}
	for id := range tries {
		count[id]++
	}
	for i := range n {
		if id := fmt.Sprintf("<%d@t>", i); count[id] != 2 {
			t.Errorf("%s was tried %d times, want 2", id, count[id])
		}
	}
}
