package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// The ledger writes where asynq keeps the task.
func TestTaskKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	id, err := h.queue.Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if n := h.Client(t).HExists(t.Context(), asynqbatch.TaskKey("default", id), "msg").Val(); !n {
		t.Errorf("asynq does not keep the task at %s", asynqbatch.TaskKey("default", id))
	}
}

// A task whose message was accepted before is completed as it should have been, and
// the message is not sent again.
func TestLedger_sentBefore(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = h.queue.With(Options{Retention: time.Hour})
	m := message("ann@example.com", "grey@example.com")
	m.MessageID = "<0@t>"
	id, err := h.queue.Enqueue(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	data, err := wire.NewRecord(mailer.Result{Reply: "250 first time", Refused: []*mailer.SendError{
		{Class: mailer.Temporary, Step: mailer.StepRcpt, Recipient: "grey@example.com", Code: 450, Text: "later"},
	}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	client := h.Client(t)
	if err := client.HSet(t.Context(), asynqbatch.TaskKey("default", id), wire.FieldSent, data).Err(); err != nil {
		t.Fatal(err)
	}
	h.start(h.config())
	h.wait(1)
	h.eventually("both tasks ended", func() bool { return h.info().Size == h.info().Completed })
	all := h.relay.all()
	if len(all) != 1 || !slices.Equal(all[0].to, []string{"grey@example.com"}) {
		t.Errorf("sent %v, want one message to the refused recipient alone", all)
	}
	task, err := inspect(t, h.Server).GetTaskInfo("default", id)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(task.Result), "250 first time") {
		t.Errorf("result %s, want the first reply", task.Result)
	}
}

// cut is a Redis client's hook that fails what it is told to, as a worker's death or a
// broken connection would.
type cut struct{ fails func(cmds []redis.Cmder) bool }

var errCut = errors.New("cut off")

func (c cut) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c cut) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if c.fails([]redis.Cmder{cmd}) {
			cmd.SetErr(errCut)
			return errCut
		}
		return next(ctx, cmd)
	}
}

func (c cut) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if c.fails(cmds) {
			return errCut
		}
		return next(ctx, cmds)
	}
}

func has(cmds []redis.Cmder, name string, arg string) bool {
	return slices.ContainsFunc(cmds, func(c redis.Cmder) bool {
		if c.Name() != name {
			return false
		}
		return arg == "" || slices.ContainsFunc(c.Args(), func(a any) bool { return a == arg })
	})
}

// asynqs reports whether a command is a script of asynq's, with that argument, and not one that does the ledger's steps.
func asynqs(cmds []redis.Cmder, arg string) bool {
	if !has(cmds, "evalsha", arg) {
		return false
	}
	return !slices.ContainsFunc(cmds, func(c redis.Cmder) bool {
		return slices.ContainsFunc(c.Args(), func(a any) bool {
			header, ok := a.(string)
			name, _, _ := strings.Cut(header, " ")
			return ok && name != header && steps()[name] != ""
		})
	})
}

// endsTask reports whether a command ends a task that is through, maybe with steps of others.
func endsTask(cmds []redis.Cmder, id string) bool {
	return has(cmds, "evalsha", "") && slices.ContainsFunc(cmds, func(c redis.Cmder) bool {
		return slices.ContainsFunc(c.Args(), func(a any) bool {
			header, ok := a.(string)
			return ok && strings.HasPrefix(header, "end ") && strings.HasSuffix(header, " "+id)
		})
	})
}

// recoverTasks puts active tasks back, as asynq does when their leases have run out.
func recoverTasks(t *testing.T, h *house) {
	t.Helper()
	recoverTasksOf(t, h, "default")
}

func recoverTasksOf(t *testing.T, h *house, queue string) {
	t.Helper()
	client := h.Client(t)
	for {
		id, err := client.LMove(t.Context(), "asynq:{"+queue+"}:active", "asynq:{"+queue+"}:pending", "LEFT", "LEFT").Result()
		if errors.Is(err, redis.Nil) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		client.ZRem(t.Context(), "asynq:{"+queue+"}:lease", id)
		client.HSet(t.Context(), asynqbatch.TaskKey(queue, id), "state", "pending")
	}
}

// The worker dies after the relay's 250 and before asynq's Done: without the ledger
// every active message would be sent twice.
func TestLedger_workerDiesBeforeDone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	var dead atomic.Bool
	client.AddHook(cut{func(cmds []redis.Cmder) bool {
		return dead.Load() && has(cmds, "evalsha", "asynq:{default}:lease") // what takes, ends and gives back tasks
	}})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		dead.Store(true) // from the first message on no task can be ended
		return mailer.Result{}
	}
	h.send(30, nil)
	cfg := h.config()
	cfg.Concurrency = 10
	stop := h.startOn(client, cfg)
	h.wait(1)
	reader := h.Client(t)
	h.eventually("an entry for each message that was sent", func() bool {
		ids := reader.LRange(t.Context(), "asynq:{default}:active", 0, -1).Val()
		sent := 0
		for _, id := range ids {
			if reader.HExists(t.Context(), asynqbatch.TaskKey("default", id), wire.FieldSent).Val() {
				sent++
			}
		}
		return sent > 0 && sent == len(h.relay.all())
	})
	stop()
	if info := h.info(); info.Active == 0 {
		t.Fatal("no task is active: nothing was shown")
	}
	recoverTasks(t, h)
	h.relay.answer = nil
	h.start(h.config())
	h.eventually("an empty queue", func() bool { return h.info().Size == 0 })
	h.once(30)
}

// newTry is a try of the task with an ID, whose outcome nobody waits for.
func newTry(id string) *delivery {
	return &delivery{key: asynqbatch.TaskKey("default", id), cancelled: wire.CancelledKey("default", id), token: "T", done: make(chan *delivery, 1)}
}

// newTestLedger is a ledger on a Redis, of a worker that has fetched nothing by itself: a task without an owner is its own.
func newTestLedger(client redis.UniversalClient) *ledger {
	records := asynqbatch.New(client, asynqbatch.Config{LostField: wire.FieldLost, OwnerField: wire.FieldOwner, Steps: steps()})
	return newLedger(client, records, zerolog.Nop())
}

// surely is for a ledger whose tasks are surely its worker's, whatever Redis says.
type surely struct{ records }

func (surely) Sure(string) bool { return true }

// activate makes a task one that a worker has.
func activate(t *testing.T, client redis.UniversalClient, key string) {
	t.Helper()
	if err := client.HSet(t.Context(), key, "state", "active").Err(); err != nil {
		t.Fatal(err)
	}
}

// What could not be written is written when Redis is back, and remembered until then.
func TestLedger_redisAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	id, err := h.queue.Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	client := h.Client(t)
	var away atomic.Bool
	client.AddHook(cut{func([]redis.Cmder) bool { return away.Load() }})
	l := newTestLedger(client)
	accepted := outcome{result: mailer.Result{Reply: "250 Ok"}}

	away.Store(true)
	d := newTry(id)
	d.outcome, d.record = accepted, `{"reply":"250 Ok"}`
	l.recent.Put(d.key, d.record)
	l.finish([]*delivery{d}, nil, func() {
		if !l.unwritten.any() {
			t.Error("a worker that is to end would do so now, though Redis does not know that the message was accepted")
		}
	})
	if o := d.outcome; o.result.Reply != "250 Ok" {
		t.Errorf("the handler got %+v", o)
	}
	if _, err := l.unsent(t.Context(), []*delivery{newTry("another")}, 1); mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("unsent while Redis is away: %v, want an error, for nothing may be sent", err)
	}

	away.Store(false)
	again := newTry(id)
	left, err := l.unsent(t.Context(), []*delivery{again}, 1)
	if err != nil || len(left) != 0 {
		t.Fatalf("unsent = %d jobs, %v: this worker has sent the message", len(left), err)
	}
	if o := again.outcome; !o.again || o.result.Reply != "250 Ok" {
		t.Errorf("the handler got %+v", o)
	}
	other := newTry("gone") // a task that has ended meanwhile
	l.recent.Put(other.key, "{}")
	l.restore(t.Context())
	reader := h.Client(t)
	if got := reader.HGet(t.Context(), asynqbatch.TaskKey("default", id), wire.FieldSent).Val(); got != `{"reply":"250 Ok"}` {
		t.Errorf("entry %q after Redis came back", got)
	}
	if reader.Exists(t.Context(), other.key).Val() != 0 {
		t.Error("a task that has ended has a record again")
	}
}

// More than is written in one round trip is written too, and then nothing is unwritten.
func TestLedger_restoresMany(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	l := newTestLedger(client)
	var all []*delivery
	_, err := client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i := range 2*restoredAtOnce + 10 {
			d := newTry(fmt.Sprint(i))
			p.HSet(t.Context(), d.key, "state", "active")
			l.recent.Put(d.name(), fmt.Sprintf(`{"reply":"250 %d"}`, i))
			all = append(all, d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l.unwritten.add(all...)
	l.missed()
	l.restore(t.Context())
	if ids := l.unwritten.ids(); len(ids) != 0 {
		t.Errorf("%d are unwritten", len(ids))
	}
	for i, d := range all {
		if got := client.HGet(t.Context(), d.key, wire.FieldSent).Val(); got != fmt.Sprintf(`{"reply":"250 %d"}`, i) {
			t.Fatalf("entry %d is %q", i, got)
		}
	}
}

// When Redis falls silent a sender ends the message that it is on and sends no other: a
// worker that is killed then doubles one message for each connection, not a batch.
func TestLedger_redisSilent(t *testing.T) {
	t.Parallel()
	const batch = 50
	h := newHouse(t, redistest.Options{})
	begin, silent := make(chan struct{}), make(chan struct{})
	var answered atomic.Int64
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		switch answered.Add(1) {
		case 1: // a batch of one: meanwhile the next ones gather
			<-begin
		case 10:
			h.Pause()
			close(silent)
		}
		return mailer.Result{}
	}
	h.send(2*batch, nil)
	cfg := h.config()
	cfg.Connections, cfg.BatchSize = 1, batch
	cfg.Concurrency = 2 * batch
	h.start(cfg)
	h.eventually("all tasks are held", func() bool { return h.info().Active == 2*batch })
	close(begin)
	<-silent
	h.wait(10)
	select {
	case <-h.relay.arrived:
		t.Error("a message was sent while Redis could not be told of the one before")
	case <-time.After(500 * time.Millisecond):
	}
	h.Resume()
	h.eventually("an empty queue", func() bool { return h.info().Size == 0 })
	h.once(2 * batch)
}

func TestRecord_roundTrip(t *testing.T) {
	t.Parallel()
	give := mailer.Result{Reply: "250 2.0.0 Ok", Refused: []*mailer.SendError{
		{Class: mailer.Temporary, Step: mailer.StepRcpt, Recipient: "a@example.com", Code: 450, Enhanced: "4.2.0", Text: "later"},
		{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: "b@example.com", Code: 550, Enhanced: "5.1.1", Text: "nobody"},
	}}
	data, err := wire.NewRecord(give).Encode()
	if err != nil {
		t.Fatal(err)
	}
	o, err := outcomeOf(data)
	if err != nil {
		t.Fatal(err)
	}
	got := o.result
	if !o.again || got.Reply != give.Reply || len(got.Refused) != 2 {
		t.Fatalf("got %+v", got)
	}
	for i, want := range give.Refused {
		if g := got.Refused[i]; g.Error() != want.Error() || g.Class != want.Class || g.Recipient != want.Recipient {
			t.Errorf("refused %d: %v, want %v", i, g, want)
		}
	}
}

// Of an at_most_once message no second copy is sent, whatever is in doubt.
func TestAtMostOnce(t *testing.T) {
	t.Parallel()
	lost := &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: errors.New("connection reset")}
	tests := []struct {
		name   string
		before func(t *testing.T, h *house, id string)
		answer func(try int64) error
		tries  int64 // that reach the relay
		dead   string
	}{
		{"accepted", nil, func(int64) error { return nil }, 1, ""},
		{"reply lost", nil, func(int64) error { return lost }, 1, "may have been delivered"},
		{"4yz is no doubt", nil, func(try int64) error {
			if try == 1 {
				return sendError(mailer.Temporary, 451, "later")
			}
			return nil
		}, 2, ""},
		{"relay down is no doubt", nil, func(try int64) error {
			if try == 1 {
				return sendError(mailer.Unavailable, 421, "busy")
			}
			return nil
		}, 2, ""},
		{"another worker died in a try", func(t *testing.T, h *house, id string) {
			t.Helper()
			h.Client(t).HSet(t.Context(), asynqbatch.TaskKey("default", id), wire.FieldBegun, "another try's token")
		}, func(int64) error { return nil }, 0, "may have been delivered"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.queue = h.queue.With(Options{AtMostOnce: true})
			id, err := h.queue.Enqueue(t.Context(), message("ann@example.com"))
			if err != nil {
				t.Fatal(err)
			}
			if tt.before != nil {
				tt.before(t, h, id)
			}
			var tries atomic.Int64
			h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
				return mailer.Result{Err: tt.answer(tries.Add(1))}
			}
			h.start(h.config())
			if tt.dead == "" {
				h.empty()
			} else {
				h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
				if letter := h.archived()[0]; !strings.Contains(letter.LastErr, tt.dead) {
					t.Errorf("reason %q, want %q in it", letter.LastErr, tt.dead)
				}
			}
			if tries.Load() != tt.tries {
				t.Errorf("%d tries reached the relay, want %d", tries.Load(), tt.tries)
			}
		})
	}
}

// A stopping worker gives an at_most_once message back without a doubt on it.
func TestAtMostOnce_givenBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = h.queue.With(Options{AtMostOnce: true})
	tried := make(chan struct{}, 100)
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		tried <- struct{}{}
		return mailer.Result{Err: sendError(mailer.Unavailable, 421, "busy")}
	}
	h.send(1, nil)
	stop := h.start(h.config())
	<-tried
	stop()
	h.relay.answer = nil
	h.start(h.config())
	h.wait(1)
	h.empty()
	h.once(1)
}
