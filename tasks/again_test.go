package tasks

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/once"
)

// subjects are how often the relay has had a message with which subject.
func (h *house) subjects() map[string]int {
	count := map[string]int{}
	for _, r := range h.relay.all() {
		for line := range strings.SplitSeq(string(r.data), "\r\n") {
			if subject, ok := strings.CutPrefix(line, "Subject: "); ok {
				count[subject]++
				break
			}
		}
	}
	return count
}

// activate makes a task active, as one that a worker has fetched which has not begun it.
func (h *house) activate(id string) {
	h.t.Helper()
	client, list := h.Client(h.t), "asynq:{default}:"
	client.LRem(h.t.Context(), list+"pending", 0, id)
	client.LPush(h.t.Context(), list+"active", id)
	client.ZAdd(h.t.Context(), list+"lease", redis.Z{Score: float64(time.Now().Add(time.Minute).Unix()), Member: id})
	client.HSet(h.t.Context(), asynqbatch.TaskKey("default", id), "state", "active")
}

// cancelState is a state that a task can be in when its message is cancelled.
type cancelState struct {
	name   string
	bring  func(h *house, o Options) (id string, goOn func()) // hands the message "first" over and brings its task there
	others int                                                // other messages that are delivered
}

// waits hands the message "first" over.
func waits(h *house, o Options) (id string, goOn func()) {
	return h.first(about("first"), o), func() { h.start(h.config()) }
}

func scheduled(h *house, o Options) (id string, goOn func()) {
	o.ProcessIn = time.Hour
	return waits(h, o)
}

func prefetched(h *house, o Options) (id string, goOn func()) {
	id, goOn = waits(h, o)
	h.activate(id)
	return id, goOn
}

func inHand(h *house, o Options) (id string, goOn func()) {
	h.handOver("0", Options{})
	goOn = h.blocked()
	h.t.Cleanup(goOn)
	id, _ = waits(h, o)
	h.eventually("both are active", func() bool { return h.info().Active == 2 })
	return id, goOn
}

// inHandOfOneThatStops is given back by a worker that stops.
func inHandOfOneThatStops(h *house, o Options) (id string, goOn func()) {
	h.handOver("0", Options{})
	free, reached := make(chan struct{}), make(chan struct{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<0@t>" {
			close(reached)
			<-free
		}
		return mailer.Result{}
	}
	cfg := h.config()
	cfg.Connections, cfg.BatchSize, cfg.Concurrency = 1, 1, 10
	stop := h.start(cfg)
	h.t.Cleanup(sync.OnceFunc(func() {
		select {
		case <-free:
		default:
			close(free)
		}
	}))
	<-reached
	id, _ = waits(h, o)
	h.eventually("both are active", func() bool { return h.info().Active == 2 })
	return id, func() {
		close(free)
		stop()
		h.start(h.config())
	}
}

func held(h *house, o Options) (id string, goOn func()) {
	tried, back := h.relay.goesAway()
	id, _ = waits(h, o)
	h.start(h.config())
	<-tried
	h.eventually("it is off the wire", func() bool {
		return !h.Client(h.t).HExists(h.t.Context(), asynqbatch.TaskKey("default", id), wire.FieldWire).Val()
	})
	return id, back
}

func refusedOnce(h *house, o Options) (id string, goOn func()) {
	var refused atomic.Bool
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		if !refused.Swap(true) {
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
		}
		return mailer.Result{}
	}
	id, _ = waits(h, o)
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	h.start(cfg)
	h.eventually("it is to be tried again", func() bool { return h.info().Retry == 1 })
	return id, func() {}
}

// cancelledBefore was cancelled by a program of a version that told the worker and no more.
func cancelledBefore(h *house, o Options) (id string, goOn func()) {
	id, goOn = prefetched(h, o)
	h.Client(h.t).HSet(h.t.Context(), asynqbatch.TaskKey("default", id), wire.FieldCancelled, "1")
	return id, goOn
}

func replayedLetter(h *house, o Options) (id string, goOn func()) {
	id, goOn = waits(h, o)
	h.bury()
	again, err := NewDeadLetters(h.Client(h.t)).Replay(h.t.Context(), "default", id)
	if err != nil {
		h.t.Fatal(err)
	}
	h.activate(again)
	return id, goOn
}

// forMemory waits in the worker until there is memory for its big attachment, which it has not read yet.
func forMemory(h *house, o Options) (id string, goOn func()) {
	big := func(subject string) *mailer.EmailMessage {
		m := about(subject)
		m.Attach("a.bin", make([]byte, 1<<20), "")
		return m
	}
	free, reached := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	h.t.Cleanup(release)
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.Subject == "holds the memory" {
			close(reached)
			<-free
		}
		return mailer.Result{}
	}
	h.first(big("holds the memory"), Options{})
	cfg := h.config()
	cfg.Memory = 3 << 20
	h.start(cfg)
	<-reached
	id = h.first(big("first"), o)
	h.eventually("both are active", func() bool { return h.info().Active == 2 })
	return id, release
}

func cancelStates() []cancelState {
	return []cancelState{
		{"pending", waits, 0},
		{"scheduled", scheduled, 0},
		{"to be tried again", refusedOnce, 0},
		{"prefetched", prefetched, 0},
		{"in a worker's hand", inHand, 1},
		{"in a worker's hand that stops", inHandOfOneThatStops, 1},
		{"in a worker's hand, without memory", forMemory, 1},
		{"in a worker's hand, its relay away", held, 0},
		{"cancelled before", cancelledBefore, 0},
		{"replayed", replayedLetter, 0},
	}
}

// Whatever state a message is in when it is cancelled: handed over again with its key, or as the
// same, it is a task of its own, which is delivered, and the first one is not.
func TestCancel_thenAgain(t *testing.T) {
	t.Parallel()
	for _, s := range cancelStates() {
		for name, o := range map[string]Options{
			"the same message": {IdempotencyKey: "order 7"}, "unique": {Unique: time.Minute}, "another message": {IdempotencyKey: "order 7"},
		} {
			t.Run(s.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, redistest.Options{})
				subject := "first"
				if name == "another message" { // the key is free, for any message
					subject = "second"
				}
				id, goOn := s.bring(h, o)
				h.cancels(id, nil)
				again := h.first(about(subject), o)
				if again == id {
					t.Errorf("%s again, which may be a worker's yet", id)
				}
				h.again(about(subject), o, again, nil)
				h.cancels(id, ErrNoTask) // it does not mean the second one
				goOn()
				h.eventually("all are sent, and the first one is gone", func() bool {
					info := h.info()
					return len(h.relay.all()) == s.others+1 && info.Active == 0 && info.Pending == 0 && info.Size == info.Completed
				})
				if got := h.subjects(); got[subject] != 1 || len(h.relay.all()) != s.others+1 {
					t.Errorf("sent: %v, want %q once", got, subject)
				}
				h.again(about(subject), o, again, nil)
				h.cancels(again, ErrTooLate)
			})
		}
	}
}

// A key can be cancelled and handed over again and again, whoever does it at the same time.
func TestCancel_againAndAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	o := Options{IdempotencyKey: "order 7"}
	ids := map[string]bool{}
	for range 4 {
		var together sync.WaitGroup
		found := make([]string, 8)
		for i := range found {
			q := NewQueue(h.Client(t), QueueConfig{Options: o})
			together.Go(func() {
				id, err := q.Enqueue(t.Context(), about("a"))
				if err != nil {
					t.Error(err)
				}
				found[i] = id
			})
		}
		together.Wait()
		for _, id := range found {
			if id != found[0] {
				t.Errorf("two tasks: %s and %s", id, found[0])
			}
		}
		if ids[found[0]] {
			t.Errorf("%s again, which is a worker's yet", found[0])
		}
		ids[found[0]] = true
		h.activate(found[0])
		h.cancels(found[0], nil)
		h.empty()
	}
	want := h.first(about("a"), o)
	for id := range ids { // the marks last as long as the task that is there now
		if ttl := h.Client(t).TTL(t.Context(), asynqbatch.TaskKey("default", id)).Val(); ttl < once.ReplayedFor {
			t.Errorf("the mark of %s lasts for %v", id, ttl)
		}
	}
	h.again(about("a"), o, want, nil)
	h.start(h.config())
	h.wait(1)
	h.eventually("it is kept", func() bool { return h.info().Completed == 1 && h.info().Size == 1 })
	h.again(about("a"), o, want, nil)
}

// Without its answer a cancellation is asked for again, and says the same.
func TestCancel_lostReply(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {IdempotencyKey: "order 7"}} {
		t.Run("key="+o.IdempotencyKey, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			id := h.handOver("0", o)
			client := h.Client(t)
			var evals atomic.Int64
			client.AddHook(retried{})
			client.AddHook(lostReply{func(cmd redis.Cmder) bool { return named("evalsha", "eval")(cmd) && evals.Add(1) == 1 }})
			if err := NewQueue(client, QueueConfig{}).Cancel(t.Context(), id); err != nil {
				t.Error(err)
			}
			h.empty()
		})
	}
}

// A task that a person deletes with asynq's tools sets its key free, wherever it has gone to.
func TestIdempotencyKey_deletedByHand(t *testing.T) {
	t.Parallel()
	h, cfg := forwarding(t)
	for _, o := range []Options{{IdempotencyKey: "order 7"}, {IdempotencyKey: "order 7", Using: "marketing"}} {
		id := h.first(about("a"), o)
		h.activate(id) // so that it leaves a mark
		h.cancels(id, nil)
		second := h.first(about("a"), o)
		if err := inspect(t, h.Server).DeleteTask("default", second); err != nil {
			t.Fatal(err)
		}
		third := h.first(about("b"), o)
		h.again(about("b"), o, third, nil)
		queue := "default"
		if o.Using != "" {
			h.forwardByHand(third, "completed")
			queue = "marketing.default"
		}
		if err := inspect(t, h.Server).DeleteTask(queue, third); err != nil {
			t.Fatal(err)
		}
		h.first(about("c"+o.Using), o)
	}
	h.start(cfg)
	h.wait(2)
	h.noneTwice(2)
}

// What is cancelled in one queue is not cancelled in another one, whose keys are its own though the IDs are the same.
func TestCancel_sameKeyInTwoQueues(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	o := Options{IdempotencyKey: "order 7"}
	in := o
	in.Queue = "bulk"
	id := h.first(about("a"), o)
	if other := h.first(about("b"), in); other != id {
		t.Fatalf("%s and %s", other, id)
	}
	h.cancels(id, nil)
	h.cancels(id, ErrNoTask)
	h.again(about("b"), in, id, nil)
	cfg := h.config()
	cfg.Queues = map[string]int{"default": 1, "bulk": 1}
	h.start(cfg)
	h.wait(1)
	h.eventually("kept", func() bool { return h.stateIn("bulk", id) == "completed" })
	if got := h.subjects(); got["b"] != 1 || len(got) != 1 {
		t.Errorf("sent: %v", got)
	}
}
