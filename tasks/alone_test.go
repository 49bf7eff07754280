package tasks

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/isolation"
)

// killer is the subject of the message that kills the process which renders it.
const killer = "kills its worker"

// mortal delivers to a list in Redis, and is killed as by the kernel when memory runs out.
type mortal struct{ redis redis.UniversalClient }

func (m *mortal) Open(context.Context) (bool, error) { return true, nil }
func (m *mortal) Close() error                       { return nil }

func (m *mortal) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	for _, e := range messages {
		if e.Subject == killer {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		if err := m.redis.HIncrBy(ctx, "delivered", e.MessageID, 1).Err(); err != nil {
			return 0, err
		}
	}
	return len(messages), nil
}

// TestMortalWorker is not a test: it is the worker of TestAlone_killer, in a process of its own.
func TestMortalWorker(t *testing.T) {
	url := os.Getenv("MORTAL_WORKER")
	if url == "" {
		t.SkipNow()
	}
	client, err := redisconn.ConnectWorker(url)
	if err != nil {
		t.Fatal(err)
	}
	log := zerolog.New(os.Stderr)
	w, err := NewWorker(client, WorkerConfig{
		Connect:     func(string) (mailer.Backend, error) { return &mortal{client}, nil },
		Connections: 1, BatchSize: 20, RetryMin: time.Millisecond, RetryMax: 2 * time.Millisecond, Logger: &log,
		Events: EventLog{On: client.Exists(t.Context(), "mailpouch:{default}:events", "mailpouch:{default:mass}:events").Val() > 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Run(t.Context())
}

// expireScript lets the leases of the tasks in hand run out: their worker is dead.
const expireScript = `
local ids = redis.call("ZRANGE", KEYS[1], 0, -1)
for _, id in ipairs(ids) do redis.call("ZADD", KEYS[1], ARGV[1], id) end
return #ids`

// One message kills every worker that has it. Three die with it and others in hand, two with
// it alone, and then it is a dead letter that says so. All others have been delivered.
func TestAlone_killer(t *testing.T) {
	t.Parallel()
	for name, mass := range map[string]int{"tasks": 1, "a bulk task": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			client := h.Client(t)
			h.queue = NewQueue(client, QueueConfig{BulkSize: mass})
			const n = 30
			h.send(n, func(m *mailer.EmailMessage) {
				if m.MessageID == "<7@t>" {
					m.Subject = killer
				}
			})
			deaths, log := 0, ""
			for ; deaths < 10; deaths++ {
				out, done := mortalWorker(t, h, client, n-1)
				log += out
				if done {
					break
				}
				for _, queue := range []string{"default", "default:mass"} {
					past := time.Now().Add(-time.Minute).Unix() // long enough for asynqbatch
					if err := client.Eval(t.Context(), expireScript, []string{"asynq:{" + queue + "}:lease"}, past).Err(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if deaths != isolation.Suspicious+isolation.FatalRuns {
				t.Errorf("%d workers died, want %d", deaths, isolation.Suspicious+isolation.FatalRuns)
			}
			letters := h.archived()
			if len(letters) != 1 || !strings.Contains(letters[0].LastErr, "its worker died 5 times") {
				t.Fatalf("dead letters: %v", letters)
			}
			if letter, err := NewDeadLetters(client).Get("default", letters[0].ID); err != nil || letter.Message.Subject != killer {
				t.Errorf("the dead letter: %v, %v", letter, err)
			}
			delivered, err := client.HGetAll(t.Context(), "delivered").Result()
			if err != nil || len(delivered) != n-1 {
				t.Errorf("%d others were delivered, want %d: %v", len(delivered), n-1, err)
			}
			if !strings.Contains(log, "it runs with nothing else in the process") || !strings.Contains(log, "the worker that had this task died") {
				t.Errorf("the log does not name it:\n%s", log)
			}
			// It can be sent again when it is known why: it has all its runs again.
			if again, err := NewDeadLetters(client).Replay(t.Context(), "default", letters[0].ID); err != nil {
				t.Errorf("replay: %s, %v", again, err)
			} else if task, err := inspect(t, h.Server).GetTaskInfo("default", again); err != nil || task.Headers[wire.HeaderDied] != "" {
				t.Errorf("replayed as %v, %v", task, err)
			}
		})
	}
}

// mortalWorker runs a worker until it dies, or until it has delivered all others and kept a dead
// letter. It returns what it said.
func mortalWorker(t *testing.T, h *house, client redis.UniversalClient, others int) (out string, done bool) {
	t.Helper()
	var said strings.Builder
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMortalWorker$")
	cmd.Env = append(os.Environ(), "MORTAL_WORKER="+h.URL())
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	died := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(died)
	}()
	h.eventually("the worker dies, or has done all", func() bool {
		select {
		case <-died:
			return true
		default:
		}
		delivered, err := client.HLen(t.Context(), "delivered").Result()
		done = err == nil && delivered == int64(others) && h.info().Archived == 1
		for _, queue := range []string{"default", "default:mass"} { // it has said so, too: nobody goes on after it
			done = done && client.LLen(t.Context(), "asynq:{"+queue+"}:active").Val() == 0
		}
		return done
	})
	_ = cmd.Process.Kill()
	<-died
	return said.String(), done
}

// suspect makes the waiting tasks such as have lost three leases.
func (h *house) suspect(ids ...string) {
	h.t.Helper()
	for _, id := range ids {
		if err := h.Client(h.t).HSet(h.t.Context(), asynqbatch.TaskKey("default", id), wire.FieldLost, isolation.Suspicious).Err(); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) waiting() []*asynq.TaskInfo {
	h.t.Helper()
	list, err := inspect(h.t, h.Server).ListPendingTasks("default", asynq.PageSize(1000))
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// A suspect is on the wire when nothing else is, and goes as well as any other message.
func TestAlone_nothingElse(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	const n = 200
	h.send(n, nil)
	suspects := map[string]bool{}
	for i, task := range h.waiting() {
		if i%20 == 10 {
			p, err := wire.Decode(task.Payload, nil)
			if err != nil {
				t.Fatal(err)
			}
			suspects[p.Message.MessageID] = true
			h.suspect(task.ID)
		}
	}
	var onWire, together atomic.Int32
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		with := onWire.Add(1)
		<-time.After(time.Millisecond) // the relay's time
		with = max(with, onWire.Load())
		onWire.Add(-1)
		if suspects[m.MessageID] && with > 1 {
			together.Add(1)
		}
		return mailer.Result{}
	}
	stop := h.start(h.config())
	h.wait(n)
	h.empty()
	stop()
	h.once(n)
	if together.Load() > 0 || len(suspects) != n/20 {
		t.Errorf("of %d messages that were to be alone, %d had others beside them on the wire", len(suspects), together.Load())
	}
}

// What lives to see the end of its run is struck out, whatever the end is: the relay takes
// nothing, the message is refused, the worker is stopped.
func TestAlone_lives(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	h.send(1, nil)
	id := h.waiting()[0].ID
	h.suspect(id)
	tries := make(chan int, 100)
	var n atomic.Int32
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		i := int(n.Add(1))
		tries <- i
		if i > 3 {
			return mailer.Result{}
		}
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect}}
	}
	begun := func() string {
		s, _ := client.HGet(t.Context(), asynqbatch.TaskKey("default", id), wire.FieldAlone).Result()
		return s
	}
	stop := h.start(h.config())
	<-tries
	h.eventually("the run is struck out", func() bool { return begun() == "" })
	stop()
	if s := begun(); s != "" {
		t.Errorf("a stopped worker left %q", s)
	}
	h.start(h.config())
	h.wait(1)
	h.empty()
	if len(h.archived()) > 0 {
		t.Error("condemned")
	}
}

// That Redis is away while a suspect is on the wire is no death.
func TestAlone_redisAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{AppendOnly: redistest.Always})
	h.send(1, nil)
	id := h.waiting()[0].ID
	h.suspect(id)
	started, goOn := make(chan struct{}, 100), make(chan struct{})
	tries := 0
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		if tries++; tries > 3 {
			return mailer.Result{}
		}
		started <- struct{}{}
		<-goOn
		return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
	}
	h.start(h.config())
	for range 3 { // as many as would condemn it
		<-started
		h.Stop()
		goOn <- struct{}{}
		h.Restart()
		h.suspect(id) // a run with an end of its own has cleared it
	}
	h.wait(1)
	h.empty()
	h.once(1)
	if letters := h.archived(); len(letters) > 0 {
		t.Errorf("condemned: %s", letters[0].LastErr)
	}
}
