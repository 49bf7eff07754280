package tasks

import (
	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
)

// together gathers messages with a task each, so that as many as may be of those that are handed over together share a round trip.
type together struct {
	put    func(list []*producer.Ready) error // of one queue
	report func(reports []mailer.Report)
	queues map[string]*gathered
}

// gathered is what goes to a queue in one script.
type gathered struct {
	ready   []*producer.Ready
	reports []mailer.Report // of its messages, if they are queued
	size    int
}

// add gathers a message, and hands over what is gathered for its queue when that is enough.
func (t *together) add(ready *producer.Ready, report mailer.Report) {
	if ready.Queue == "" {
		t.hand(&gathered{ready: []*producer.Ready{ready}, reports: []mailer.Report{report}})
		return
	}
	g := t.queues[ready.Queue]
	if g == nil {
		g = new(gathered)
		if t.queues == nil {
			t.queues = map[string]*gathered{}
		}
		t.queues[ready.Queue] = g
	}
	g.ready, g.reports, g.size = append(g.ready, ready), append(g.reports, report), g.size+ready.Size
	if len(g.ready) == asynqbatch.MostEnqueued || g.size >= asynqbatch.BytesEnqueued {
		t.hand(g)
	}
}

// flush hands over all that is gathered.
func (t *together) flush() {
	for _, g := range t.queues {
		t.hand(g)
	}
}

func (t *together) hand(g *gathered) {
	if len(g.ready) == 0 {
		return
	}
	if err := t.put(g.ready); err != nil {
		fail(g.reports, err)
	}
	t.report(g.reports)
	*g = gathered{ready: g.ready[:0], reports: g.reports[:0]}
}
