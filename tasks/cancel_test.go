package tasks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
)

// handOver queues one message with the Message-ID <name@t>.
func (h *house) handOver(name string, o Options) (id string) {
	h.t.Helper()
	m := message("ann@example.com")
	m.MessageID, m.Subject = "<"+name+"@t>", name
	id, err := h.queue.With(o).Enqueue(h.t.Context(), m)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *house) cancels(id string, want error) {
	h.t.Helper()
	if err := h.queue.Cancel(h.t.Context(), id); !errors.Is(err, want) {
		h.t.Errorf("Cancel = %v, want %v", err, want)
	}
}

// nothing checks that no task and no record of one is left.
func (h *house) nothing() {
	h.t.Helper()
	h.empty()
	if keys := h.Client(h.t).Keys(h.t.Context(), "asynq:{default}:t:*").Val(); len(keys) != 0 {
		h.t.Errorf("records left: %v", keys)
	}
}

func TestCancel_waiting(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		give   Options
		before func(h *house)
		state  asynq.TaskState
	}{
		{"pending", Options{}, func(*house) {}, asynq.TaskStatePending},
		{"scheduled", Options{ProcessIn: time.Hour}, func(*house) {}, asynq.TaskStateScheduled},
		{"refused for now", Options{}, func(h *house) {
			h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
				return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
			}
			cfg := h.config()
			cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
			stop := h.start(cfg)
			h.eventually("a task to be tried again", func() bool { return h.info().Retry == 1 })
			stop()
			h.relay.answer = nil
		}, asynq.TaskStateRetry},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			id := h.handOver("0", tt.give)
			tt.before(h)
			task, err := inspect(t, h.Server).GetTaskInfo("default", id)
			if err != nil || task.State != tt.state {
				t.Fatalf("the task is %+v, %v, want %v", task, err, tt.state)
			}
			h.cancels(id, nil)
			h.nothing()
			h.cancels(id, ErrNoTask)
		})
	}
}

// blocked starts a worker with one connection, on which the message <0@t> waits until
// release is called.
func (h *house) blocked() (release func()) {
	h.t.Helper()
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
	h.start(cfg)
	<-reached
	return sync.OnceFunc(func() { close(free) })
}

// What a worker has is dropped if it is not on the wire, and delivered if it is.
func TestCancel_active(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	onWire := h.handOver("0", Options{Retention: time.Hour})
	release := h.blocked()
	defer release()
	waiting := h.handOver("1", Options{})
	kept := h.handOver("2", Options{Retention: time.Hour})
	h.eventually("the worker has all", func() bool { return h.info().Active == 3 })
	h.cancels(onWire, ErrTooLate)
	h.cancels(waiting, nil)
	h.cancels(waiting, nil) // as often as one likes
	h.cancels(kept, nil)
	release()
	h.eventually("one task left", func() bool { return h.info().Size == 1 && h.info().Completed == 1 })
	h.once(1)
	h.cancels(onWire, ErrTooLate)
	h.cancels(waiting, ErrNoTask)
	h.cancels(kept, ErrNoTask)
}

func TestCancel_ended(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	kept, gone := h.handOver("kept", Options{Retention: time.Hour}), h.handOver("gone", Options{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<dead@t>" {
			return mailer.Result{Err: sendError(mailer.Permanent, 550, "no")}
		}
		return mailer.Result{}
	}
	dead := h.handOver("dead", Options{})
	h.start(h.config())
	h.eventually("one kept and one dead", func() bool {
		info := h.info()
		return info.Size == 2 && info.Completed == 1 && info.Archived == 1
	})
	h.cancels(kept, ErrTooLate)
	h.cancels(gone, ErrNoTask)
	h.cancels(dead, ErrTooLate)
	h.cancels("NOSUCHID", ErrNoTask)
	if h.info().Archived != 1 {
		t.Error("the dead letter is gone")
	}
}

// While the relay takes no mail, what waits for it can be cancelled, tried or not.
func TestCancel_held(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	tried, back := h.relay.goesAway()
	first := h.handOver("0", Options{})
	h.start(h.config())
	<-tried
	h.eventually("the task off the wire, and in Redis", func() bool {
		return h.info().Pending == 1 && !h.Client(t).HExists(t.Context(), asynqbatch.TaskKey("default", first), wire.FieldWire).Val()
	})
	second := h.handOver("1", Options{})
	h.handOver("2", Options{})
	h.cancels(first, nil)
	h.cancels(second, nil)
	back()
	h.wait(1)
	h.nothing()
	h.once(1)
}

// After a try whose reply was lost the message may have been delivered.
func TestCancel_unknown(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var tries atomic.Int64
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		if tries.Add(1) == 1 {
			return mailer.Result{Err: &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: errors.New("connection reset")}}
		}
		return mailer.Result{}
	}
	id := h.handOver("0", Options{})
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	h.start(cfg)
	h.eventually("a task to be tried again", func() bool { return h.info().Retry == 1 })
	h.cancels(id, ErrTooLate)
	if h.info().Retry != 1 {
		t.Error("the task is gone")
	}
}

// A cancelled message does not come up as a dead letter either.
func TestCancel_expired(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	past := time.Now().Add(-time.Minute)
	for _, id := range []string{"cancelled", "expired"} {
		p := &wire.Payload{Meta: wire.Meta{DueAt: past, Deadline: new(past)}, Message: message("ann@example.com")}
		if err := producer.New(h.Client(t)).Enqueue(t.Context(), p, id); err != nil {
			t.Fatal(err)
		}
	}
	h.Client(t).HSet(t.Context(), asynqbatch.TaskKey("default", "cancelled"), wire.FieldCancelled, "1") // and then given back
	h.start(h.config())
	h.eventually("one dead letter", func() bool { return h.info().Size == 1 && h.info().Archived == 1 })
	if letter := h.archived()[0]; letter.ID != "expired" {
		t.Errorf("the dead letter is %s", letter.ID)
	}
	if len(h.relay.all()) != 0 {
		t.Error("a message was sent")
	}
}

// A worker that lost its lease does not send what was cancelled meanwhile, and sends
// what Redis has forgotten. Neither leaves a record behind.
func TestCancel_leaseLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	id := h.handOver("0", Options{})
	h.cancels(id, nil)
	cancelled, forgotten := newTry(id), newTry("forgotten")
	l := newTestLedger(client)
	l.records = surely{l.records}
	left, err := l.unsent(t.Context(), []*delivery{cancelled, forgotten}, 2)
	if err != nil || len(left) != 1 || left[0] != forgotten {
		t.Fatalf("unsent = %v, %v, want the forgotten one", left, err)
	}
	if o := cancelled.outcome; o.verdict.Action != drop {
		t.Errorf("the cancelled one: %+v", o)
	}
	l.finish(left, nil, func() {})
	h.nothing()
}

// The wire mark of a try is not taken back by the end of another one.
func TestOffWire_ofAnotherTry(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	key := asynqbatch.TaskKey("default", h.handOver("0", Options{}))
	client.HSet(t.Context(), key, wire.FieldWire, "new")
	l := newTestLedger(client)
	l.released([]*delivery{{key: key, token: "old", marked: true}})
	if got := client.HGet(t.Context(), key, wire.FieldWire).Val(); got != "new" {
		t.Errorf("wire mark %q, want the new try's", got)
	}
	l.released([]*delivery{{key: key, token: "new", marked: true}})
	if client.HExists(t.Context(), key, wire.FieldWire).Val() {
		t.Error("the mark is still there")
	}
}

// A dead letter that is replayed is cancelled by its old ID too.
func TestCancel_replayed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	id := h.handOver("0", Options{IdempotencyKey: "order 7"})
	h.bury()
	if _, err := NewDeadLetters(h.Client(t)).Replay(t.Context(), "default", id); err != nil {
		t.Fatal(err)
	}
	h.cancels(id, nil)
	h.empty()
	h.cancels(id, ErrNoTask)
}

// bury makes dead letters of what waits.
func (h *house) bury() {
	h.t.Helper()
	if _, err := inspect(h.t, h.Server).ArchiveAllPendingTasks("default"); err != nil {
		h.t.Fatal(err)
	}
}

// A message that a worker has put into a named mailer's queue is found there.
func TestCancel_namedMailer(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	knows := NewQueue(h.Client(t), QueueConfig{Mailers: []string{"marketing"}})
	id, err := knows.With(Options{Using: "marketing"}).Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inspect(t, h.Server).GetTaskInfo("marketing.default", id); err != nil {
		t.Fatal(err)
	}
	h.cancels(id, nil)
	h.cancels(id, ErrNoTask)
}

func TestCancel_redisDown(t *testing.T) {
	t.Parallel()
	client, err := Connect("redis://127.0.0.1:1/0?dial_timeout=200ms&max_retries=-1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := NewQueue(client, QueueConfig{}).Cancel(t.Context(), "X"); mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("Cancel = %v, want Unavailable", err)
	}
}

// between runs a pipeline command by command, and does something before the n-th one.
type between struct {
	n  int
	do func()
}

func (between) DialHook(next redis.DialHook) redis.DialHook { return next }
func (b between) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if b.n == 0 {
			b.do()
		}
		err := next(ctx, cmd)
		if b.n == 1 {
			b.do()
		}
		return err
	}
}

func (b between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// At whatever moment of a worker's look into the ledger a cancellation comes, one of
// the two wins and the other sees it.
func TestCancel_everyMoment(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var won [2]int
	for _, once := range []string{"", "T"} {
		for n := range 2 { // before the one command and after it
			id := h.handOver("0", Options{})
			key := asynqbatch.TaskKey("default", id)
			client := h.Client(t)
			client.HSet(t.Context(), key, "state", "active")
			var err error
			client.AddHook(between{n, func() { err = h.queue.Cancel(t.Context(), id) }})
			d := newTry(id)
			d.onceToken = once
			left, ledgerErr := newTestLedger(client).unsent(t.Context(), []*delivery{d}, 1)
			switch {
			case ledgerErr != nil:
				t.Error(ledgerErr)
			case err == nil && len(left) == 0:
				won[0]++
			case errors.Is(err, ErrTooLate) && len(left) == 1:
				won[1]++
			default:
				t.Errorf("cancelled before command %d: %v, and %d messages to be sent", n, err, len(left))
			}
		}
	}
	if won[0] == 0 || won[1] == 0 {
		t.Errorf("won by the cancellation %d times, by the worker %d times", won[0], won[1])
	}
}

// Whatever the worker is doing: a message is cancelled and never delivered, or it is
// too late and it is delivered.
func TestCancel_race(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{Retention: time.Hour}, {Retention: time.Hour, AtMostOnce: true}} {
		t.Run(fmt.Sprintf("at_most_once=%v", o.AtMostOnce), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			const n = 600
			ids := make([]string, n)
			for i := range ids {
				ids[i] = h.handOver(fmt.Sprint(i), o)
			}
			h.relay.answer = temporarily()
			cfg := h.config()
			cfg.BatchSize, cfg.Concurrency = 5, 40
			stop := h.start(cfg)
			h.wait(10)
			results := make([]error, n)
			var cancelling sync.WaitGroup
			for from := range 4 { // all run after the place that the worker has come to
				cancelling.Go(func() {
					for i := from; i < n; i += 4 {
						results[i] = h.queue.Cancel(t.Context(), ids[i])
					}
				})
			}
			cancelling.Wait()
			h.eventually("all tasks ended", func() bool { return h.info().Size == h.info().Completed })
			stop()
			h.judge(results)
		})
	}
}

// temporarily is a relay that refuses every fifth message once.
func temporarily() func(context.Context, *mailer.EmailMessage) mailer.Result {
	var seen sync.Map
	return func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		_, again := seen.LoadOrStore(m.MessageID, true)
		if !again && strings.HasSuffix(m.MessageID, "5@t>") {
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
		}
		return mailer.Result{}
	}
}

// judge compares what Cancel said of the messages <0@t>... with what the relay has.
func (h *house) judge(results []error) {
	h.t.Helper()
	ids := h.relay.ids()
	cancelled := 0
	for i, err := range results {
		count := ids[fmt.Sprintf("<%d@t>", i)]
		switch {
		case err == nil:
			cancelled++
			if count != 0 {
				h.t.Errorf("message %d was cancelled and delivered %d times", i, count)
			}
		case !errors.Is(err, ErrTooLate):
			h.t.Errorf("message %d: %v", i, err)
		case count != 1:
			h.t.Errorf("message %d was too late to cancel and delivered %d times", i, count)
		}
	}
	h.t.Logf("%d of %d cancelled", cancelled, len(results))
	if cancelled == 0 || cancelled == len(results) {
		h.t.Error("there was no race")
	}
}
