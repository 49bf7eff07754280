package tasks

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
)

// bulkHouse is a house whose queue makes bulk tasks.
func bulkHouse(t *testing.T, cfg QueueConfig) *house {
	t.Helper()
	h := newHouse(t, redistest.Options{})
	h.queue = NewQueue(h.Client(t), cfg)
	return h
}

// laterOnce is a relay's answer that puts one message off, the first time.
func laterOnce(messageID string) func(context.Context, *mailer.EmailMessage) mailer.Result {
	var again atomic.Bool
	return func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == messageID && !again.Swap(true) {
			return mailer.Result{Err: sendError(mailer.Temporary, 450, "later")}
		}
		return mailer.Result{}
	}
}

// sendAll hands n messages over at once and returns their IDs.
func (h *house) sendAll(n int, change func(i int, m *mailer.EmailMessage)) []string {
	h.t.Helper()
	messages, ids := make([]*mailer.EmailMessage, n), make([]string, n)
	for i := range messages {
		messages[i] = message(fmt.Sprintf("u%d@example.com", i))
		messages[i].MessageID = fmt.Sprintf("<%d@t>", i)
		if change != nil {
			change(i, messages[i])
		}
	}
	h.queue.SendBatch(h.t.Context(), mailer.Batch{Messages: messages, Report: func(group []mailer.Report) {
		for _, r := range group {
			if r.Err != nil {
				h.t.Errorf("message %d: %v", r.Index, r.Err)
			}
			ids[r.Index] = r.Reply
		}
	}})
	return ids
}

// allEmpty waits until no task of any queue is left.
func (h *house) allEmpty() {
	h.t.Helper()
	h.eventually("empty queues", func() bool { return len(h.Client(h.t).Keys(h.t.Context(), "asynq:*:t:*").Val()) == 0 })
}

func (h *house) size(queue string) int {
	h.t.Helper()
	return h.infoOf(queue).Size
}

// outcomes collects what observers are told.
type outcomes struct {
	mu  sync.Mutex
	all []Outcome
}

func (o *outcomes) observer() Observer {
	return Observer{Outcome: func(out Outcome) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all = append(o.all, out)
	}}
}

func (o *outcomes) count(a Action) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, out := range o.all {
		if out.Action == a {
			n++
		}
	}
	return n
}

func TestBulk_delivers(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	ids := h.sendAll(250, nil)
	if got := h.size("default:mass"); got != 3 || h.size("default") != 0 {
		t.Errorf("250 messages are %d bulk tasks and %d others, want 3 and none", got, h.size("default"))
	}
	if slices.Sort(ids); len(slices.Compact(ids)) != 250 {
		t.Error("two messages have the same ID")
	}
	seen := new(outcomes)
	cfg := h.config()
	cfg.Observers = []Observer{seen.observer()}
	stop := h.start(cfg)
	h.wait(250)
	h.allEmpty()
	h.once(250)
	stop()
	if got := seen.count(ActionSent); got != 250 {
		t.Errorf("%d outcomes told, want one for each message", got)
	}
	for _, o := range seen.all {
		if _, ok := slices.BinarySearch(ids, o.TaskID); !ok || o.Queue != "default" || o.Try != 1 || o.Sender == 0 || o.MessageID == "" {
			t.Fatalf("told %+v", o)
		}
	}
}

// One message, and messages that are each to be handed over once, have tasks of their own.
func TestBulk_notForAll(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		n            int
		cfg          QueueConfig
		mass, single int
	}{
		{"one", 1, QueueConfig{}, 0, 1},
		{"one too many", 4, QueueConfig{BulkSize: 3}, 1, 1},
		{"off", 4, QueueConfig{BulkSize: 1}, 0, 4},
		{"unique", 4, QueueConfig{Options: Options{Unique: time.Minute}}, 0, 4},
		{"at most once", 4, QueueConfig{Options: Options{AtMostOnce: true}}, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := bulkHouse(t, tt.cfg)
			h.sendAll(tt.n, func(i int, m *mailer.EmailMessage) { m.Subject = fmt.Sprint(i) })
			if mass, single := h.size("default:mass"), h.size("default"); mass != tt.mass || single != tt.single {
				t.Errorf("%d bulk tasks and %d others, want %d and %d", mass, single, tt.mass, tt.single)
			}
		})
	}
}

// A bulk task has at most a megabyte to it, and the same attachment counts once.
func TestBulk_bytes(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	h.sendAll(10, func(i int, m *mailer.EmailMessage) {
		m.Body = fmt.Sprint(i) + strings.Repeat("a line of text\n", 25_000)
	})
	if got := h.size("default:mass"); got != 5 {
		t.Errorf("10 messages of 375 kB are %d bulk tasks, want 5", got)
	}
	h = bulkHouse(t, QueueConfig{})
	same := brochure(1, 900_000)
	h.sendAll(50, func(_ int, m *mailer.EmailMessage) { m.Attach("b.pdf", same, "application/pdf") })
	if got := h.size("default:mass"); got != 1 {
		t.Errorf("50 messages with the same attachment are %d bulk tasks, want 1", got)
	}
	h.wantBlob(same, 50)
	stop := h.start(h.config())
	h.wait(50)
	h.allEmpty()
	h.references(same, 0)
	stop()
	h.wantBlob(same, 0)
	for _, m := range h.relay.all() {
		if len(m.data) < 900_000 {
			t.Fatalf("%s went out without its attachment", m.id)
		}
	}
}

// What fails leaves the bulk task as a task of its own; the others are sent once.
func TestBulk_mixed(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	tried := map[string]int{}
	var mu sync.Mutex
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		mu.Lock()
		defer mu.Unlock()
		tried[m.MessageID]++
		switch {
		case m.MessageID == "<10@t>" && tried[m.MessageID] < 4:
			return mailer.Result{Err: sendError(mailer.Temporary, 450, "later")}
		case m.MessageID == "<20@t>", m.MessageID == "<21@t>":
			return mailer.Result{Err: sendError(mailer.Permanent, 550, "never")}
		case m.MessageID == "<30@t>" && tried[m.MessageID] == 1:
			return mailer.Result{Refused: []*mailer.SendError{{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: "b@example.com", Code: 550, Text: "nobody"}}}
		}
		return mailer.Result{}
	}
	ids := h.sendAll(50, func(i int, m *mailer.EmailMessage) {
		switch i {
		case 21:
			m.FailSilently = true
		case 30:
			m.To = append(m.To, "b@example.com")
		}
	})
	seen := new(outcomes)
	cfg := h.config()
	cfg.Observers = []Observer{seen.observer()}
	h.start(cfg)
	h.wait(48)
	h.eventually("two dead letters", func() bool { return h.info().Archived == 2 && h.size("default:mass") == 0 && h.size("default") == 2 })
	h.once(48)
	letters := NewDeadLetters(h.Client(t))
	refused, err := letters.Get("default", ids[20])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(refused.Reason, "550 never") || refused.Tries != 1 || refused.Message.MessageID != "<20@t>" {
		t.Errorf("dead letter %+v", refused)
	}
	partly, err := letters.Get("default", ids[30]+"-refused")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(partly.Recipients, []string{"b@example.com"}) {
		t.Errorf("the dead letter of the refused recipient has %v", partly.Recipients)
	}
	want := map[Action]int{ActionSent: 48, ActionRetry: 3, ActionDead: 2, ActionSilent: 1}
	h.eventually("54 outcomes told", func() bool { // a task may have ended before its last one is
		told := 0
		for a := range want {
			told += seen.count(a)
		}
		return told >= 54
	})
	for a, n := range want {
		if got := seen.count(a); got != n {
			t.Errorf("%d outcomes are %q, want %d", got, a, n)
		}
	}
	again, err := letters.Replay(t.Context(), "default", ids[20])
	if err != nil {
		t.Fatal(err)
	}
	h.eventually("a dead letter again", func() bool { _, err := letters.Get("default", again); return err == nil })
}

// A message that fails for now has had its try, wherever it was.
func TestBulk_maxRetry(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{Options: Options{MaxRetry: new(2)}})
	var tries atomic.Int32
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<1@t>" {
			tries.Add(1)
		}
		return mailer.Result{Err: sendError(mailer.Temporary, 450, "later")}
	}
	ids := h.sendAll(2, nil)
	h.start(h.config())
	h.eventually("two dead letters", func() bool { return h.info().Archived == 2 })
	letter, err := NewDeadLetters(h.Client(t)).Get("default", ids[1])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(letter.Reason, "gave up after 3 tries") || letter.Tries != 3 {
		t.Errorf("dead letter after %d tries: %s", letter.Tries, letter.Reason)
	}
	again, err := NewDeadLetters(h.Client(t)).Replay(t.Context(), "default", ids[1])
	if err != nil {
		t.Fatal(err)
	}
	h.eventually("a dead letter again", func() bool { letter, err = NewDeadLetters(h.Client(t)).Get("default", again); return err == nil })
	if tries.Load() != 6 {
		t.Errorf("a replayed message had %d tries more, want all three anew", tries.Load()-3)
	}
}

// A worker that is stopped in the middle gives the rest back, and the next one sends that.
func TestBulk_stopped(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	half, release := make(chan struct{}), make(chan struct{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<50@t>" {
			close(half)
			<-release
		}
		return mailer.Result{}
	}
	h.sendAll(100, nil)
	cfg := h.config()
	cfg.Connections, cfg.BatchSize = 1, 30
	end, done := h.run(cfg)
	<-half
	end()
	close(release)
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if n := len(h.relay.all()); n == 100 || h.size("default:mass") != 1 {
		t.Fatalf("%d of 100 messages sent, and %d tasks left: the worker was not stopped in the middle", n, h.size("default:mass"))
	}
	h.relay.answer = nil
	h.start(h.config())
	h.allEmpty()
	h.once(100)
}

// The worker dies before asynq ends a bulk task: what was sent is not sent again, and what
// has become a task of its own is not made one again.
func TestBulk_workerDies(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	client, err := redisconn.ConnectWorker(h.URL())
	if err != nil {
		t.Fatal(err)
	}
	client.AddHook(cut{func(cmds []redis.Cmder) bool { // what asynq ends or gives back a task with
		return asynqs(cmds, "asynq:{default:mass}:lease") && len(h.relay.all()) > 0
	}})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<7@t>" {
			return mailer.Result{Err: sendError(mailer.Permanent, 550, "never")}
		}
		return mailer.Result{}
	}
	ids := h.sendAll(40, nil)
	stop := h.startOn(client, h.config())
	h.wait(39)
	h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
	stop()
	reader := h.Client(t)
	if n := reader.LLen(t.Context(), "asynq:{default:mass}:active").Val() + reader.LLen(t.Context(), "asynq:{default:mass}:pending").Val(); n != 1 {
		t.Fatalf("%d bulk tasks left, want the one that could not be ended", n)
	}
	if err := NewDeadLetters(reader).Delete(t.Context(), "default", ids[7]); err != nil {
		t.Fatal(err)
	}
	recoverTasksOf(t, h, "default:mass")
	h.relay.answer = nil
	h.start(h.config())
	h.allEmpty()
	h.once(39)
}

func TestBulk_cancel(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	h.relay.answer = laterOnce("<5@t>")
	ids := h.sendAll(10, nil)
	task, _, _ := wire.SplitID(ids[0])
	h.cancels(ids[3], nil)
	h.cancels(ids[3], nil)
	h.cancels(wire.MessageID(task, 10), ErrNoTask)
	h.cancels("unknown.3", ErrNoTask)
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	h.start(cfg)
	h.wait(8)
	h.eventually("one task, which waits for its next try", func() bool { return h.size("default:mass") == 0 && h.info().Retry == 1 })
	h.cancels(ids[4], ErrNoTask) // sent, and gone
	h.cancels(ids[5], nil)       // a task of its own by now
	h.allEmpty()
	h.once(8)
	if h.relay.ids()["<3@t>"]+h.relay.ids()["<5@t>"] != 0 {
		t.Error("a cancelled message was sent")
	}
}

// On the wire it is too late.
func TestBulk_cancelOnWire(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{Options: Options{Retention: time.Hour}})
	ids := h.sendAll(3, nil)
	release := h.blocked() // a batch is one message
	defer release()
	h.cancels(ids[0], ErrTooLate)
	h.cancels(ids[2], nil)
	release()
	h.wait(2)
	h.eventually("a completed task", func() bool { return h.infoOf("default:mass").Completed == 1 })
	h.cancels(ids[1], ErrTooLate)
	tasks, err := inspect(t, h.Server).ListCompletedTasks("default:mass")
	if err != nil {
		t.Fatal(err)
	}
	var results []wire.Result
	if err := json.Unmarshal(tasks[0].Result, &results); err != nil || len(results) != 3 || !strings.HasPrefix(results[1].Reply, "250") {
		t.Errorf("result %s (%v), want three", tasks[0].Result, err)
	}
}

func TestBulk_atMostOnce(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{Options: Options{AtMostOnce: true}})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<1@t>" {
			return mailer.Result{Err: sendError(mailer.Unknown, 0, "cut off")}
		}
		return mailer.Result{}
	}
	ids := h.sendAll(20, nil)
	task, _, _ := wire.SplitID(ids[2])
	h.Client(t).HSet(t.Context(), asynqbatch.TaskKey("default:mass", task), wire.FieldBegun+".2", "an earlier try")
	h.start(h.config())
	h.wait(18)
	h.eventually("two dead letters", func() bool { return h.info().Archived == 2 && h.size("default:mass") == 0 })
	h.once(18)
	for _, id := range []string{ids[1], ids[2]} {
		if l, err := NewDeadLetters(h.Client(t)).Get("default", id); err != nil || !strings.Contains(l.Reason, "at_most_once") {
			t.Errorf("%v, %v", l, err)
		}
	}
}

func TestBulk_mailers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		knows []string // the producer
		queue string
	}{
		{"known to the producer", []string{"marketing"}, "marketing.default:mass"},
		{"known to the worker", nil, "default:mass"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := bulkHouse(t, QueueConfig{Mailers: tt.knows, Options: Options{Using: "marketing"}})
			ids := h.sendAll(10, nil)
			if h.size(tt.queue) != 1 {
				t.Fatalf("no task in %s", tt.queue)
			}
			h.cancels(ids[9], nil)
			cfg := h.config()
			relay := newRelay()
			cfg.Connect = func(mailer string) (mailer.Backend, error) {
				if mailer == "marketing" {
					return relay.connect("")
				}
				return h.relay.connect("")
			}
			cfg.Mailers = map[string]int{"marketing": 1}
			h.start(cfg)
			h.allEmpty()
			if n := len(relay.ids()); n != 9 || len(h.relay.ids()) != 0 {
				t.Errorf("%d messages by the named mailer and %d by the other, want 9 and none", n, len(h.relay.ids()))
			}
		})
	}
}

// What has left a bulk task stays as long after its end as the others do.
func TestBulk_retention(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{Options: Options{Retention: time.Hour}})
	h.relay.answer = laterOnce("<1@t>")
	ids := h.sendAll(3, nil)
	h.start(h.config())
	h.wait(3)
	h.eventually("a completed task of its own", func() bool { return h.info().Completed == 1 })
	info, err := inspect(t, h.Server).GetTaskInfo("default", ids[1])
	if err != nil || info.Retention != time.Hour || !strings.Contains(string(info.Result), "250") {
		t.Errorf("%+v, %v", info, err)
	}
}

// A bulk task that a person has archived goes on where it was.
func TestBulk_archivedByHand(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	ids := h.sendAll(3, nil)
	task, _, _ := wire.SplitID(ids[0])
	reader := h.Client(t)
	reader.HSet(t.Context(), asynqbatch.TaskKey("default:mass", task), wire.FieldSent+".1", `{"reply":"250 Ok"}`)
	if err := inspect(t, h.Server).ArchiveTask("default:mass", task); err != nil {
		t.Fatal(err)
	}
	if again, err := NewDeadLetters(reader).Replay(t.Context(), "default:mass", task); again != task || err != nil {
		t.Fatalf("Replay = %q, %v", again, err)
	}
	h.start(h.config())
	h.wait(2)
	h.allEmpty()
	if got := h.relay.ids(); got["<0@t>"] != 1 || got["<1@t>"] != 0 || got["<2@t>"] != 1 {
		t.Errorf("delivered %v, want the two that had not been sent", got)
	}
}

// Messages for a mailer that the worker does not have become dead letters that say so.
func TestBulk_unknownMailer(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{Options: Options{Using: "nobody"}})
	h.sendAll(3, nil)
	h.start(h.config())
	h.eventually("three dead letters", func() bool { return h.info().Archived == 3 && h.size("default:mass") == 0 })
	if reason := h.archived()[0].LastErr; !strings.Contains(reason, `"nobody" is not configured`) {
		t.Errorf("reason %q", reason)
	}
}

// put puts messages into the default queue as a program would, also with a deadline that is over, which that would refuse. One has a task to
// itself, and several share one. It returns the ID of the task.
func (h *house) put(meta wire.Meta, names ...string) (id string) {
	h.t.Helper()
	meta.DueAt = cmp.Or(meta.DueAt, time.Now())
	payloads := make([]*wire.Payload, len(names))
	for i, name := range names {
		payloads[i] = &wire.Payload{Meta: meta, Message: mail(name).WithDefaults(mailer.Defaults{})}
	}
	id = "task-of-" + names[0]
	if len(payloads) == 1 {
		if err := h.queue.client.Enqueue(h.t.Context(), payloads[0], id); err != nil {
			h.t.Fatal(err)
		}
		return id
	}
	lines, err := h.queue.client.EncodeMany(h.t.Context(), payloads)
	if err == nil {
		err = h.queue.client.PutTask(h.t.Context(), asynq.NewTask(wire.TaskTypeBulk, lines), id, asynq.Queue("default:mass"))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func TestBulk_timing(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	h.queue = h.queue.With(Options{ProcessIn: time.Hour})
	h.sendAll(3, nil)
	info, err := inspect(t, h.Server).GetQueueInfo("default:mass")
	if err != nil || info.Scheduled != 1 {
		t.Errorf("%+v, %v, want a scheduled task", info, err)
	}
	h.put(wire.Meta{Deadline: new(time.Now().Add(-time.Second))}, "0", "1", "2", "3")
	h.start(h.config())
	h.eventually("four dead letters", func() bool { return h.info().Archived == 4 })
	if len(h.relay.all()) != 0 {
		t.Error("a message was sent after its deadline")
	}
}

// A message that cannot be read is kept; the others are sent.
func TestBulk_unreadable(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var lines []byte
	for i := range 3 {
		m := message("ann@example.com")
		m.MessageID = fmt.Sprintf("<%d@t>", i)
		line, err := (&wire.Payload{Meta: wire.Meta{DueAt: time.Now()}, Message: m}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			line = []byte(`{"version":1,"message":{"colour":"red"}}`)
		}
		lines = append(append(lines, line...), '\n')
	}
	client := producer.New(h.Client(t))
	if err := client.PutTask(t.Context(), asynq.NewTask(wire.TaskTypeBulk, lines), "M", asynq.Queue("default:mass")); err != nil {
		t.Fatal(err)
	}
	h.start(h.config())
	h.wait(2)
	h.eventually("a dead letter", func() bool { return h.info().Archived == 1 && h.size("default:mass") == 0 })
	if l := h.archived()[0]; l.ID != "M.1" || !strings.Contains(l.LastErr, "colour") || !strings.Contains(string(l.Payload), "colour") {
		t.Errorf("dead letter %s: %s\n%s", l.ID, l.LastErr, l.Payload)
	}
}

// While Redis is away the rest of a hand-over is not tried.
func TestBulk_redisAway(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{BulkSize: 2})
	h.Kill()
	messages := []*mailer.EmailMessage{message("a@example.com"), message("b@example.com"), message("c@example.com"), message("d@example.com"), message("e@example.com")}
	sent, err := h.queue.SendMessages(t.Context(), messages)
	var errs mailer.SendErrors
	if sent != 0 || !errors.As(err, &errs) || len(errs) != 5 {
		t.Fatalf("SendMessages = %d, %v", sent, err)
	}
	for i, e := range errs {
		if mailer.ClassOf(e) != mailer.Unavailable {
			t.Errorf("message %d: %v", i, e)
		}
	}
}

// Queues in parts: producers choose a part by the ID, workers take all of them.
func TestShards(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{})
	h.sendAll(1, func(_ int, m *mailer.EmailMessage) { m.MessageID = "<unsharded@t>" })
	h.queue = NewQueue(h.Client(t), QueueConfig{Shards: 3, BulkSize: 10})
	single := h.queue.With(Options{})
	single.cfg.BulkSize = 1
	h.sendAll(200, nil)
	h.queue = single
	ids := h.sendAll(100, func(i int, m *mailer.EmailMessage) { m.MessageID = fmt.Sprintf("<s%d@t>", i) })
	for shard := 1; shard <= 3; shard++ {
		if n := h.size(fmt.Sprintf("default~%d", shard)); n < 10 {
			t.Errorf("shard %d has %d of 100 tasks", shard, n)
		}
	}
	h.cancels(ids[0], nil)
	moved := h.queue.queueOf(ids[1])
	moved.Shard = moved.Shard%3 + 1
	if err := h.queue.client.Enqueue(t.Context(), &wire.Payload{Meta: wire.Meta{DueAt: time.Now()}, Message: message("x@example.com")}, ids[1]+"-later", asynq.Queue(moved.String())); err != nil {
		t.Fatal(err)
	}
	h.cancels(ids[1]+"-later", nil)
	forwarded := wire.QueueName{Mailer: "marketing", Queue: "default", Shard: wire.ShardOf("F", 3)}
	if err := h.queue.client.Enqueue(t.Context(), &wire.Payload{Meta: wire.Meta{DueAt: time.Now()}, Message: message("x@example.com")}, "F", asynq.Queue(forwarded.String())); err != nil {
		t.Fatal(err)
	}
	h.cancels("F", nil)
	cfg := h.config()
	cfg.Shards = 3
	cfg.Queues = weights
	h.start(cfg)
	h.wait(300)
	h.allEmpty()
	h.once(300)
}
