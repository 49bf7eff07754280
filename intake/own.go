package intake

import (
	"context"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// Message is as tasks.Queue.Message, of a message that was handed in under the key. The error of any other one is ErrNotFound.
func (s *Submitter) Message(ctx context.Context, key *Key, id string) (tasks.Status, *mailer.EmailMessage, error) {
	if key != nil && !handover.MayBegin(id, key.own("")) { // it can be guessed: how long it takes to look is not to tell that it is there
		return tasks.Status{}, nil, ErrNotFound
	}
	status, m, err := s.queue.Message(ctx, id)
	if err != nil {
		return tasks.Status{}, nil, err
	}
	if status.State == tasks.StateUnknown || key != nil && !slices.Contains(status.Tags, key.Tag()) {
		return tasks.Status{}, nil, ErrNotFound
	}
	return status, m, nil
}

// Status is what Message says, without the message.
func (s *Submitter) Status(ctx context.Context, key *Key, id string) (tasks.Status, error) {
	status, _, err := s.Message(ctx, key, id)
	return status, err
}

// Cancel is as tasks.Queue.Cancel, for a message that was handed in under the key. The error of any other one is ErrNotFound.
func (s *Submitter) Cancel(ctx context.Context, key *Key, id string) error {
	status, err := s.Status(ctx, key, id)
	if err != nil {
		return err
	}
	return s.at(status).Cancel(ctx, status.ID)
}

// Reschedule is as tasks.Queue.Reschedule, for a message that was handed in under the key, which has to let its client choose the
// schedule. The error of any other message is ErrNotFound.
func (s *Submitter) Reschedule(ctx context.Context, key *Key, id string, at time.Time) error {
	if !key.May(ChooseSchedule) {
		return &NotAllowedError{Field: string(ChooseSchedule), Value: at.Format(time.RFC3339), Reason: "cannot be chosen with this key"}
	}
	status, err := s.Status(ctx, key, id)
	if err != nil {
		return err
	}
	return s.at(status).Reschedule(ctx, status.ID, at)
}

// at is the queue that has a message.
func (s *Submitter) at(status tasks.Status) *tasks.Queue {
	return s.queue.With(mailer.Options{Using: status.Mailer, Queue: status.Queue})
}
