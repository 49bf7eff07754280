package tasks

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/cancel"
)

// mailingQueue hands over messages of the mailing july, so many in a task.
func (h *house) mailingQueue(size int, o Options) {
	o.Mailing = "july"
	h.queue = NewQueue(h.Client(h.t), QueueConfig{BulkSize: size, Mailers: []string{"marketing"}, Options: o})
}

// prefixed gives the messages that h.send makes names of their own.
func prefixed(prefix string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.MessageID = "<" + prefix + m.MessageID[1:] }
}

func (h *house) cancelMailing(cancelled, tooLate int, hooks ...redis.Hook) {
	h.t.Helper()
	client := h.Client(h.t)
	for _, hook := range hooks {
		client.AddHook(hook)
	}
	got, err := NewQueue(client, QueueConfig{}).CancelMailing(h.t.Context(), "july")
	if want := (CancelledMailing{cancelled, tooLate}); err != nil || got != want {
		h.t.Errorf("CancelMailing = %+v, %v, want %+v", got, err, want)
	}
	if list, err := NewPauses(h.Client(h.t)).List(h.t.Context()); err != nil || len(list) > 0 {
		h.t.Errorf("still paused: %+v, %v", list, err)
	}
}

// A mailing is cancelled wherever its messages wait, and no other message is.
func TestCancelMailing_waiting(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	all := 0
	for i, o := range []Options{{}, {Queue: "bulk"}, {Queue: "bulk", Using: "marketing"}, {ProcessIn: time.Hour}, {Queue: "bulk", Unique: time.Hour}} {
		for _, size := range []int{1, 100} {
			if o.Unique > 0 && size > 1 {
				continue // each has a task of its own, and the same content
			}
			h.mailingQueue(size, o)
			h.send(250, prefixed(fmt.Sprintf("%d-%d-", i, size)))
			all += 250
		}
	}
	h.mailingQueue(1, Options{})
	// Some are to be tried again, and some are set aside.
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 10, Options: Options{Queue: "tried", Mailing: "july"}})
	h.send(30, prefixed("tried-"))
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
	}
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax, cfg.Queues = time.Hour, time.Hour, map[string]int{"tried": 1}
	stop := h.start(cfg)
	client := h.Client(t)
	h.eventually("30 to be tried again", func() bool {
		retry := client.ZCard(t.Context(), "asynq:{tried}:retry").Val() // first: what moves from the other list into this one meanwhile counts once
		return retry+client.ZCard(t.Context(), "asynq:{tried}:scheduled").Val() == 30
	})
	h.pause(PauseTarget{Mailing: "july"})
	h.send(20, prefixed("aside-"))
	h.eventually("some are set aside", func() bool { return len(h.aside("tried:mass", "july")) == 2 })
	stop()
	h.relay.answer = nil

	others := NewQueue(client, QueueConfig{BulkSize: 10, Options: Options{Queue: "bulk", Mailing: "august"}})
	h.queue = others
	h.send(25, prefixed("august-"))
	h.queue = NewQueue(client, QueueConfig{BulkSize: 10, Options: Options{Queue: "bulk"}})
	h.send(25, prefixed("none-"))

	h.cancelMailing(all+50, 0)
	cfg = h.config()
	cfg.Queues, cfg.Mailers = map[string]int{"default": 1, "bulk": 1, "tried": 1}, map[string]int{"marketing": 1}
	h.start(cfg)
	h.wait(50)
	h.eventually("nothing is left but marks", func() bool {
		return !slices.ContainsFunc(client.Keys(t.Context(), "asynq:*:t:*").Val(), func(key string) bool {
			return client.HExists(t.Context(), key, "msg").Val()
		})
	})
	h.once(50)

	// Its name is free again.
	h.mailingQueue(100, Options{})
	h.send(10, prefixed("anew-"))
	h.wait(10)
	h.once(60)
}

// refusesFirst lets the relay answer when the gate is open, and put off the first message that it answers.
func (h *house) refusesFirst() *barrier {
	gate, refused := newBarrier(), make(chan struct{}, 1)
	h.t.Cleanup(gate.open)
	h.relay.answer = func(ctx context.Context, m *mailer.EmailMessage) mailer.Result {
		r := gate.answer(ctx, m)
		select {
		case refused <- struct{}{}:
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
		default:
			return r
		}
	}
	return gate
}

// What workers have in hand is cancelled too, but for what is on the wire; what the relay then refuses for now is as well.
func TestCancelMailing_inHand(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"single": 1, "mass": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			gate := h.refusesFirst()
			h.mailingQueue(size, Options{Queue: "bulk"})
			h.send(1000, nil)
			cfg := h.config()
			cfg.Queues, cfg.Concurrency, cfg.RetryMin, cfg.RetryMax = map[string]int{"bulk": 1}, 600, time.Hour, time.Hour
			h.start(cfg)
			h.start(cfg)
			for range 4 {
				<-gate.come
			}
			queue := map[int]string{1: "bulk", 100: "bulk:mass"}[size]
			h.eventually("the workers have all", func() bool { return len(h.pending(queue)) == 0 })
			client := h.Client(t)
			var looks atomic.Int32 // at all, since what is not on the wire is cancelled
			h.cancelMailing(997, 3, cut{func(cmds []redis.Cmder) bool {
				if has(cmds, "smembers", wire.QueuesKey) && h.cancelledKeys(queue) == 996 && looks.Add(1) == 2 {
					if client.Exists(t.Context(), wire.PausesKey(queue)).Val() != 1 {
						t.Error("it is not paused")
					}
					gate.open() // by now what is on the wire was found to be too late
				}
				return false
			}})
			h.wait(3)
			h.allEmpty()
			h.once(3)
		})
	}
}

// What moves from list to list while they are looked through is found too, and so is what the relay refuses for now while that takes
// longer than anybody waits for what is on the wire.
func TestCancelMailing_moving(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		list string // is about to be read for the first time
		move func(h *house)
	}{
		"on": {"pending", func(h *house) {
			h.start(h.config())
			h.eventually("it is set aside", func() bool { return len(h.aside("default", "july")) == 1 })
		}},
		"back": {"active", func(h *house) { // a worker that stops
			client := h.Client(h.t)
			id := client.LIndex(h.t.Context(), "asynq:{default}:active", 0).Val()
			if err := client.LMove(h.t.Context(), "asynq:{default}:active", "asynq:{default}:pending", "RIGHT", "RIGHT").Err(); err != nil {
				h.t.Error(err)
			}
			client.ZRem(h.t.Context(), "asynq:{default}:lease", id)
			client.HSet(h.t.Context(), asynqbatch.TaskKey("default", id), "state", "pending")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.mailingQueue(1, Options{})
			h.send(1, nil)
			if name == "back" {
				h.activate(h.pending("default")[0])
			}
			move := sync.OnceFunc(func() { tt.move(h) })
			h.cancelMailing(1, 0, cut{func(cmds []redis.Cmder) bool {
				if has(cmds, "lrange", "asynq:{default}:"+tt.list) {
					move()
				}
				return false
			}})
			h.allEmpty()
		})
	}
}

// A mailing that takes long to look through is looked through once more, however short the time for what is on the wire.
func TestCancelMailing_long(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	gate := h.refusesFirst()
	h.mailingQueue(1, Options{})
	h.send(10, nil)
	cfg := h.config()
	cfg.Connections, cfg.RetryMin, cfg.RetryMax = 2, time.Hour, time.Hour
	h.start(cfg)
	for range 2 {
		<-gate.come
	}
	h.eventually("the worker has all", func() bool { return len(h.pending("default")) == 0 })
	client := h.Client(t)
	open := sync.OnceFunc(func() {
		gate.open()
		h.eventually("one is to be tried again", func() bool { return h.info().Retry == 1 })
	})
	client.AddHook(cut{func(cmds []redis.Cmder) bool {
		if has(cmds, "zscan", "asynq:{default}:scheduled") { // the last list, and that of what is tried again was read
			open()
		}
		return false
	}})
	cancelled, tooLate, err := cancel.Canceller{Redis: client, Held: time.Minute, OnWire: time.Nanosecond}.Mailing(t.Context(), "july")
	if cancelled != 9 || tooLate != 1 || err != nil {
		t.Errorf("Mailing = %d, %d, %v, want 9 and 1", cancelled, tooLate, err)
	}
	h.wait(1)
	h.allEmpty()
	h.once(1)
}

// Whole pages of what is too late hold nothing up.
func TestCancelMailing_late(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.mailingQueue(1, Options{})
	h.send(450, nil)
	h.mailingQueue(2, Options{})
	h.send(50, prefixed("mass-"))
	client := h.Client(t)
	for queue, field := range map[string]string{"default": wire.FieldWire, "default:mass": wire.FieldWire + ".0"} {
		for _, id := range h.pending(queue) {
			client.HSet(t.Context(), asynqbatch.TaskKey(queue, id), field, "0")
		}
	}
	h.send(2, prefixed("more-"))
	h.cancelMailing(25+2, 450+25)
	if single, mass := len(h.pending("default")), len(h.pending("default:mass")); single != 450 || mass != 25 {
		t.Errorf("%d and %d tasks wait, want 450 and 25", single, mass)
	}
}

// cancelledKeys is how many messages of a queue were cancelled.
func (h *house) cancelledKeys(queue string) int {
	return len(h.Client(h.t).Keys(h.t.Context(), wire.CancelledKey(queue, "*")).Val())
}

// What is set aside expires as what waits elsewhere, and does not come back when the mailing goes on.
func TestPause_expires(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	over := wire.Meta{Mailing: "july", Deadline: new(time.Now().Add(-time.Second))}
	h.put(over, "0", "1")
	h.put(over, "2")
	h.mailingQueue(2, Options{})
	h.send(3, prefixed("later-"))
	h.pause(PauseTarget{Mailing: "july"})
	cfg := h.config()
	cfg.sweepEvery = time.Hour
	stop := h.start(cfg)
	h.eventually("all are set aside", func() bool { return len(h.aside("default", "july")) == 2 && len(h.aside("default:mass", "july")) == 2 })
	stop()
	cfg.sweepEvery = 20 * time.Millisecond
	h.start(cfg)
	h.eventually("two dead letters", func() bool {
		single, mass := h.info(), h.infoOf("default:mass")
		return single.Archived == 1 && mass.Archived == 1 && single.Scheduled == 1 && mass.Scheduled == 1
	})
	if list, err := h.looks.ListScheduledTasks("default"); err != nil || len(list) != 1 || list[0].NextProcessAt.Year() != 2200 {
		t.Errorf("asynq's tools show %+v, %v", list, err)
	} else if s, err := h.queue.Status(t.Context(), list[0].ID); err != nil || s.State != StatePaused || s.Due.Year() == 2200 {
		t.Errorf("Status = %+v, %v, want paused", s, err)
	}
	h.resume(PauseTarget{Mailing: "july"})
	h.wait(3)
	h.once(3)
}

// A mailing that is paused in front of many other tasks does not hold them up, and comes back before them, in its order.
func TestPause_many(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.mailingQueue(1, Options{})
	h.send(1800, nil)
	order := h.pending("default")
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1})
	h.send(10, prefixed("other-"))
	h.pause(PauseTarget{Mailing: "july"})
	stop := h.start(h.config())
	h.wait(10)
	h.eventually("all are set aside", func() bool { return len(h.aside("default", "july")) == 1800 })
	h.once(10)
	stop()
	h.send(10, prefixed("last-"))
	h.resume(PauseTarget{Mailing: "july"})
	if got := h.pending("default"); len(got) != 1810 {
		t.Errorf("%d tasks wait, want 1810", len(got))
	} else {
		h.inOrder("what came back", got[:1800], order)
	}
	h.start(h.config())
	h.wait(1810)
	h.empty()
	h.once(1820)
}
