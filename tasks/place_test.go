package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/handover"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// divided is the queue of a program that knows of so many parts.
func (h *house) divided(parts int, o Options) *Queue {
	return NewQueue(h.Client(h.t), QueueConfig{Shards: parts, BulkSize: 1, Options: o})
}

// putAsBefore puts a task where a program has put it that derived the place of a key from the
// number of parts.
func (h *house) putAsBefore(parts int, o Options, m *mailer.EmailMessage) (id string, place wire.QueueName) {
	h.t.Helper()
	q := h.divided(parts, o)
	p, r := q.prepare(m)
	if r.Err != nil {
		h.t.Fatal(r.Err)
	}
	p.Digest, _ = handover.Digest(p.Message, o)
	id = handover.OnceID(p.Digest, o)
	place = wire.QueueName{Queue: "default", Shard: wire.ShardOf(id, parts)}
	if err := q.client.Enqueue(h.t.Context(), p, id, q.taskOptions(place.String(), p.DueAt)...); err != nil {
		h.t.Fatal(err)
	}
	return id, place
}

// A key is the same key however many parts a program knows of, at the same time and afterwards.
func TestIdempotencyKey_parts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	const keys = 20
	var all sync.WaitGroup
	var mu sync.Mutex
	ids := map[string]bool{}
	for key := range keys {
		for _, parts := range []int{0, 1, 2, 3, 6} {
			q := h.divided(parts, Options{IdempotencyKey: fmt.Sprint(key)})
			all.Go(func() {
				id, err := q.Enqueue(t.Context(), about(fmt.Sprint(key)))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids[id] = true
			})
		}
	}
	all.Wait()
	if len(ids) != keys {
		t.Errorf("%d tasks of %d keys", len(ids), keys)
	}
	cfg := h.config()
	cfg.Shards = 3
	h.start(cfg)
	h.wait(keys)
	for _, parts := range []int{1, 6} {
		for key := range keys {
			if id, err := h.divided(parts, Options{IdempotencyKey: fmt.Sprint(key)}).Enqueue(t.Context(), about(fmt.Sprint(key))); err != nil || !ids[id] {
				t.Errorf("with %d parts: %s, %v", parts, id, err)
			}
		}
	}
	h.eventually("nothing waits", func() bool { return h.info().Pending == 0 && h.info().Active == 0 })
	if n := len(h.relay.all()); n != keys {
		t.Errorf("%d messages sent, want %d", n, keys)
	}
}

// What was handed over when a key's place was a part of the queue is found there, whatever became of it.
func TestIdempotencyKey_placedBefore(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	for n := range 6 {
		o := Options{IdempotencyKey: fmt.Sprint("order ", n)}
		m := about(o.IdempotencyKey)
		id, place := h.putAsBefore(3, o, m)
		for _, parts := range []int{1, 3, 6} {
			if got, err := h.divided(parts, o).Enqueue(t.Context(), m); err != nil || got != id {
				t.Errorf("with %d parts: %s, %v, want %s", parts, got, err, id)
			}
			other := new(IdempotencyError)
			if _, err := h.divided(parts, o).Enqueue(t.Context(), about("another")); !errors.As(err, &other) {
				t.Errorf("another message: %v", err)
			}
		}
		if _, err := inspect(t, h.Server).ArchiveAllPendingTasks(place.String()); err != nil {
			t.Fatal(err)
		}
		dead := new(DeadLetterError)
		if _, err := h.divided(6, o).Enqueue(t.Context(), m); !errors.As(err, &dead) || dead.Queue != place.String() {
			t.Errorf("of a dead letter: %v", err)
		}
		if _, err := NewDeadLetters(h.Client(t)).Replay(t.Context(), place.String(), id); err != nil {
			t.Fatal(err)
		}
		h.cancelsIn(h.divided(6, o), id, nil)
		if got, err := h.divided(6, o).Enqueue(t.Context(), m); err != nil {
			t.Errorf("after it was cancelled: %s, %v", got, err)
		}
	}
	cfg := h.config()
	cfg.Shards = 6
	h.start(cfg)
	h.wait(6)
	h.eventually("nothing waits", func() bool { return h.info().Size == h.info().Completed })
	h.noneTwice(6)
}

func (h *house) cancelsIn(q *Queue, id string, want error) {
	h.t.Helper()
	if err := q.Cancel(h.t.Context(), id); !errors.Is(err, want) {
		h.t.Errorf("Cancel(%s) = %v, want %v", id, err, want)
	}
}

// noneTwice checks that the relay has n messages, with a subject each.
func (h *house) noneTwice(n int) {
	h.t.Helper()
	got := h.subjects()
	for subject, times := range got {
		if times != 1 {
			h.t.Errorf("%q was sent %d times", subject, times)
		}
	}
	if len(got) != n {
		h.t.Errorf("%d messages, want %d", len(got), n)
	}
}

// A message is cancelled wherever it was put: in the whole queue or in any part of it, also one
// of those that the program does not know of, alone or with others.
func TestCancel_anyPart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ then, now int }{{1, 3}, {3, 1}, {3, 6}, {6, 2}} {
		t.Run(fmt.Sprintf("from %d to %d parts", tt.then, tt.now), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			now := h.divided(tt.now, Options{})
			var ids []string
			for _, o := range []Options{{}, {ProcessIn: time.Hour}, {IdempotencyKey: "a", ProcessIn: time.Hour}} {
				for range 6 {
					if o.IdempotencyKey != "" {
						o.IdempotencyKey += "a"
					}
					id, err := h.divided(tt.then, o).Enqueue(t.Context(), about("x"))
					if err != nil {
						t.Fatal(err)
					}
					ids = append(ids, id)
				}
			}
			bulk := NewQueue(h.Client(t), QueueConfig{Shards: tt.then})
			mailer.SendBatch(t.Context(), bulk, mailer.Batch{
				Messages: []*mailer.EmailMessage{about("1"), about("2"), about("3")},
				Report: func(group []mailer.Report) {
					for _, r := range group {
						ids = append(ids, r.Reply)
					}
				},
			})
			for _, id := range ids {
				h.cancelsIn(now, id, nil)
			}
			h.cancelsIn(now, ids[0], ErrNoTask)
			cfg := h.config()
			cfg.Shards = 6
			h.start(cfg)
			h.eventually("no task is left", func() bool {
				n := 0
				for _, name := range []string{"default", "default:mass"} {
					for shard := range 7 {
						q := wire.ParseQueueName(name)
						q.Shard = shard
						if info, err := inspect(t, h.Server).GetQueueInfo(q.String()); err == nil {
							n += info.Size
						}
					}
				}
				return n == 0
			})
			if got := h.relay.all(); len(got) != 0 {
				t.Errorf("%d messages were sent", len(got))
			}
		})
	}
}

// forwarding is a house with a program that does not know the mailers, and a worker that does.
func forwarding(t *testing.T) (h *house, cfg WorkerConfig) {
	t.Helper()
	h = newHouse(t, redistest.Options{})
	cfg = h.config()
	cfg.Mailers = map[string]int{"marketing": 1}
	return h, cfg
}

// stateIn is the state of a task in a queue of asynq's.
func (h *house) stateIn(queue, id string) string {
	return h.Client(h.t).HGet(h.t.Context(), asynqbatch.TaskKey(queue, id), "state").Val()
}

// A message that was forwarded, and is a dead letter there, is one for whoever hands it over again; with or
// without what is left of it in the queue from which it was forwarded, until the letter is deleted.
func TestIdempotencyKey_forwarded(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{Using: "marketing", IdempotencyKey: "order 7"}, {Using: "marketing", Unique: time.Hour}} {
		t.Run("key="+o.IdempotencyKey, func(t *testing.T) {
			t.Parallel()
			h, cfg := forwarding(t)
			var mu sync.Mutex
			refuse := true
			h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
				mu.Lock()
				defer mu.Unlock()
				if refuse {
					return mailer.Result{Err: sendError(mailer.Permanent, 550, "no such user")}
				}
				return mailer.Result{}
			}
			id := h.first(about("a"), o)
			h.again(about("a"), o, id, nil)
			h.start(cfg)
			h.eventually("a dead letter there, and nothing here", func() bool {
				return h.stateIn("marketing.default", id) == "archived" && h.stateIn("default", id) == "completed"
			})
			want := handOverError(&DeadLetterError{ID: id, Queue: "marketing.default", Reason: "550 no such user (end of data)"})
			check := func() {
				t.Helper()
				h.again(about("a"), o, "", want)
				if o.IdempotencyKey != "" {
					h.again(about("b"), o, "", handOverError(&IdempotencyError{Key: "order 7", ID: id}))
				}
			}
			check()
			if err := inspect(t, h.Server).DeleteTask("default", id); err != nil { // its time is over
				t.Fatal(err)
			}
			check()
			letters := NewDeadLetters(h.Client(t))
			again, err := letters.Replay(t.Context(), "marketing.default", id)
			if err != nil {
				t.Fatal(err)
			}
			h.eventually("dead again", func() bool { return h.stateIn("marketing.default", again) == "archived" })
			h.again(about("a"), o, "", handOverError(&DeadLetterError{ID: again, Queue: "marketing.default", Reason: "550 no such user (end of data)"}))
			mu.Lock()
			refuse = false
			mu.Unlock()
			if err := letters.Delete(t.Context(), "marketing.default", again); err != nil {
				t.Fatal(err)
			}
			second := h.first(about("a"), o) // the key is free
			h.wait(1)
			h.eventually("it is kept", func() bool { return h.stateIn("marketing.default", second) == "completed" })
			h.again(about("a"), o, second, nil)
			if got := h.subjects()["a"]; got != 1 {
				t.Errorf("sent %d times", got)
			}
		})
	}
}

// The key of a letter that was deleted is free, though the task that was forwarded is kept for a day.
func TestIdempotencyKey_forwardedDeleted(t *testing.T) {
	t.Parallel()
	h, cfg := forwarding(t)
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.Subject == "a" {
			return mailer.Result{Err: sendError(mailer.Permanent, 550, "no such user")}
		}
		return mailer.Result{}
	}
	o := Options{Using: "marketing", IdempotencyKey: "order 7"}
	id := h.first(about("a"), o)
	h.start(cfg)
	h.eventually("a dead letter there, and nothing here", func() bool {
		return h.stateIn("marketing.default", id) == "archived" && h.stateIn("default", id) == "completed"
	})
	if err := NewDeadLetters(h.Client(t)).Delete(t.Context(), "marketing.default", id); err != nil {
		t.Fatal(err)
	}
	h.first(about("b"), o)
	h.wait(1)
}

// Of two programs of which one knows the mailers either hears what became of the other's message.
func TestIdempotencyKey_oneKnowsTheMailers(t *testing.T) {
	t.Parallel()
	h, cfg := forwarding(t)
	o := Options{Using: "marketing", IdempotencyKey: "order 7"}
	knows := NewQueue(h.Client(t), QueueConfig{Mailers: []string{"marketing"}, Options: o})
	id := h.first(about("a"), o)
	if got, err := knows.Enqueue(t.Context(), about("a")); err != nil || got != id {
		t.Errorf("%s, %v, want %s", got, err, id)
	}
	other := new(IdempotencyError)
	if _, err := knows.Enqueue(t.Context(), about("b")); !errors.As(err, &other) {
		t.Errorf("another message: %v", err)
	}
	h.start(cfg)
	h.wait(1)
	if got, err := knows.Enqueue(t.Context(), about("a")); err != nil || got != id {
		t.Errorf("%s, %v, want %s", got, err, id)
	}
	h.again(about("a"), o, id, nil)
	h.eventually("both are kept", func() bool {
		return h.stateIn("marketing.default", id) == "completed" && h.stateIn("default", id) == "completed"
	})
	h.noneTwice(1)
}

// Two programs that hand over at the same moment, one to the mailer's queue and one to be forwarded, see
// nothing of each other. The same message is sent once, and another one is not lost: it is a dead letter.
func TestIdempotencyKey_forwardedToAnother(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"a", "b"} {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			h, cfg := forwarding(t)
			o := Options{Using: "marketing", IdempotencyKey: "order 7"}
			slow := h.Client(t)
			var id string
			slow.AddHook(newBefore(named("evalsha", "eval"), func() {
				var err error
				id, err = NewQueue(h.Client(t), QueueConfig{Mailers: []string{"marketing"}, Options: o}).Enqueue(t.Context(), about("a"))
				if err != nil {
					t.Error(err)
				}
			}))
			if _, err := NewQueue(slow, QueueConfig{Options: o}).Enqueue(t.Context(), about(subject)); err != nil || id == "" {
				t.Fatal(id, err)
			}
			h.start(cfg)
			h.wait(1)
			state := map[string]string{"a": "completed", "b": "archived"}[subject]
			h.eventually("the forwarded one has ended", func() bool { return h.stateIn("default", id) == state })
			h.noneTwice(1)
			if h.subjects()["a"] != 1 {
				t.Errorf("sent: %v", h.subjects())
			}
		})
	}
}

// A message for a named mailer is cancelled before it is forwarded, afterwards, and when its worker has died on
// the way. Handed over again it is sent, and the first one is not.
func TestCancel_forwarded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		bring func(h *house, id string)
	}{
		{"not yet", func(*house, string) {}},
		{"arrived", func(h *house, id string) { h.forwardByHand(id, "completed") }},
		{"arrived, in a worker's hand", func(h *house, id string) {
			h.forwardByHand(id, "completed")
			client, list := h.Client(h.t), "asynq:{marketing.default}:"
			client.LRem(h.t.Context(), list+"pending", 0, id)
			client.LPush(h.t.Context(), list+"active", id)
			client.HSet(h.t.Context(), asynqbatch.TaskKey("marketing.default", id), "state", "active")
		}},
		{"arrived, but its worker has died", func(h *house, id string) { h.forwardByHand(id, "pending") }},
	} {
		for _, o := range []Options{{Using: "marketing", IdempotencyKey: "order 7"}, {Using: "marketing", Unique: time.Hour}, {Using: "marketing"}} {
			t.Run(fmt.Sprintf("%s/%+v", tt.name, handover.IsOnce(o)), func(t *testing.T) {
				t.Parallel()
				h, cfg := forwarding(t)
				id := h.first(about("first"), o)
				tt.bring(h, id)
				h.cancels(id, nil)
				again := h.first(about("first"), o)
				if handover.IsOnce(o) {
					h.again(about("first"), o, again, nil)
				}
				h.start(cfg)
				h.wait(1)
				h.eventually("all have ended", func() bool {
					there, err := inspect(t, h.Server).GetQueueInfo("marketing.default")
					return err == nil && there.Size == there.Completed+there.Active && h.info().Size == h.info().Completed
				})
				if got := len(h.relay.all()); got != 1 {
					t.Errorf("sent %d times", got)
				}
				if again == id {
					t.Errorf("%s again", id)
				}
			})
		}
	}
}

// forwardByHand does what a worker does that forwards a task, up to a state of the task that it forwards.
func (h *house) forwardByHand(id, state string) {
	h.t.Helper()
	client := h.Client(h.t)
	key := asynqbatch.TaskKey("default", id)
	client.HSet(h.t.Context(), key, wire.FieldWire, wire.Decided)
	info, err := inspect(h.t, h.Server).GetTaskInfo("default", id)
	if err != nil {
		h.t.Fatal(err)
	}
	task := asynq.NewTaskWithHeaders(info.Type, info.Payload, info.Headers)
	_, err = asynq.NewClientFromRedisClient(client).Enqueue(task, asynq.TaskID(id), asynq.Queue("marketing.default"),
		asynq.MaxRetry(info.MaxRetry), asynq.Timeout(info.Timeout), asynq.Retention(info.Retention))
	if err != nil {
		h.t.Fatal(err)
	}
	if state == "completed" {
		client.LRem(h.t.Context(), "asynq:{default}:pending", 0, id)
		if info.Retention == 0 {
			client.Del(h.t.Context(), key)
			return
		}
		client.HSet(h.t.Context(), key, "state", "completed")
		client.ZAdd(h.t.Context(), "asynq:{default}:completed", zAt(time.Now().Add(info.Retention), id))
	}
}

func zAt(at time.Time, id string) redis.Z { return redis.Z{Score: float64(at.Unix()), Member: id} }
