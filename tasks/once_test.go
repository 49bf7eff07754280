package tasks

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/handover"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// about is a message that differs from others by its subject only, as if made anew.
func about(subject string) *mailer.EmailMessage {
	m := message("ann@example.com")
	m.Subject = subject
	return m.WithDefaults(mailer.Defaults{})
}

// again hands a message over and checks the ID and the error. A nil want is none.
func (h *house) again(m *mailer.EmailMessage, o Options, id string, want error) {
	h.t.Helper()
	got, err := h.queue.With(o).Enqueue(h.t.Context(), m)
	if want == nil && err != nil || want != nil && (err == nil || err.Error() != want.Error()) {
		h.t.Fatalf("Enqueue: %v, want %v", err, want)
	}
	if want == nil && got != id {
		h.t.Errorf("ID %s, want %s", got, id)
	}
	if want != nil && (got != "" || mailer.ClassOf(err) != mailer.Permanent) {
		h.t.Errorf("ID %q, class %v, want none and permanent", got, mailer.ClassOf(err))
	}
}

// handOverError is how an error of the hand-over reads.
func handOverError(err error) error {
	return &mailer.SendError{Class: mailer.Permanent, Step: handover.StepQueue, Err: err}
}

func (h *house) first(m *mailer.EmailMessage, o Options) (id string) {
	h.t.Helper()
	id, err := h.queue.With(o).Enqueue(h.t.Context(), m)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

// A key takes one message, before it is sent and afterwards.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	o := Options{IdempotencyKey: "order 7/confirmation"}
	id := h.first(about("a"), o)
	if !strings.HasPrefix(id, "key-order-7-confirmation-") {
		t.Errorf("ID %s does not show the key", id)
	}
	later := o
	later.ProcessIn, later.MaxRetry, later.Retention = time.Hour, new(1), time.Minute // not content
	other := handOverError(&IdempotencyError{Key: o.IdempotencyKey, ID: id})
	once := o
	once.AtMostOnce = true
	check := func() {
		t.Helper()
		h.again(about("a"), o, id, nil)
		h.again(about("a"), later, id, nil)
		h.again(about("b"), o, "", other)
		h.again(about("a"), once, "", other)
	}
	check()
	if info := h.info(); info.Size != 1 {
		t.Fatalf("%d tasks, want 1", info.Size)
	}
	h.start(h.config())
	h.eventually("the task completed", func() bool { return h.info().Completed == 1 })
	check()
	task, err := inspect(t, h.Server).GetTaskInfo("default", id)
	if err != nil || task.Retention != 24*time.Hour {
		t.Errorf("kept for %v, %v, want a day", task.Retention, err)
	}
	if h.info().Size != 1 || len(h.relay.all()) != 1 {
		t.Errorf("%d tasks, %d messages sent, want 1 and 1", h.info().Size, len(h.relay.all()))
	}
	if err := inspect(t, h.Server).DeleteTask("default", id); err != nil { // as asynq does when its time is over
		t.Fatal(err)
	}
	h.again(about("b"), o, id, nil)
	h.wait(2)
}

// A key of another queue, or of another mailer, is another key. So is one that merely
// looks the same in the ID.
func TestIdempotencyKey_scope(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	for _, o := range []Options{
		{IdempotencyKey: "a b"},
		{IdempotencyKey: "a/b"},
		{IdempotencyKey: "a b", Using: "marketing"},
		{IdempotencyKey: "a b", Queue: "bulk"},
	} {
		if _, err := h.queue.With(o).Enqueue(t.Context(), about(o.IdempotencyKey+o.Using+o.Queue)); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if n := h.info().Size; n != 3 {
		t.Errorf("%d tasks in the default queue, want 3", n)
	}
}

// However many hand over at the same time, and whichever reply is lost, there is one task.
func TestIdempotencyKey_atOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	var evals atomic.Int64
	client.AddHook(lostReply{func(cmd redis.Cmder) bool {
		return strings.HasPrefix(cmd.Name(), "eval") && evals.Add(1)%3 == 0
	}})
	q := NewQueue(client, QueueConfig{Options: Options{IdempotencyKey: "order 7"}})
	var wg sync.WaitGroup
	ids := make([]string, 32)
	for i := range ids {
		wg.Go(func() {
			for ids[i] == "" { // as a caller does whose hand-over fails
				id, err := q.Enqueue(t.Context(), about("a"))
				if err != nil && mailer.ClassOf(err) != mailer.Unavailable {
					t.Error(err)
					return
				}
				ids[i] = id
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two IDs: %s and %s", ids[0], id)
		}
	}
	if n := h.info().Size; n != 1 {
		t.Errorf("%d tasks, want 1", n)
	}
}

// lostReply does what it is told to and then breaks the connection.
type lostReply struct{ lost func(redis.Cmder) bool }

func (lostReply) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l lostReply) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := next(ctx, cmd); err != nil || !l.lost(cmd) {
			return err
		}
		cmd.SetErr(errCut)
		return errCut
	}
}

func (lostReply) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A dead letter keeps its key until it is deleted, and beyond a replay.
func TestIdempotencyKey_deadLetter(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	o := Options{IdempotencyKey: "order 7"}
	letters := NewDeadLetters(h.Client(t))
	id := h.first(about("a"), o)
	var refuse atomic.Bool
	refuse.Store(true)
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		if refuse.Load() {
			return mailer.Result{Err: sendError(mailer.Permanent, 550, "no such user")}
		}
		return mailer.Result{}
	}
	h.start(h.config())
	latest := id
	for n := range 3 { // the second and third time it is the replayed one that is dead
		h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
		dead := handOverError(&DeadLetterError{ID: latest, Queue: "default", Reason: "550 no such user (end of data)"})
		h.again(about("a"), o, "", dead)
		h.again(about("b"), o, "", handOverError(&IdempotencyError{Key: "order 7", ID: latest}))
		if !strings.Contains(dead.Error(), "enqueue dead replay "+latest) {
			t.Errorf("%v does not say how to replay it", dead)
		}
		refuse.Store(n < 2)
		next, err := letters.Replay(t.Context(), "default", latest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := letters.Get("default", latest); !errors.Is(err, ErrNotDead) {
			t.Errorf("the letter that was replayed: %v", err)
		}
		latest = next
	}
	h.wait(1)
	h.eventually("it completed", func() bool { return h.info().Size == 1 && h.info().Completed == 1 })
	h.again(about("a"), o, latest, nil)
	if err := inspect(t, h.Server).DeleteTask("default", latest); err != nil { // its time is over
		t.Fatal(err)
	}
	h.again(about("b"), o, id, nil)
	h.wait(1)
}

func TestIdempotencyKey_deadLetterDeleted(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	o := Options{IdempotencyKey: "order 7"}
	id := h.first(about("a"), o)
	h.bury()
	if err := NewDeadLetters(h.Client(t)).Delete(t.Context(), "default", id); err != nil {
		t.Fatal(err)
	}
	h.again(about("b"), o, id, nil)
}

// A key is free again when its time is over, though refused recipients of its first
// message are still there: those of the second one are not taken for them.
func TestIdempotencyKey_refusedTwice(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		return mailer.Result{Refused: []*mailer.SendError{
			{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: "ann@example.com", Code: 550, Text: "no such user"},
		}}
	}
	h.start(h.config())
	for n := range 2 {
		id := h.first(about("a"), Options{IdempotencyKey: "order 7"})
		h.eventually("a completed task and a dead letter", func() bool {
			return h.info().Completed == 1 && h.info().Archived == n+1
		})
		if err := inspect(t, h.Server).DeleteTask("default", id); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnique(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	o := Options{Unique: time.Minute}
	id := h.first(about("disk full"), o)
	h.again(about("disk full"), o, id, nil)
	h.again(about("disk full"), Options{Unique: time.Hour, ProcessIn: time.Hour}, id, nil)
	if other := h.first(about("disk empty"), o); other == id {
		t.Error("another message has the same ID")
	}
	if other := h.first(about("disk full"), Options{}); other == id {
		t.Error("a message that need not be unique has the same ID")
	}
	task, err := inspect(t, h.Server).GetTaskInfo("default", id)
	if err != nil || task.Retention != time.Minute {
		t.Errorf("kept for %v, %v, want a minute", task.Retention, err)
	}
	h.start(h.config())
	h.wait(3)
	h.eventually("two kept tasks", func() bool { return h.info().Size == 2 && h.info().Completed == 2 })
	h.again(about("disk full"), o, id, nil)
	if h.info().Size != 2 {
		t.Errorf("%d tasks, want 2", h.info().Size)
	}
}

// Big attachments are not sent to Redis again for a message that it has.
func TestIdempotencyKey_bigAttachment(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	o := Options{IdempotencyKey: "order 7"}
	big := about("a")
	big.Attach("a.bin", make([]byte, 100_000), "")
	id := h.first(big, o)
	client := h.Client(t)
	var stored atomic.Bool
	client.AddHook(cut{func(cmds []redis.Cmder) bool {
		for _, c := range cmds {
			for _, arg := range c.Args() {
				if content, ok := arg.([]byte); ok && len(content) == 100_000 {
					stored.Store(true)
				}
			}
		}
		return false
	}})
	h.Client(t).FlushDB(t.Context())
	h.queue = NewQueue(client, QueueConfig{})
	h.again(big, o, id, nil)
	if !stored.Swap(false) {
		t.Fatal("the first hand-over is not seen to store the attachment")
	}
	h.again(big, o, id, nil)
	if stored.Load() {
		t.Error("the attachment was stored again")
	}
	changed := about("a")
	changed.Attach("a.bin", append(make([]byte, 100_000), 'x'), "")
	h.again(changed, o, "", handOverError(&IdempotencyError{Key: "order 7", ID: id}))
}

// asynq takes kept tasks away when their time is over, however many.
func TestKeptTasks_end(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = h.queue.With(Options{Unique: time.Second})
	h.send(1000, nil)
	h.start(h.config())
	h.wait(1000)
	h.nothing()
}
