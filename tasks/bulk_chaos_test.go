package tasks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/blobstore"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// What these tests break: the moments in which a message leaves its task and goes on as
// another one, and those in which only one worker knows of something.

// dying is a client that writes the ledger's entries and can do nothing else any more once
// dead is set: neither end tasks nor make new ones.
func dying(t *testing.T, h *house, dead *atomic.Bool) redis.UniversalClient {
	t.Helper()
	client := h.Client(t)
	client.AddHook(cut{func(cmds []redis.Cmder) bool {
		return dead.Load() && (asynqs(cmds, "") || has(cmds, "eval", ""))
	}})
	return client
}

// The reply to an at_most_once message is lost, and the worker dies before the dead letter
// is there: the message may have been delivered, so it is not sent.
func TestAtMostOnce_diesInDoubt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		n     int
		queue string
	}{
		{"single", 1, "default"},
		{"mass", 2, "default:mass"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := bulkHouse(t, QueueConfig{Options: Options{AtMostOnce: true}})
			var dead atomic.Bool
			tried := make(chan struct{}, 10)
			h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
				dead.Store(true)
				tried <- struct{}{}
				return mailer.Result{Err: &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: errors.New("connection reset")}}
			}
			h.sendAll(tt.n, nil)
			cfg := h.config()
			cfg.Connections = 1
			stop := h.startOn(dying(t, h, &dead), cfg)
			for range tt.n {
				<-tried
			}
			stop()
			if h.size(tt.queue) != 1 || h.info().Archived != 0 {
				t.Fatal("the worker was to die before the task ended")
			}
			recoverTasksOf(t, h, tt.queue)
			h.relay.answer = nil
			h.start(h.config())
			h.eventually("dead letters", func() bool { return h.info().Archived == tt.n })
			h.once(0)
		})
	}
}

// An attachment that is lost makes its message a dead letter, and the task ends.
func TestBulk_attachmentLost(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	content := brochure(1, 100_000)
	ids := h.sendAll(3, func(i int, m *mailer.EmailMessage) {
		if i == 1 {
			m.Attach("b.pdf", content, "application/pdf")
		}
	})
	if err := h.Client(t).Del(t.Context(), blobKey(blobstore.Hash(content))).Err(); err != nil {
		t.Fatal(err)
	}
	h.start(h.config())
	h.wait(2)
	h.eventually("a dead letter, and no bulk task", func() bool { return h.info().Archived == 1 && h.size("default:mass") == 0 })
	h.once(2)
	letter, err := NewDeadLetters(h.Client(t)).Get("default", ids[1])
	if err != nil || !strings.Contains(letter.Reason, `"b.pdf"`) || len(letter.Missing) != 1 {
		t.Errorf("dead letter %+v, %v", letter, err)
	}
}

// A message is accepted for one recipient and refused for now for another, who has it
// soon after. Then the task comes back, to another worker: nobody gets a second copy.
func TestLater_onceOnly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		n    int
	}{
		{"single", 1},
		{"mass", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := bulkHouse(t, QueueConfig{})
			var tries atomic.Int64
			h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
				if m.MessageID == "<0@t>" && tries.Add(1) == 1 {
					return mailer.Result{Refused: []*mailer.SendError{
						{Class: mailer.Temporary, Step: mailer.StepRcpt, Recipient: "b@example.com", Code: 450, Text: "later"},
					}}
				}
				return mailer.Result{}
			}
			ids := h.sendAll(tt.n, func(i int, m *mailer.EmailMessage) {
				if i == 0 {
					m.To = append(m.To, "b@example.com")
				}
			})
			task, _, _ := wire.SplitID(ids[0])
			queue := "default"
			if tt.n > 1 {
				queue = "default:mass"
			}
			client := h.Client(t)
			var ended atomic.Bool
			client.AddHook(cut{func(cmds []redis.Cmder) bool { // what ends the task, or gives it back
				cuts := endsTask(cmds, task) || asynqs(cmds, asynqbatch.TaskKey(queue, task)) && len(h.relay.all()) >= tt.n
				if cuts {
					ended.Store(true)
				}
				return cuts
			}})
			stop := h.startOn(client, h.config())
			h.wait(tt.n + 1)
			h.eventually("the second recipient's task has ended", func() bool {
				keys := h.Client(t).Keys(t.Context(), "asynq:*:t:*-later").Val()
				return len(keys) == 0 && len(h.relay.all()) == tt.n+1
			})
			stop()
			if !ended.Load() || h.size(queue) != 1 {
				t.Fatalf("%d tasks are left, want the one that could not be ended", h.size(queue))
			}
			recoverTasksOf(t, h, queue)
			h.start(h.config())
			h.allEmpty()
			if got := len(h.relay.all()); got != tt.n+1 {
				t.Errorf("%d messages sent, want %d and one for the second recipient", got, tt.n)
			}
		})
	}
}

// moved is the ledger's entry of a message that has left its bulk task.
const moved = `{"reply":"","moved":true}`

// A message that failed for now leaves its bulk task, and that comes back because Redis
// could not be told of something. The message is sent once.
func TestBulk_leavesOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cuts func(cmds []redis.Cmder, child string) bool // once
		sent bool                                        // before the bulk task comes back
	}{
		{"noted, not enqueued", func(cmds []redis.Cmder, child string) bool { return has(cmds, "evalsha", child) }, false},
		{"enqueued, not noted", func(cmds []redis.Cmder, _ string) bool { return has(cmds, "eval", moved) }, false},
		{"enqueued and sent, not noted", func(cmds []redis.Cmder, _ string) bool { return has(cmds, "eval", moved) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := bulkHouse(t, QueueConfig{})
			var tries atomic.Int64
			h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
				if m.MessageID == "<1@t>" && tries.Add(1) == 1 {
					return mailer.Result{Err: sendError(mailer.Temporary, 450, "later")}
				}
				return mailer.Result{}
			}
			ids := h.sendAll(3, nil)
			task, _, _ := wire.SplitID(ids[1])
			mass, child := asynqbatch.TaskKey("default:mass", task), asynqbatch.TaskKey("default", ids[1])
			client := h.Client(t)
			var cutOnce, healed atomic.Bool
			client.AddHook(cut{func(cmds []redis.Cmder) bool {
				if tt.cuts(cmds, child) && !cutOnce.Swap(true) {
					return true
				}
				stays := tt.sent && !healed.Load() && cutOnce.Load()
				return stays && asynqs(cmds, mass) // asynq does not give it back
			}})
			stop := h.startOn(client, h.config())
			h.wait(3)
			if tt.sent {
				h.eventually("only the bulk task is left", func() bool {
					return len(h.Client(t).Keys(t.Context(), "asynq:*:t:*").Val()) == 1
				})
				stop()
				healed.Store(true)
				recoverTasksOf(t, h, "default:mass")
				h.start(h.config())
			}
			h.allEmpty()
			h.once(3)
			if !cutOnce.Load() {
				t.Error("nothing was cut off")
			}
			if n := tries.Load(); n != 2 {
				t.Errorf("%d tries of the message, want 2", n)
			}
		})
	}
}

// A message is cancelled when it has left its bulk task, and the worker dies before the
// ledger has that. It is not sent when the bulk task comes back.
func TestBulk_cancelledAlone(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<1@t>" {
			return mailer.Result{Err: sendError(mailer.Temporary, 450, "later")}
		}
		return mailer.Result{}
	}
	ids := h.sendAll(3, nil)
	task, _, _ := wire.SplitID(ids[1])
	client := h.Client(t)
	client.AddHook(cut{func(cmds []redis.Cmder) bool { // and asynq does not give the task back
		return has(cmds, "eval", moved) || asynqs(cmds, asynqbatch.TaskKey("default:mass", task))
	}})
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	stop := h.startOn(client, cfg)
	h.wait(2)
	h.eventually("a task of its own", func() bool { return h.info().Retry == 1 })
	stop()
	h.cancels(ids[1], nil)
	recoverTasksOf(t, h, "default:mass")
	h.relay.answer = nil
	h.start(h.config())
	h.allEmpty()
	h.once(2)
}

// A bulk task that was given out again belongs to the worker that has it now: the one
// that had it before makes no tasks of its messages.
func TestBulk_takenAway(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	ids := h.sendAll(2, nil)
	task, _, _ := wire.SplitID(ids[0])
	client := h.Client(t)
	l := newTestLedger(client)
	key := asynqbatch.TaskKey("default:mass", task)
	activate(t, client, key)
	for _, tt := range []struct {
		name, owner, slot string
		ours              bool
	}{
		{"another worker's", "another", ".0", false},
		{"ours", "", ".0", true},
		{"left before", "", ".0", false},
		{"cancelled", "", ".1", false},
	} {
		client.HSet(t.Context(), key, wire.FieldOwner, tt.owner)
		if tt.name == "cancelled" {
			h.cancels(ids[1], nil)
		}
		m := &taskMessage{queue: "default:mass", id: task + tt.slot, key: key, suffix: tt.slot, payload: &wire.Payload{}}
		ours, o, err := l.leaves(t.Context(), m, wire.Remainder{Spent: 1}, "")
		if (err != nil) != (tt.owner != "") || ours != tt.ours || (o.verdict.Action == drop) != (tt.name == "cancelled") {
			t.Errorf("%s: leaves = %v, %+v, %v, want %v", tt.name, ours, o, err, tt.ours)
		}
	}
}

// What Redis could not be told of is written down when it answers again, also if no other
// message is sent: another worker may get the task.
func TestLedger_restoresByItself(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.send(1, nil)
	client := h.Client(t)
	var away atomic.Bool
	client.AddHook(cut{func([]redis.Cmder) bool { return away.Load() }})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		away.Store(true)
		return mailer.Result{}
	}
	log := &lineCounter{}
	cfg := h.config()
	cfg.Logger = log.logger()
	h.startOn(client, cfg)
	h.wait(1)
	h.eventually("Redis could not be told", func() bool {
		return slices.ContainsFunc(log.all(), func(line string) bool { return strings.Contains(line, "remembered here") })
	})
	reader := h.Client(t)
	id := reader.LRange(t.Context(), "asynq:{default}:active", 0, -1).Val()
	if len(id) != 1 {
		t.Fatalf("active tasks: %v, want one", id)
	}
	away.Store(false)
	h.eventually("an entry, or the task's end", func() bool {
		return reader.HExists(t.Context(), asynqbatch.TaskKey("default", id[0]), wire.FieldSent).Val() || h.info().Size == 0
	})
}

// A worker that stops while Redis does not answer writes down what it knows when Redis is
// back before it is gone.
func TestLedger_restoresAtEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.send(1, nil)
	client, err := redisconn.ConnectWorker(h.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	var away atomic.Bool
	client.AddHook(cut{func(cmds []redis.Cmder) bool {
		return away.Load() || has(cmds, "evalsha", "asynq:{default}:lease") && len(h.relay.all()) > 0 // asynq ends no task
	}})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		away.Store(true)
		return mailer.Result{}
	}
	stop := h.startOn(client, h.config())
	h.wait(1)
	back := time.AfterFunc(300*time.Millisecond, func() { away.Store(false) })
	defer back.Stop()
	stop()
	recoverTasks(t, h)
	h.relay.answer = nil
	h.start(h.config())
	h.empty()
	h.once(1)
}

// What is noted of a message is true in the memory of the worker too.
func TestLedger_noteIsRemembered(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	ids := h.sendAll(2, nil)
	task, _, _ := wire.SplitID(ids[0])
	l := newTestLedger(h.Client(t))
	m := &taskMessage{key: asynqbatch.TaskKey("default:mass", task), suffix: ".0", payload: &wire.Payload{}}
	name := entryName(m.key, "", m.suffix)
	l.recent.Put(name, `{"reply":"250 Ok","refused":[{"recipient":"b@example.com"}]}`)
	if err := l.note(t.Context(), m, wire.Record{Reply: "250 Ok"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := l.remembered(name); got != `{"reply":"250 Ok"}` {
		t.Errorf("remembered %s", got)
	}
}

// fail_silently is one try, whatever becomes of the others in the task.
func TestBulk_silentOnce(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	half, release := make(chan struct{}), make(chan struct{})
	var tries atomic.Int64
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		switch m.MessageID {
		case "<0@t>":
			tries.Add(1)
			return mailer.Result{Err: sendError(mailer.Temporary, 450, "later")}
		case "<50@t>":
			close(half)
			<-release
		}
		return mailer.Result{}
	}
	h.sendAll(100, func(i int, m *mailer.EmailMessage) { m.FailSilently = i == 0 })
	cfg := h.config()
	cfg.Connections, cfg.BatchSize = 1, 30
	end, done := h.run(cfg)
	<-half
	end()
	close(release)
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if h.size("default:mass") != 1 {
		t.Fatal("the worker was not stopped in the middle")
	}
	answer := h.relay.answer
	h.relay.answer = func(ctx context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<0@t>" {
			return answer(ctx, m)
		}
		return mailer.Result{}
	}
	h.start(h.config())
	h.allEmpty()
	h.once(99)
	if n := tries.Load(); n != 1 {
		t.Errorf("%d tries of a message that may fail silently, want 1", n)
	}
}

// The relay says "later" to what is on the wire when the time of its task is up. The task is
// given back, and not kept by a worker that cannot send it: another one can.
func TestHold_timeIsUp(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"single": 1, "mass": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := bulkHouse(t, QueueConfig{Options: Options{MaxRetry: new(0)}})
			busy := newRelay()
			busy.goesAway() // so that it does not get a message again before its worker has stopped
			answer := busy.answer
			busy.answer = func(ctx context.Context, m *mailer.EmailMessage) mailer.Result {
				select {
				case <-ctx.Done():
				case <-time.After(3 * time.Second): // the relay answers after the task's time is up
				}
				return answer(ctx, m)
			}
			h.sendAll(n, nil)
			cfg := h.config()
			cfg.BatchTimeout, cfg.ReplyTimeout, cfg.TaskTimeout = 2*time.Second, 2*time.Second, 5*time.Second // handlers give up after two seconds
			other := cfg
			cfg.Connect = busy.connect
			back := make(chan GivenBack, 100)
			cfg.Observers = []Observer{{Back: func(b GivenBack) { back <- b }}}
			stop := h.start(cfg)
			<-back
			stop()
			h.start(other)
			h.wait(n)
			h.allEmpty()
			h.once(n)
		})
	}
}

// What is left of a message may take as long as the message: a shorter time may be less than
// a worker leaves for one batch.
func TestRest_timeout(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{TaskTimeout: 2 * time.Hour})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		switch m.MessageID {
		case "<0@t>":
			return mailer.Result{Err: sendError(mailer.Temporary, 450, "later")}
		case "<1@t>":
			return mailer.Result{Refused: []*mailer.SendError{
				{Class: mailer.Temporary, Step: mailer.StepRcpt, Recipient: "b@example.com", Code: 450, Text: "later"},
			}}
		}
		return mailer.Result{Err: sendError(mailer.Permanent, 550, "never")}
	}
	h.sendAll(3, func(_ int, m *mailer.EmailMessage) { m.To = append(m.To, "b@example.com") })
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	h.start(cfg)
	h.eventually("two tasks wait, and one is a dead letter", func() bool { return h.info().Retry == 2 && h.info().Archived == 1 })
	waiting, err := inspect(t, h.Server).ListRetryTasks("default")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range append(waiting, h.archived()...) {
		if info.Timeout != 2*time.Hour {
			t.Errorf("%s may take %v, want two hours", info.ID, info.Timeout)
		}
	}
}

// A worker that is told to stop before it has begun has nothing to complain about.
func TestWorker_stoppedAtStart(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	w, err := NewWorker(h.Client(t), h.config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}
