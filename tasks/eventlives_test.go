package tasks

import (
	"context"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// A message that goes on in another queue than that of its producer, and is taken back there before anything else has happened there, has its
// final event.
func TestEvents_cancelledElsewhere(t *testing.T) {
	t.Parallel()
	t.Run("forwarded", func(t *testing.T) {
		t.Parallel()
		h, cfg := eventHouse(t, QueueConfig{Options: Options{Using: "marketing"}})
		w := h.witness(h.Client(t))
		if err := inspect(t, h.Server).PauseQueue("marketing.default"); err != nil {
			t.Fatal(err)
		}
		cfg.Mailers = map[string]int{"marketing": 1}
		h.start(cfg)
		ids := []string{h.handOver("0", Options{}), h.handOver("1", Options{IdempotencyKey: "order 7"})}
		for _, id := range ids {
			h.eventually("it waits there", func() bool {
				return h.stateIn("marketing.default", id) == "pending" && h.stateIn("default", id) != "active"
			})
			h.cancels(id, nil)
		}
		h.tells(w, each(ids, toAnn, "queued cancelled"))
	})
	t.Run("out of a task of many", func(t *testing.T) {
		t.Parallel()
		h, cfg := eventHouse(t, QueueConfig{})
		w := h.witness(h.Client(t))
		h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "greylisted")}
		}
		cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
		h.start(cfg)
		ids := h.sendAll(3, nil)
		h.eventually("they wait alone", func() bool { return h.info().Retry == 3 && h.size("default:mass") == 0 })
		for _, id := range ids {
			h.cancels(id, nil)
		}
		h.tells(w, each(ids, toUser, "queued delayed cancelled"))
	})
}

// Other ways of a message's life have the same events.
func TestEvents_lives(t *testing.T) {
	t.Parallel()
	boss := BeforeSendFunc(func(_ context.Context, m Outgoing) (*mailer.EmailMessage, error) {
		return m.Message.Redirect("boss@example.net"), nil
	})
	stops := BeforeSendFunc(func(context.Context, Outgoing) (*mailer.EmailMessage, error) { return nil, Stop("not today") })
	for _, tt := range []struct {
		name string
		o    Options
		cfg  func(*WorkerConfig)
		do   func(h *house, id string)
		want string
	}{
		{name: "forwarded", o: Options{Using: "marketing"}, want: "queued sent"},
		{name: "forwarded once", o: Options{Using: "marketing", IdempotencyKey: "7"}, want: "queued sent"},
		{name: "forwarded, and its worker has died", o: Options{Using: "marketing", IdempotencyKey: "7"}, want: "queued sent", do: func(h *house, id string) {
			h.forwardByHand(id, "pending")
		}},
		{name: "another time", o: Options{ProcessIn: time.Hour}, want: "queued sent", do: func(h *house, id string) {
			h.reschedules(h.queue, id, inTwoHours(), nil)
			h.reschedules(h.queue, id, time.Time{}, nil)
		}},
		{name: "for others", cfg: func(c *WorkerConfig) { c.BeforeSend = []BeforeSend{boss} }, want: "queued sent"},
		{name: "stopped", cfg: func(c *WorkerConfig) { c.BeforeSend = []BeforeSend{stops} }, want: "queued failed"},
		{name: "unknown mailer", o: Options{Using: "nobody"}, want: "queued failed"},
		{name: "in doubt", o: Options{AtMostOnce: true}, want: "queued failed", cfg: func(c *WorkerConfig) {
			c.BeforeSend = []BeforeSend{BeforeSendFunc(func(_ context.Context, m Outgoing) (*mailer.EmailMessage, error) {
				e := *m.Message
				e.Subject = "in doubt"
				return &e, nil
			})}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, cfg := eventHouse(t, QueueConfig{})
			h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
				if m.Subject == "in doubt" {
					return mailer.Result{Err: sendError(mailer.Unknown, 0, "the connection is gone")}
				}
				return mailer.Result{}
			}
			w := h.witness(h.Client(t))
			cfg.Mailers = map[string]int{"marketing": 1}
			if tt.cfg != nil {
				tt.cfg(&cfg)
			}
			id := h.handOver("0", tt.o)
			if tt.do != nil {
				tt.do(h, id)
			}
			h.start(cfg)
			h.tells(w, each([]string{id}, toAnn, tt.want))
			h.eventually("nothing is left to do", func() bool { i := h.info(); return i.Pending+i.Active+i.Retry+i.Scheduled == 0 })
			h.tells(w, each([]string{id}, toAnn, tt.want))
		})
	}
}
