package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// inTwoHours is a time that no test comes to.
func inTwoHours() time.Time { return time.Now().Add(2 * time.Hour).Truncate(time.Second).UTC() }

func (h *house) reschedules(q *Queue, id string, at time.Time, want error) {
	h.t.Helper()
	if err := q.Reschedule(h.t.Context(), id, at); !errors.Is(err, want) {
		h.t.Errorf("Reschedule = %v, want %v", err, want)
	}
}

// payloadOf is what waits of a message in a queue of asynq's, and until when.
func (h *house) payloadOf(queue, id string) (*wire.Payload, *asynq.TaskInfo) {
	h.t.Helper()
	info, err := inspect(h.t, h.Server).GetTaskInfo(queue, id)
	if err != nil {
		h.t.Fatal(err)
	}
	p, err := wire.Decode(info.Payload, info.Headers)
	if err != nil {
		h.t.Fatal(err)
	}
	return p, info
}

// A message with another time is as if it had been handed over with that one.
func TestReschedule_asHandedOver(t *testing.T) {
	t.Parallel()
	given := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name   string
		give   Options
		change func(m *mailer.EmailMessage)
		before func(h *house)
		dated  time.Time // the time of sending if zero
	}{
		{name: "waiting"},
		{name: "scheduled", give: Options{ProcessIn: time.Hour}},
		{name: "with a key", give: Options{ProcessIn: time.Hour, IdempotencyKey: "order-7"}},
		{name: "with all options", give: Options{Mailing: "july", Tags: []string{"a", "b"}, Retention: time.Hour, Deadline: time.Now().Add(3 * time.Hour), AtMostOnce: true}},
		{name: "with a date", change: func(m *mailer.EmailMessage) { m.Date = given }, dated: given},
		{name: "compressed", change: func(m *mailer.EmailMessage) { m.Body = string(bytes.Repeat([]byte("lorem ipsum "), 2000)) }},
		{name: "with a big attachment", change: func(m *mailer.EmailMessage) { m.Attach("a.bin", make([]byte, 100_000), "") }},
		{name: "of a paused mailing", give: Options{Mailing: "july"}, before: func(h *house) {
			h.pause(PauseTarget{Mailing: "july"})
			stop := h.start(h.config())
			h.eventually("the message is set aside", func() bool { return len(h.aside("default", "july")) == 1 })
			stop()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			m := message("ann@example.com")
			if tt.change != nil {
				tt.change(m)
			}
			q, at := h.queue.With(tt.give), inTwoHours()
			id, err := q.Enqueue(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if tt.before != nil {
				tt.before(h)
			}
			before, _ := h.payloadOf("default", id)
			h.reschedules(q, id, at, nil)
			h.reschedules(q, id, at, nil) // as often as one likes
			p, info := h.payloadOf("default", id)
			if info.State != asynq.TaskStateScheduled || !info.NextProcessAt.Equal(at) {
				t.Errorf("the task is %v until %v, want scheduled until %v", info.State, info.NextProcessAt, at)
			}
			want := at
			if !tt.dated.IsZero() {
				want = tt.dated
			}
			if !p.DueAt.Truncate(time.Millisecond).Equal(at) || !p.Message.Date.Equal(want) {
				t.Errorf("due at %v, dated %v; want %v, %v", p.DueAt, p.Message.Date, at, want)
			}
			if h.Client(t).LLen(t.Context(), "asynq:{default}:pending").Val() != 0 || len(h.aside("default", "july")) != 0 {
				t.Error("the message waits in two places")
			}
			// All else stays.
			before.DueAt, before.Message.Date, p.DueAt, p.Message.Date = time.Time{}, time.Time{}, time.Time{}, time.Time{}
			was, is := mustEncode(t, before), mustEncode(t, p)
			if !bytes.Equal(was, is) {
				t.Errorf("before:\n%s\nafter:\n%s", was, is)
			}
			h.reschedules(q, id, time.Time{}, nil) // now
			if tt.give.Mailing != "" && tt.before != nil {
				h.resume(PauseTarget{Mailing: "july"})
			}
			h.start(h.config())
			h.wait(1)
			h.once(1)
		})
	}
}

func mustEncode(t *testing.T, p *wire.Payload) []byte {
	t.Helper()
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The time of a hand-over is the time of sending where none was given, and so it is for another time that is over.
func TestReschedule_now(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	id := h.handOver("0", Options{ProcessIn: time.Hour})
	before := time.Now().Add(-time.Second)
	h.reschedules(h.queue, id, time.Now().Add(-24*time.Hour), nil)
	p, info := h.payloadOf("default", id)
	if info.State != asynq.TaskStatePending || p.DueAt.Before(before) || p.Message.Date.Before(before.Truncate(time.Second)) {
		t.Errorf("the task is %v, due at %v, dated %v, want now", info.State, p.DueAt, p.Message.Date)
	}
}

func TestReschedule_errors(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	at := inTwoHours()
	onWire := h.handOver("0", Options{Retention: time.Hour})
	release := h.blocked()
	defer release()
	inHand := h.handOver("1", Options{})
	h.eventually("the worker has both", func() bool { return h.info().Active == 2 })
	h.reschedules(h.queue, onWire, at, ErrTooLate)
	h.reschedules(h.queue, inHand, at, ErrTooLate)
	release()
	h.eventually("both are sent", func() bool { return h.info().Size == 1 && h.info().Completed == 1 })
	h.reschedules(h.queue, onWire, at, ErrTooLate)
	h.reschedules(h.queue, inHand, at, ErrNoTask)
	h.reschedules(h.queue, "nobody", at, ErrNoTask)

	// What no worker takes.
	other := NewQueue(h.Client(t), QueueConfig{Options: Options{Queue: "other"}})
	cancelled, err := other.With(Options{IdempotencyKey: "1"}).Enqueue(t.Context(), message("ann@example.com"))
	if err != nil || other.Cancel(t.Context(), cancelled) != nil {
		t.Fatal(err)
	}
	h.reschedules(other, cancelled, at, ErrNoTask)
	late, err := other.With(Options{Deadline: at.Add(-time.Hour)}).Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Reschedule(t.Context(), late, at); mailer.ClassOf(err) != mailer.Permanent || errors.Is(err, ErrTooLate) {
		t.Errorf("after its deadline: %v", err)
	}
	var bulk string
	other.SendBatch(t.Context(), mailer.Batch{
		Messages: []*mailer.EmailMessage{message("ann@example.com"), message("bob@example.com")},
		Report:   func(all []mailer.Report) { bulk = all[1].TaskID },
	})
	h.reschedules(other, bulk, at, ErrInBulk)
	h.reschedules(other, bulk+"0", at, ErrNoTask)
	if err := inspect(t, h.Server).ArchiveTask("other", late); err != nil {
		t.Fatal(err)
	}
	h.reschedules(other, late, at, ErrTooLate)
}

// A message that a try has failed of is the worker's to send again.
func TestReschedule_retry(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
	}
	id, cfg := h.handOver("0", Options{}), h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	h.start(cfg)
	h.eventually("a task to be tried again", func() bool { return h.info().Retry == 1 })
	h.reschedules(h.queue, id, inTwoHours(), ErrTooLate)
}

// A message is found in the part of the queue, and in the queue of the mailer, where it waits.
func TestReschedule_elsewhere(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	at, divided := inTwoHours(), h.divided(3, Options{})
	id, err := divided.Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	h.reschedules(h.queue, id, at, nil)
	knows := NewQueue(h.Client(t), QueueConfig{Mailers: []string{"marketing"}})
	if id, err = knows.With(Options{Using: "marketing"}).Enqueue(t.Context(), message("ann@example.com")); err != nil {
		t.Fatal(err)
	}
	h.reschedules(h.queue, id, at, nil)
	if _, info := h.payloadOf("marketing.default", id); !info.NextProcessAt.Equal(at) {
		t.Errorf("waits until %v, want %v", info.NextProcessAt, at)
	}
}

// A worker and who wants another time meet in the record of the task: either the message is sent, and it was too late, or it
// waits. Here they race for each of many messages.
func TestReschedule_race(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	const n = 400
	ids := make([]string, n)
	for i := range ids {
		ids[i] = h.handOver(fmt.Sprint(i), Options{})
	}
	at, results := inTwoHours(), make([]error, n)
	h.start(h.config())
	var all sync.WaitGroup
	for part := range 4 {
		all.Go(func() {
			for i := n - 1 - part; i >= 0; i -= 4 { // the worker begins at the other end
				results[i] = h.queue.Reschedule(t.Context(), ids[i], at)
			}
		})
	}
	all.Wait()
	h.eventually("nothing left to send", func() bool { return h.info().Pending+h.info().Active == 0 })
	sent, waits := h.relay.ids(), 0
	for i, err := range results {
		count := sent[fmt.Sprintf("<%d@t>", i)]
		switch {
		case err == nil && count == 0:
			waits++
		case err == nil, count != 1, !errors.Is(err, ErrTooLate) && !errors.Is(err, ErrNoTask):
			t.Errorf("message %d: Reschedule = %v, and it was sent %d times", i, err, count)
		}
	}
	if info := h.info(); info.Scheduled != waits || info.Size != waits {
		t.Errorf("%d wait of %d, want %d", info.Scheduled, info.Size, waits)
	}
}

// A message that a worker has forwarded to the queue of its mailer, and died, is given another time and then taken back there. Another worker, which is
// about to forward it again, does not send it: whenever that happens.
func TestReschedule_forwardedAndCancelled(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{Using: "marketing", IdempotencyKey: "order 7"}, {Using: "marketing"}} {
		for name, when := range map[string]func(redis.Cmder) bool{
			"before it looks": mentions(wire.CancelledKey("marketing.default", "")),
			"when it puts it there": func(cmd redis.Cmder) bool {
				return strings.HasPrefix(cmd.Name(), "eval") && slices.Contains(cmd.Args(), any("marketing.default"))
			},
		} {
			t.Run(fmt.Sprintf("%s/once=%v", name, o.IdempotencyKey != ""), func(t *testing.T) {
				t.Parallel()
				h, cfg := forwarding(t)
				id := h.first(about("first"), o)
				h.forwardByHand(id, "pending")
				h.reschedules(h.queue, id, inTwoHours(), nil)
				client, cancelled := h.Client(t), make(chan struct{})
				client.AddHook(newBefore(when, func() {
					h.cancels(id, nil)
					close(cancelled)
				}))
				h.startOn(client, cfg)
				<-cancelled
				h.eventually("nothing is left", func() bool {
					there, err := inspect(t, h.Server).GetQueueInfo("marketing.default")
					return err == nil && there.Size == there.Completed && h.info().Size == h.info().Completed
				})
				if n := len(h.relay.all()); n != 0 {
					t.Errorf("sent %d times", n)
				}
				h.first(about("first"), o)
				h.wait(1)
			})
		}
	}
}
