package sweep_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/sweep"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// lose takes a task out of every list of its queue and gives it a state.
func (h *house) lose(queue, id, state string, fields ...any) {
	h.t.Helper()
	prefix := "asynq:{" + queue + "}:"
	h.redis.LRem(h.t.Context(), prefix+"pending", 0, id)
	if err := h.redis.HSet(h.t.Context(), prefix+"t:"+id, append(fields, "state", state)...).Err(); err != nil {
		h.t.Fatal(err)
	}
}

// Tasks of ours that no list names are dead letters. Everything else stays as it is, in short queues and in long ones.
func TestLost(t *testing.T) {
	t.Parallel()
	for _, waiting := range []int{0, 500} {
		t.Run(fmt.Sprint(waiting, " waiting"), func(t *testing.T) {
			t.Parallel()
			testLost(t, waiting)
		})
	}
}

func testLost(t *testing.T, waiting int) {
	h := newHouse(t)
	mail := h.payload(time.Now())
	for i := range waiting {
		h.put(fmt.Sprint("waiting ", i), wire.TaskType, mail)
		h.put(fmt.Sprint("in hand ", i), wire.TaskType, mail, asynq.Queue("busy"))
	}
	for range waiting {
		h.redis.LMove(t.Context(), "asynq:{busy}:pending", "asynq:{busy}:active", "right", "left")
	}
	for i := range waiting {
		h.redis.HSet(t.Context(), fmt.Sprint("asynq:{busy}:t:in hand ", i), "state", "active")
	}
	for _, state := range []string{"pending", "active", "scheduled", "retry", "archived", "completed"} {
		h.put(state, wire.TaskType, mail)
		h.lose("default", state, state)
	}
	h.redis.HDel(t.Context(), "asynq:{default}:t:pending", "pending_since") // as one that was given back
	h.put("bulk", wire.TaskTypeBulk, append(mail, '\n'), asynq.Queue("default:mass"))
	h.lose("default:mass", "bulk", "pending")
	h.put("doubtful", wire.TaskType, mail)
	h.lose("default", "doubtful", "active", wire.FieldWire, "token")
	h.put("sent", wire.TaskType, mail)
	h.lose("default", "sent", "active", wire.FieldSent, `{"reply":"250 Ok"}`)
	h.put("sent with a key", wire.TaskType, mail, asynq.Retention(time.Hour))
	h.lose("default", "sent with a key", "active", wire.FieldSent, `{"reply":"250 Ok"}`)
	h.put("cancelled", wire.TaskType, mail)
	h.lose("default", "cancelled", "pending", wire.FieldCancelled, "1")
	h.put("foreign", "their:type", mail)
	h.lose("default", "foreign", "pending")
	h.put("replayed", wire.TaskType, mail)
	h.lose("default", "replayed", "completed", wire.FieldReplayed, "x")
	h.put("later", wire.TaskType, mail, asynq.ProcessIn(time.Hour))
	h.redis.Del(t.Context(), "asynq:queues") // Redis has forgotten them

	h.sweep(h.sweeper.SweepLost)
	h.wantDead("default", "pending", "active", "scheduled", "retry", "archived", "doubtful")
	h.wantDead("default:mass", "bulk")
	h.wantDead("busy")
	h.wantReason("default", "pending", "it was pending, and in no list")
	h.wantReason("default", "doubtful", "may have delivered it")
	h.wantReason("default", "archived", "archived by hand")
	if h.swept[sweep.Lost] != 7 {
		t.Errorf("%v were reported, want 7", h.swept)
	}
	states := map[string]string{
		"completed": "completed", "foreign": "pending", "replayed": "completed", "later": "scheduled", "sent": "", "cancelled": "", "sent with a key": "completed",
	}
	for id, want := range states {
		if got := h.redis.HGet(t.Context(), "asynq:{default}:t:"+id, "state").Val(); got != want {
			t.Errorf("%s is %q, want %q", id, got, want)
		}
	}
	if left := time.Until(time.Unix(int64(h.redis.ZScore(t.Context(), "asynq:{default}:completed", "sent with a key").Val()), 0)); left < 50*time.Minute {
		t.Errorf("the key stays taken for %v, want an hour", left)
	}
	if n := h.redis.LLen(t.Context(), "asynq:{default}:pending").Val(); int(n) != waiting {
		t.Errorf("%d are waiting, want %d", n, waiting)
	}
}

// afterScripts is called after each script of a client.
type afterScripts func()

// DialHook implements redis.Hook.
func (afterScripts) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (afterScripts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements redis.Hook.
func (f afterScripts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if strings.HasPrefix(cmd.Name(), "eval") {
			f()
		}
		return err
	}
}

// A task that has changed between the two looks is not lost, for whatever changes a task knows where it is.
func TestLost_changes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][]any{
		"taken and given back": {"pending_since", "12345"},
		"taken":                {"state", "active"},
		"sent":                 {wire.FieldSent, "{}"},
		"cancelled":            {wire.FieldCancelled, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.put("x", wire.TaskType, h.payload(time.Now()))
			h.lose("default", "x", "pending")
			const key = "asynq:{default}:t:x"
			h.redis.HDel(t.Context(), key, "pending_since")
			changed := false
			h.redis.AddHook(afterScripts(func() {
				if !changed && h.redis.HGet(t.Context(), key, "pending_since").Val() != "" { // it is marked
					changed = true
					h.redis.HSet(t.Context(), key, change...)
				}
			}))
			if err := h.sweeper.SweepLost(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !changed {
				t.Error("it was not marked")
			}
			h.wantDead("default")
		})
	}
}

// What asynq's own tools have dropped from its archive is found, with the reason that it had.
func TestLost_archivedByOthers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const n = 12_000
	mail := h.payload(time.Now())
	for i := range n {
		h.put(fmt.Sprint(i), wire.TaskType, mail)
	}
	inspector := asynq.NewInspectorFromRedisClient(h.redis)
	if _, err := inspector.ArchiveAllPendingTasks("default"); err != nil {
		t.Fatal(err)
	}
	if got, err := h.letters.Count(t.Context(), "default"); err != nil || got >= n {
		t.Fatalf("%d dead letters, %v: asynq has dropped none", got, err)
	}
	h.sweep(h.sweeper.SweepLost)
	if got, err := h.letters.Count(t.Context(), "default"); err != nil || got != n {
		t.Errorf("%d dead letters, %v, want %d", got, err, n)
	}
}

// relay is a backend that takes most messages, puts some off, and does not answer at times.
type relay struct {
	mu    sync.Mutex
	mails map[string]int
	away  atomic.Bool
}

// Open implements mailer.Backend.
func (r *relay) Open(context.Context) (bool, error) {
	if r.away.Load() {
		return false, &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Text: "away"}
	}
	return true, nil
}

// Close implements mailer.Backend.
func (r *relay) Close() error { return nil }

// SendMessages implements mailer.Backend.
func (r *relay) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, r, messages)
}

// SendBatch implements mailer.BatchSender.
func (r *relay) SendBatch(_ context.Context, b mailer.Batch) {
	for i, m := range b.Messages {
		var result mailer.Result
		if b.Begin != nil {
			m, result.Err = b.Begin(i)
		}
		switch {
		case result.Err != nil:
		case r.away.Load():
			result.Err = &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepMail, Code: 421, Text: "away"}
		case rand.N(10) == 0:
			result.Err = &mailer.SendError{Class: mailer.Temporary, Step: mailer.StepMail, Code: 450, Text: "later"}
		default:
			result.Reply = "250 Ok"
			r.mu.Lock()
			r.mails[m.MessageID]++
			r.mu.Unlock()
		}
		b.Report([]mailer.Report{{Index: i, Result: result}})
	}
}

func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mails)
}

// While mail is handed over, fetched, put off, given back, forwarded and sent, by workers that come and go, no task is
// taken for lost.
func TestLost_underLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	h := &house{t: t, redis: server.Client(t), swept: map[sweep.Why]int{}}
	h.sweeper = sweep.New(h.redis, h.config().Quick())
	h.letters = tasks.NewDeadLetters(h.redis)
	const producers, each = 4, 1000
	r := &relay{mails: map[string]int{}}
	ctx, stop := context.WithCancel(t.Context())
	var all, swept sync.WaitGroup
	var sweeps atomic.Int32
	swept.Go(func() {
		for ctx.Err() == nil {
			if err := h.sweeper.SweepLost(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			sweeps.Add(1)
		}
	})
	for range 3 {
		all.Go(func() {
			for ctx.Err() == nil { // each worker lives for a while, some until asynq looks for retries that are due
				life, end := context.WithTimeout(ctx, 300*time.Millisecond+rand.N(1200*time.Millisecond))
				work(life, t, server, r)
				end()
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			r.away.Store(rand.N(3) == 0)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	produce(t, h.redis, producers, each)
	for r.count() < producers*each && t.Context().Err() == nil {
		if dead, err := h.letters.Count(t.Context(), "default"); err != nil || dead > 0 {
			t.Errorf("%d dead letters, %v", dead, err)
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	stop()
	all.Wait()
	swept.Wait()
	t.Logf("%d sweeps", sweeps.Load())
	if len(h.swept) != 0 || sweeps.Load() < 3 {
		t.Errorf("%v taken for lost in %d sweeps", h.swept, sweeps.Load())
	}
	for id, n := range r.mails {
		if n != 1 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
}

// work is a worker that lives until ctx ends.
func work(ctx context.Context, t *testing.T, server *redistest.Server, r *relay) {
	client, err := redisconn.ConnectWorker(server.URL())
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = client.Close() }()
	w, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect: func(string) (mailer.Backend, error) { return r, nil }, Mailers: map[string]int{"alerts": 1},
		Connections: 2, BatchSize: 10, RetryMin: time.Millisecond, RetryMax: 5 * time.Millisecond,
	})
	if err == nil {
		err = w.Run(ctx)
	}
	if err != nil && ctx.Err() == nil {
		t.Error(err)
	}
}

// produce hands mail over, a third of it for another mailer, which the program does not know, and a third of it as bulk
// mail.
func produce(t *testing.T, client redis.UniversalClient, producers, each int) {
	t.Helper()
	var all sync.WaitGroup
	for p := range producers {
		all.Go(func() {
			for i := range each / 10 {
				q := tasks.NewQueue(client, tasks.QueueConfig{BulkSize: 1 + 4*(i%3/2), Options: tasks.Options{Using: strings.Repeat("alerts", i%3%2)}})
				var mails []*mailer.EmailMessage
				for k := range 10 {
					mails = append(mails, &mailer.EmailMessage{
						Subject: "x", Body: "y", FromEmail: "a@x.example", To: []string{"b@x.example"}, MessageID: fmt.Sprintf("<%d.%d.%d@x>", p, i, k),
					})
				}
				if n, err := q.SendMessages(t.Context(), mails); n != len(mails) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
