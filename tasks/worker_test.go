package tasks

import (
	"bytes"
	"context"
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

	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// house is a Redis, a relay and a worker between them.
type house struct {
	*redistest.Server
	t     *testing.T
	relay *relay
	queue *Queue
	looks *asynq.Inspector // for what looks again and again; nil if the Redis is of another kind
}

func newHouse(t *testing.T, opts redistest.Options) *house {
	t.Helper()
	s := redistest.Start(t, opts)
	return &house{Server: s, t: t, relay: newRelay(), queue: NewQueue(s.Client(t), QueueConfig{BulkSize: 1}), looks: inspect(t, s)}
}

func (h *house) config() WorkerConfig {
	return WorkerConfig{
		Connect: h.relay.connect, Connections: 2, BatchSize: 20,
		RetryMin: time.Millisecond, RetryMax: 2 * time.Millisecond,
	}
}

// start runs a worker until stop is called or the test ends.
func (h *house) start(cfg WorkerConfig) (stop func()) {
	h.t.Helper()
	client, err := redisconn.ConnectWorker(h.URL())
	if err != nil {
		h.t.Fatal(err)
	}
	return h.startOn(client, cfg)
}

// startOn is start on a client that the test has prepared.
func (h *house) startOn(client redis.UniversalClient, cfg WorkerConfig) (stop func()) {
	h.t.Helper()
	_, stop = h.startWorker(client, cfg)
	return stop
}

// startWorker is startOn for a test that looks into the worker.
func (h *house) startWorker(client redis.UniversalClient, cfg WorkerConfig) (w *Worker, stop func()) {
	h.t.Helper()
	w, err := NewWorker(client, cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return w, h.untilStopped(w, client)
}

// untilStopped runs a worker on a client until stop is called or the test ends.
func (h *house) untilStopped(w *Worker, client redis.UniversalClient) (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		_ = client.Close()
	})
	h.t.Cleanup(stop)
	return stop
}

// send queues n messages with the Message-IDs <0@t> to <n-1@t>.
func (h *house) send(n int, change func(*mailer.EmailMessage)) {
	h.t.Helper()
	messages := make([]*mailer.EmailMessage, n)
	for i := range messages {
		messages[i] = message(fmt.Sprintf("u%d@example.com", i))
		messages[i].MessageID = fmt.Sprintf("<%d@t>", i)
		if change != nil {
			change(messages[i])
		}
	}
	if sent, err := h.queue.SendMessages(h.t.Context(), messages); sent != n || err != nil {
		h.t.Fatalf("SendMessages = %d, %v, want %d", sent, err, n)
	}
}

// stuckAfter is when a test that waits for something gives up, so that it says what it has waited for.
const stuckAfter = 5 * time.Minute

// wait returns when n messages have arrived.
func (h *house) wait(n int) {
	h.t.Helper()
	stuck := time.After(stuckAfter)
	for i := range n {
		select {
		case <-h.relay.arrived:
		case <-stuck:
			h.t.Fatalf("only %d of %d messages arrived; in Redis:\n%s", i, n, h.state())
		}
	}
}

// state is what asynq has in Redis, for a test that has failed.
func (h *house) state() string {
	if h.Server == nil {
		return "(a Redis of another kind)"
	}
	client, ctx := h.Client(h.t), h.t.Context()
	var text strings.Builder
	for _, key := range client.Keys(ctx, "asynq:*").Val() {
		var value any
		switch kind := client.Type(ctx, key).Val(); kind {
		case "list":
			value = client.LRange(ctx, key, 0, -1).Val()
		case "zset":
			value = client.ZRangeWithScores(ctx, key, 0, -1).Val()
		case "hash":
			fields := client.HGetAll(ctx, key).Val()
			delete(fields, "msg")
			value = fields
		default:
			value = kind
		}
		fmt.Fprintln(&text, key, value)
	}
	return text.String()
}

// once checks that each of n messages was delivered exactly once.
func (h *house) once(n int) {
	h.t.Helper()
	ids := h.relay.ids()
	if len(ids) != n {
		h.t.Errorf("%d different messages delivered, want %d", len(ids), n)
	}
	for id, count := range ids {
		if count != 1 {
			h.t.Errorf("%s delivered %d times", id, count)
		}
	}
}

// eventually waits for what the queue's state becomes after the relay has its mail.
func (h *house) eventually(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	stuck := time.After(stuckAfter)
	for !ok() {
		select {
		case <-tick.C:
		case <-stuck:
			h.t.Fatalf("never: %s; in Redis:\n%s", what, h.state())
		}
	}
}

func (h *house) info() asynq.QueueInfo {
	h.t.Helper()
	return h.infoOf("default")
}

// infoOf is what asynq has of a queue, when Redis answers: what cannot be looked at is not empty.
func (h *house) infoOf(queue string) (info asynq.QueueInfo) {
	h.t.Helper()
	h.eventually("Redis says what is in "+queue, func() bool {
		found, err := h.looks.GetQueueInfo(queue)
		if err == nil {
			info = *found
		}
		return err == nil || strings.Contains(err.Error(), "does not exist") // asynq has no error of its own here for a queue that nothing was put into yet
	})
	return info
}

func (h *house) empty() {
	h.t.Helper()
	h.eventually("an empty queue", func() bool { return h.info().Size == 0 })
}

func (h *house) archived() []*asynq.TaskInfo {
	h.t.Helper()
	list, err := inspect(h.t, h.Server).ListArchivedTasks("default")
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

func TestWorker_delivers(t *testing.T) {
	t.Parallel()
	for _, aof := range []redistest.Persistence{redistest.Off, redistest.EverySec, redistest.Always} {
		t.Run("appendonly="+string(aof), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{AppendOnly: aof})
			h.send(300, nil)
			if aof == redistest.Always {
				h.Restart() // what Redis has accepted outlives it
			}
			stop := h.start(h.config())
			h.wait(300)
			h.empty()
			stop()
			h.once(300)
			if h.relay.opens > 2 {
				t.Errorf("%d connections opened, want at most 2", h.relay.opens)
			}
		})
	}
}

// While one batch is on the wire the next one forms from what is waiting.
func TestWorker_batches(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	gathered := make(chan struct{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		<-gathered
		return mailer.Result{}
	}
	batches := make(chan Batch, 100)
	cfg := h.config()
	cfg.Connections, cfg.Concurrency = 1, 46
	cfg.Observers = []Observer{{Batch: func(b Batch) { batches <- b }}}
	h.send(46, nil)
	stop := h.start(cfg)
	h.eventually("46 active tasks", func() bool { return h.info().Active == 46 })
	close(gathered)
	h.wait(46)
	h.empty()
	stop()
	close(batches)
	var sizes []int
	for b := range batches {
		sizes = append(sizes, b.Size)
		if b.Accepted != b.Size {
			t.Errorf("%d of %d accepted", b.Accepted, b.Size)
		}
	}
	if len(sizes) > 23 || slices.Max(sizes) > 20 {
		t.Errorf("batches of %v, want full ones, of 20 at most", sizes)
	}
	h.once(46)
}

// Every try sends the same bytes, and a failure for now costs one try.
func TestWorker_retries(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var seen sync.Map
	var tries atomic.Int64
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		tries.Add(1)
		var b bytes.Buffer
		if _, err := m.WriteTo(&b); err != nil {
			return mailer.Result{Err: err}
		}
		if _, again := seen.LoadOrStore(m.MessageID, b.String()); !again {
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "try again later")}
		}
		return mailer.Result{}
	}
	h.send(5, nil)
	h.start(h.config())
	h.wait(5)
	h.empty()
	h.once(5)
	if n := tries.Load(); n != 10 {
		t.Errorf("%d tries, want 10", n)
	}
	for _, m := range h.relay.all() {
		first, _ := seen.Load(m.id)
		if first != string(m.data) {
			t.Errorf("%s: the second try sent other bytes than the first", m.id)
		}
	}
}

func TestWorker_deadLetters(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		answer  error
		options Options
		want    string // in the reason
		tries   int64
	}{
		{"5yz", sendError(mailer.Permanent, 554, "no spam here"), Options{}, "554 no spam here", 1},
		{"4yz and no retries", sendError(mailer.Temporary, 451, "later"), Options{MaxRetry: new(0)}, "gave up after 1 tries", 1},
		{"4yz twice and one retry", sendError(mailer.Temporary, 451, "later"), Options{MaxRetry: new(1)}, "gave up after 2 tries", 2},
		{"an error that does not say", errors.New("disk full"), Options{MaxRetry: new(0)}, "disk full", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			var tries atomic.Int64
			h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
				if m.MessageID == "<0@t>" {
					return mailer.Result{}
				}
				tries.Add(1)
				return mailer.Result{Err: tt.answer}
			}
			h.queue = h.queue.With(tt.options)
			h.send(2, nil)
			h.start(h.config())
			h.wait(1)
			h.eventually("a dead letter", func() bool { return h.info().Archived == 1 && h.info().Size == 1 })
			letter := h.archived()[0]
			if !strings.Contains(letter.LastErr, tt.want) {
				t.Errorf("reason = %q, want %q in it", letter.LastErr, tt.want)
			}
			if p, err := wire.Decode(letter.Payload, nil); err != nil || p.Message.MessageID != "<1@t>" {
				t.Errorf("the dead letter is not the message: %v", err)
			}
			if tries.Load() != tt.tries {
				t.Errorf("%d tries, want %d", tries.Load(), tt.tries)
			}
			h.once(1)
		})
	}
}

// A task that cannot be read is kept and the queue goes on.
func TestWorker_unreadableTask(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := asynq.NewClientFromRedisClient(h.Client(t))
	if _, err := client.Enqueue(asynq.NewTask(wire.TaskType, []byte("not JSON"))); err != nil {
		t.Fatal(err)
	}
	h.send(1, nil)
	h.start(h.config())
	h.wait(1)
	h.eventually("a dead letter", func() bool { return h.info().Archived == 1 && h.info().Size == 1 })
}

func TestWorker_failSilently(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var tries atomic.Int64
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if !m.FailSilently {
			return mailer.Result{}
		}
		tries.Add(1)
		return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
	}
	h.send(3, func(m *mailer.EmailMessage) { m.FailSilently = m.MessageID != "<1@t>" })
	h.start(h.config())
	h.wait(1)
	h.empty()
	if tries.Load() != 2 {
		t.Errorf("%d tries for two silent messages, want one each", tries.Load())
	}
}

// While the relay is away nothing is spent and nothing is lost.
func TestWorker_relayDown(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var up atomic.Bool
	probed := make(chan struct{}, 1000)
	h.relay.down = func() error {
		if up.Load() {
			return nil
		}
		probed <- struct{}{}
		return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("connection refused")}
	}
	h.queue = h.queue.With(Options{MaxRetry: new(0)})
	h.send(50, nil)
	h.start(h.config())
	for range 3 {
		<-probed
	}
	if n := h.info(); n.Retry != 0 || n.Archived != 0 {
		t.Errorf("retry %d, archived %d while the relay is down, want none", n.Retry, n.Archived)
	}
	up.Store(true)
	h.wait(50)
	h.empty()
	h.once(50)
}

// A worker that is told to stop ends what is on the wire and gives the rest back at
// no cost, even a message that has no tries left; another worker sends it.
func TestWorker_stops(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = h.queue.With(Options{MaxRetry: new(0)})
	release := make(chan struct{})
	started := make(chan struct{}, 1000)
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		started <- struct{}{}
		<-release
		return mailer.Result{}
	}
	h.send(200, nil)
	cfg := h.config()
	cfg.BatchSize = 5
	cfg.Concurrency = 50
	end, ended := h.run(cfg)
	<-started
	<-started
	end()
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	done := len(h.relay.all())
	if done == 0 || done == 200 {
		t.Fatalf("%d messages sent by the first worker, want some and not all", done)
	}
	if info := h.info(); info.Pending != 200-done || info.Active != 0 || info.Archived != 0 || info.Retry != 0 {
		t.Errorf("after %d were sent: pending %d, active %d, archived %d, retry %d",
			done, info.Pending, info.Active, info.Archived, info.Retry)
	}
	h.relay.answer = nil
	h.start(h.config())
	h.wait(200)
	h.empty()
	h.once(200)
}

// A sender that cannot end in time is told to: the message may be sent again, but
// Run returns.
func TestWorker_stopsInTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	started := make(chan struct{}, 10)
	h.relay.answer = func(ctx context.Context, _ *mailer.EmailMessage) mailer.Result {
		started <- struct{}{}
		<-ctx.Done()
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepData, Err: ctx.Err()}}
	}
	h.send(1, nil)
	cfg := h.config()
	cfg.ShutdownTimeout = 10 * time.Millisecond
	stop := h.start(cfg)
	<-started
	stop()
	if info := h.info(); info.Pending != 1 {
		t.Errorf("pending = %d, want the unsent message", info.Pending)
	}
}

// Recipients that were refused live on alone, and the others get no second copy.
func TestWorker_refusedRecipients(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		envelope, err := m.Envelope()
		if err != nil || len(envelope.To) == 1 {
			return mailer.Result{Err: err}
		}
		return mailer.Result{Refused: []*mailer.SendError{
			{Class: mailer.Temporary, Step: mailer.StepRcpt, Recipient: "grey@example.com", Code: 450},
			{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: "gone@example.com", Code: 550, Text: "no such user"},
		}}
	}
	h.send(1, func(m *mailer.EmailMessage) {
		m.To = []string{"ann@example.com", "Grey <grey@example.com>"}
		m.Bcc = []string{"gone@example.com"}
	})
	h.start(h.config())
	h.wait(2)
	h.eventually("a dead letter", func() bool { return h.info().Archived == 1 && h.info().Size == 1 })
	all := h.relay.all()
	if all[0].id != all[1].id || !bytes.Equal(all[0].data, all[1].data) {
		t.Error("the second delivery is not the same message")
	}
	if !slices.Equal(all[1].to, []string{"grey@example.com"}) {
		t.Errorf("second delivery to %v, want grey@example.com alone", all[1].to)
	}
	letter := h.archived()[0]
	p, err := wire.Decode(letter.Payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Recipients, []string{"gone@example.com"}) || !strings.Contains(letter.LastErr, "550 no such user") {
		t.Errorf("dead letter for %v because of %q", p.Recipients, letter.LastErr)
	}
}

func TestWorker_keepsResult(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = h.queue.With(Options{Retention: time.Hour})
	h.send(1, nil)
	h.start(h.config())
	h.wait(1)
	h.eventually("a completed task", func() bool { return h.info().Completed == 1 })
	list, err := inspect(t, h.Server).ListCompletedTasks("default")
	if err != nil || len(list) != 1 {
		t.Fatalf("completed tasks: %d, %v", len(list), err)
	}
	if got, want := string(list[0].Result), `{"reply":"250 2.0.0 Ok: \u003c0@t\u003e"}`; got != want {
		t.Errorf("result = %s, want %s", got, want)
	}
}

// A message past its deadline is not sent.
func TestWorker_deadline(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	past := time.Now().Add(-time.Second)
	p := &wire.Payload{Meta: wire.Meta{DueAt: past.Add(-time.Minute), Deadline: &past}, Message: message("ann@example.com").WithDefaults(mailer.Defaults{})}
	if err := h.queue.client.Enqueue(t.Context(), p, "late"); err != nil {
		t.Fatal(err)
	}
	h.start(h.config())
	h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
	if letter := h.archived()[0]; !strings.Contains(letter.LastErr, "deadline") {
		t.Errorf("reason = %q", letter.LastErr)
	}
	h.once(0)
}

// A message that makes the backend panic becomes a dead letter; the worker lives.
func TestWorker_backendPanics(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = h.queue.With(Options{MaxRetry: new(1)})
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<1@t>" {
			panic("poison")
		}
		return mailer.Result{}
	}
	h.send(2, nil)
	cfg := h.config()
	cfg.BatchSize = 1
	h.start(cfg)
	h.wait(1)
	h.eventually("a dead letter", func() bool { return h.info().Archived == 1 && h.info().Size == 1 })
	if letter := h.archived()[0]; !strings.Contains(letter.LastErr, "panicked") || strings.Contains(letter.LastErr, "poison") {
		t.Errorf("reason = %q, want the panic in it, and not what may be a message's", letter.LastErr)
	}
}

func TestNewWorker_refuses(t *testing.T) {
	t.Parallel()
	if _, err := NewWorker(nil, WorkerConfig{}); err == nil {
		t.Error("no Connect: no error")
	}
	wrong := errors.New("certificate without key")
	cfg := WorkerConfig{Connect: func(string) (mailer.Backend, error) { return nil, wrong }}
	s := redistest.Start(t, redistest.Options{})
	if _, err := NewWorker(s.Client(t), cfg); !errors.Is(err, wrong) {
		t.Errorf("err = %v, want the backend's", err)
	}
	for _, bad := range []WorkerConfig{
		{Queues: map[string]int{"default": 1, "größe": 1}}, {Mailers: map[string]int{"eu.marketing": 1}},
	} {
		bad.Connect = newRelay().connect
		var name *NameError
		if _, err := NewWorker(s.Client(t), bad); !errors.As(err, &name) {
			t.Errorf("err = %v, want a NameError", err)
		}
	}
}

// What the relay puts off of one message is that message's failure: the others go, and no
// mailer is held.
func TestWorker_onePutOff(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = h.queue.With(Options{MaxRetry: new(2)})
	const n = 60
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		switch m.MessageID {
		case "<7@t>":
			return mailer.Result{Err: sendError(mailer.Unavailable, 454, "not this one")}
		case "<30@t>":
			return mailer.Result{Err: sendError(mailer.Unavailable, 421, "nor that one")}
		}
		return mailer.Result{}
	}
	held := make(chan string, 100)
	cfg := h.config()
	cfg.Connections, cfg.BatchSize = 1, 10
	cfg.Observers = []Observer{{Held: func(_ string, reason error) { held <- fmt.Sprint(reason) }}}
	h.send(n, nil)
	stop := h.start(cfg)
	h.wait(n - 2)
	h.eventually("two dead letters", func() bool { return h.info().Archived == 2 })
	stop()
	h.once(n - 2)
	close(held)
	for reason := range held {
		t.Errorf("held: %s", reason)
	}
	for _, letter := range h.archived() {
		if letter.Retried != 2 || !strings.Contains(letter.LastErr, "gave up after 3 tries") {
			t.Errorf("%s after %d retries: %s", letter.ID, letter.Retried, letter.LastErr)
		}
	}
}

// A relay that puts off whatever it is given is held: of many messages, few have spent a try.
func TestWorker_allPutOff(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	const n = 60
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: sendError(mailer.Unavailable, 454, "slower, please")}
	}
	held := make(chan struct{}, 1000)
	cfg := h.config()
	cfg.Concurrency = n
	cfg.Observers = []Observer{{Held: func(_ string, reason error) {
		if reason != nil {
			held <- struct{}{}
		}
	}}}
	h.send(n, nil)
	h.start(cfg)
	<-held
	tries := 0
	h.eventually("all are in Redis", func() bool { return h.info().Pending == n })
	list, err := inspect(t, h.Server).ListPendingTasks("default", asynq.PageSize(n))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range list {
		tries += task.Retried
	}
	if most := (inARow - 1) * 2; tries > most {
		t.Errorf("%d tries were spent, want at most %d", tries, most)
	}
	h.once(0)
}

// A message that waits for its relay is a dead letter when its time is up, not when the relay is back.
func TestWorker_expiresHeld(t *testing.T) {
	t.Parallel()
	const soon = 1500 * time.Millisecond
	for name, tt := range map[string]struct {
		deadline, maxAge time.Duration
		tasks, messages  int // in each, which expires as a whole
	}{
		"deadline": {soon, 0, 20, 1}, "EMAIL_MAX_AGE": {0, soon, 20, 1}, "in a bulk task": {0, soon, 1, 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.relay.down = func() error {
				return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("connection refused")}
			}
			cfg := h.config()
			cfg.MaxAge, cfg.sweepEvery = tt.maxAge, 50*time.Millisecond // they wait in Redis while the relay is away
			held := watch(&cfg)
			h.put(wire.Meta{DueAt: time.Now().Add(time.Hour)}, "first") // so it does not expire before it is tried
			h.start(cfg)
			if reason := <-held; reason == nil {
				t.Fatal("held for no reason")
			}
			meta := wire.Meta{DueAt: time.Now()}
			if tt.deadline > 0 {
				meta.Deadline = new(meta.DueAt.Add(tt.deadline))
			}
			ids := make([]string, tt.tasks)
			for i := range ids {
				names := make([]string, tt.messages)
				for j := range names {
					names[j] = fmt.Sprintf("%d-%d", i, j)
				}
				ids[i] = h.put(meta, names...)
			}
			queue := wire.QueueName{Queue: "default", Bulk: tt.messages > 1}.String()
			d := NewDeadLetters(h.Client(t))
			for _, id := range ids {
				var l *DeadLetter
				h.eventually(id+" is a dead letter", func() bool {
					var err error
					l, err = d.Get(queue, id)
					return err == nil
				})
				if !strings.HasPrefix(l.Reason, "not sent ") || !strings.Contains(l.Reason, "connection refused") {
					t.Errorf("reason = %q", l.Reason)
				}
			}
		})
	}
}

// A message whose time is up when it is its turn is not sent, though its batch began before.
func TestWorker_expiresInBatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	begun, gathered, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		switch {
		case m.MessageID == "<before@t>": // has the connection until the batch is there
			close(begun)
			<-gathered
		case m.MessageID != "<later@t>" && first.CompareAndSwap(false, true):
			<-over
		}
		return mailer.Result{}
	}
	cfg := h.config()
	cfg.Connections, cfg.BatchSize, cfg.Concurrency = 1, 6, 7
	h.start(cfg)
	h.handOver("before", Options{})
	<-begun
	deadline := time.Now().Add(2 * time.Second)
	for i := range 5 {
		h.put(wire.Meta{Deadline: &deadline}, fmt.Sprint(i))
	}
	h.handOver("later", Options{})
	h.eventually("all are in hand", func() bool { return h.info().Active == 7 })
	close(gathered)
	<-time.After(time.Until(deadline))
	close(over)
	h.eventually("all are through", func() bool { return len(h.relay.all())+h.info().Archived == 7 })
	ids := h.relay.ids()
	if ids["<before@t>"] != 1 || ids["<later@t>"] != 1 || len(ids) > 3 { // and the one that was on the wire, unless the machine stood still
		t.Errorf("sent: %v", ids)
	}
	for _, letter := range h.archived() {
		if !strings.HasPrefix(letter.LastErr, "not sent before its deadline") {
			t.Errorf("reason = %q", letter.LastErr)
		}
	}
}
