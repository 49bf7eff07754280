package tasks

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// Tags and the mailing's name are with a message wherever it goes: from a mass task that its mailer forwards to tasks of
// its own, to dead letters and to what a replay makes of these. They are in no mail.
func TestTags_travel(t *testing.T) {
	t.Parallel()
	o := Options{Using: "marketing", Tags: []string{"invoice", "Grüße"}, Mailing: "spring-2026"}
	h := bulkHouse(t, QueueConfig{Options: o})
	var well, later atomic.Bool
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		switch {
		case m.MessageID == "<3@t>" && !later.Swap(true):
			return mailer.Result{Err: sendError(mailer.Temporary, 450, "later")}
		case well.Load():
		case m.MessageID == "<1@t>":
			return mailer.Result{Err: sendError(mailer.Permanent, 554, "no spam here")}
		case m.MessageID == "<2@t>":
			refused := sendError(mailer.Permanent, 550, "no such user")
			refused.Step, refused.Recipient = mailer.StepRcpt, "bob@example.com"
			return mailer.Result{Refused: []*mailer.SendError{refused}}
		}
		return mailer.Result{}
	}
	h.sendAll(4, func(i int, m *mailer.EmailMessage) {
		if i == 2 {
			m.To = append(m.To, "bob@example.com")
		}
	})
	seen := new(outcomes)
	cfg := h.config()
	cfg.Mailers, cfg.Observers = map[string]int{"marketing": 1}, []Observer{seen.observer()}
	h.start(cfg)

	const queue = "marketing.default"
	d := NewDeadLetters(h.Client(t))
	var ids []string
	h.eventually("two dead letters, two messages sent", func() bool {
		ids, _ = d.IDs(t.Context(), queue)
		return len(ids) == 2 && seen.count(ActionSent) == 3
	})
	well.Store(true)
	for _, id := range ids {
		l, err := d.Summary(queue, id)
		if err != nil || !slices.Equal(l.Tags, o.Tags) || l.Mailing != o.Mailing {
			t.Errorf("dead letter %+v, %v, want its tags and mailing", l, err)
		}
		if _, err := d.Replay(t.Context(), queue, id); err != nil {
			t.Error(err)
		}
	}
	h.eventually("the replayed ones sent", func() bool { return seen.count(ActionSent) == 5 })
	seen.mu.Lock()
	defer seen.mu.Unlock()
	actions := map[Action]int{}
	for _, out := range seen.all {
		actions[out.Action]++
		if !slices.Equal(out.Tags, o.Tags) || out.Mailing != o.Mailing {
			t.Errorf("outcome without its tags or mailing: %+v", out)
		}
	}
	if actions[ActionForwarded] == 0 || actions[ActionRetry] == 0 || actions[ActionDead] < 2 {
		t.Errorf("not all ways were gone: %v", actions)
	}
}

// A mass task that is a dead letter as a whole has the tags of its messages.
func TestTags_ofWholeMassTask(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	o := Options{Tags: []string{"invoice"}, Mailing: "spring"}
	q := NewQueue(server.Client(t), QueueConfig{Options: o})
	if _, err := q.SendMessages(t.Context(), []*mailer.EmailMessage{message("a@example.com"), message("b@example.com")}); err != nil {
		t.Fatal(err)
	}
	const queue = "default:mass"
	if n, err := inspect(t, server).ArchiveAllPendingTasks(queue); err != nil || n != 1 {
		t.Fatalf("%d archived, %v", n, err)
	}
	d := NewDeadLetters(server.Client(t))
	ids, err := d.IDs(t.Context(), queue)
	if err != nil || len(ids) != 1 {
		t.Fatalf("%q, %v", ids, err)
	}
	if l, err := d.Summary(queue, ids[0]); err != nil || l.Messages != 2 || !slices.Equal(l.Tags, o.Tags) || l.Mailing != o.Mailing {
		t.Errorf("%+v, %v", l, err)
	}
}
