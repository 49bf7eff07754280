package tasks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// before does something before the first command that is like that.
type before struct {
	like func(redis.Cmder) bool
	do   func()
	once *sync.Once
}

func newBefore(like func(redis.Cmder) bool, do func()) before {
	return before{like, do, new(sync.Once)}
}

func (before) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b before) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if b.like(cmd) {
			b.once.Do(b.do)
		}
		return next(ctx, cmd)
	}
}

func (before) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func named(names ...string) func(redis.Cmder) bool {
	return func(cmd redis.Cmder) bool {
		for _, name := range names {
			if cmd.Name() == name {
				return true
			}
		}
		return false
	}
}

// mentions is like the commands that have a text among their arguments.
func mentions(text string) func(redis.Cmder) bool {
	return func(cmd redis.Cmder) bool {
		return slices.ContainsFunc(cmd.Args(), func(arg any) bool {
			s, ok := arg.(string)
			return ok && strings.Contains(s, text)
		})
	}
}

// Whoever replays a letter that somebody else has replayed since he looked at it is told so, and
// the message is sent once: also if it was sent meanwhile.
func TestDeadLetters_replayedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {IdempotencyKey: "order 7"}} {
		t.Run("key="+o.IdempotencyKey, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			id := h.handOver("0", o)
			h.bury()
			h.start(h.config())
			slow := h.Client(t)
			slow.AddHook(newBefore(mentions("-again"), func() {
				if _, err := NewDeadLetters(h.Client(t)).Replay(t.Context(), "default", id); err != nil {
					t.Error(err)
				}
				h.wait(1)
				h.eventually("the message is sent and its task gone", func() bool { return h.info().Size == h.info().Completed })
			}))
			if again, err := NewDeadLetters(slow).Replay(t.Context(), "default", id); !errors.Is(err, ErrNotDead) {
				t.Errorf("Replay = %s, %v, want ErrNotDead", again, err)
			}
			h.eventually("nothing waits", func() bool { return h.info().Size == h.info().Completed })
			if got := h.relay.ids()["<0@t>"]; got != 1 {
				t.Errorf("sent %d times, want once", got)
			}
		})
	}
}

// People who replay all letters at the same time have replayed them all together, each once.
func TestDeadLetters_replayTogether(t *testing.T) {
	t.Parallel()
	const letters, people = 200, 3
	h, d := deadHouse(t, letters)
	h.relay.answer = nil
	ids, err := d.IDs(t.Context(), "default")
	if err != nil || len(ids) != letters {
		t.Fatalf("%d letters, %v", len(ids), err)
	}
	h.start(h.config())
	var replayed atomic.Int64
	var all sync.WaitGroup
	for range people {
		d := NewDeadLetters(h.Client(t))
		all.Go(func() {
			for _, id := range ids {
				switch _, err := d.Replay(t.Context(), "default", id); {
				case err == nil:
					replayed.Add(1)
				case !errors.Is(err, ErrNotDead):
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := replayed.Load(); got != letters {
		t.Errorf("%d replays were done, of %d letters", got, letters)
	}
	h.wait(letters)
	h.eventually("nothing waits", func() bool { return h.info().Size == 0 })
	if got := len(h.relay.all()); got != letters {
		t.Errorf("%d messages sent, want %d", got, letters)
	}
}

// Who has replayed a letter is told so though the answer of Redis was lost.
func TestDeadLetters_replayLostReply(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	id := h.handOver("0", Options{IdempotencyKey: "order 7"})
	h.bury()
	client := h.Client(t)
	var evals atomic.Int64
	client.AddHook(retried{})
	client.AddHook(lostReply{func(cmd redis.Cmder) bool { return named("evalsha", "eval")(cmd) && evals.Add(1) == 1 }})
	again, err := NewDeadLetters(client).Replay(t.Context(), "default", id)
	if err != nil || evals.Load() < 2 {
		t.Errorf("Replay = %s, %v after %d scripts", again, err, evals.Load())
	}
	if task, err := inspect(t, h.Server).GetTaskInfo("default", again); err != nil || h.info().Pending != 1 {
		t.Errorf("%+v, %v, %d waiting", task, err, h.info().Pending)
	}
}

// retried does a command again whose reply was lost.
type retried struct{ lostReply }

func (retried) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := next(ctx, cmd); !errors.Is(err, errCut) {
			return err
		}
		cmd.SetErr(nil)
		return next(ctx, cmd)
	}
}

// A bulk task among the dead letters goes on, wherever it is kept, and once.
func TestDeadLetters_replayBulk(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	d := NewDeadLetters(h.Client(t))
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 10})
	h.send(10, nil)
	queue := wire.QueueName{Queue: "default", Bulk: true}.String()
	if n, err := inspect(t, h.Server).ArchiveAllPendingTasks(queue); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	ids, err := d.IDs(t.Context(), queue)
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	client := h.Client(t)
	client.ZAdd(t.Context(), wire.DeadKey(queue), redis.Z{Score: float64(time.Now().Unix()), Member: ids[0]})
	client.ZRem(t.Context(), archiveKey(queue), ids[0])
	if _, err := d.Replay(t.Context(), queue, ids[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Replay(t.Context(), queue, ids[0]); !errors.Is(err, ErrNotDead) {
		t.Errorf("the second time: %v", err)
	}
	h.start(h.config())
	h.wait(10)
	h.once(10)
}
