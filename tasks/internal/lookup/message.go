package lookup

import (
	"context"

	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Message returns what is known of a message by its ID or its own ID in a task of many, as Status does, and the message itself while a task has
// it, nil otherwise. Contents that are stored beside the queue are left out. The history is looked through only for a message that
// no task has: what waits is found at once.
func (l *Lookup) Message(ctx context.Context, id string) (Status, *mailer.EmailMessage, error) {
	places, err := find.Queues(ctx, l.redis)
	if err != nil {
		return Status{}, nil, err
	}
	live, err := l.live(ctx, places, id)
	if err != nil {
		return Status{}, nil, err
	}
	var s Status
	for _, other := range live {
		switch {
		case other.ID != id:
			s.Parts = append(s.Parts, other)
		case other.MessageID != "" && s.ID == "": // what is in the place of a task says nothing of its message
			parts := s.Parts
			s, s.Parts = other, parts
		}
	}
	if s.ID == "" {
		s, err = l.byID(ctx, places, id)
		return s, nil, err
	}
	m, err := l.payload(ctx, places, id)
	return s, m, err
}

// payload returns the message with an ID as its task has it.
func (l *Lookup) payload(ctx context.Context, places []wire.QueueName, id string) (*mailer.EmailMessage, error) {
	var single, bulk []wire.QueueName
	for _, place := range places {
		if place.Bulk {
			bulk = append(bulk, place)
		} else {
			single = append(single, place)
		}
	}
	records, err := find.Records(ctx, l.redis, id, single...)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if p, err := wire.Decode(r.Payload, nil); err == nil && r.Type == wire.TaskType {
			return p.Message, nil
		}
	}
	task, index, ok := wire.SplitID(id)
	if !ok {
		return nil, nil
	}
	if records, err = find.Records(ctx, l.redis, task, bulk...); err != nil {
		return nil, err
	}
	for _, r := range records {
		n := 0
		for line := range wire.Lines(r.Payload) {
			if n == index {
				if p, err := wire.Decode(line, nil); err == nil {
					return p.Message, nil
				}
			}
			n++
		}
	}
	return nil, nil
}
