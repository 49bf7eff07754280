package intake

import (
	"context"
	"slices"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// Status is as tasks.Queue.Status, of a message that was handed in under the key. The error of any other one is ErrNotFound.
func (s *Submitter) Status(ctx context.Context, key *Key, id string) (tasks.Status, error) {
	status, err := s.queue.Status(ctx, id)
	if err != nil {
		return tasks.Status{}, err
	}
	if status.State == tasks.StateUnknown || key != nil && !slices.Contains(status.Tags, key.Tag()) {
		return tasks.Status{}, ErrNotFound
	}
	return status, nil
}

// Cancel is as tasks.Queue.Cancel, for a message that was handed in under the key. The error of any other one is ErrNotFound.
func (s *Submitter) Cancel(ctx context.Context, key *Key, id string) error {
	status, err := s.Status(ctx, key, id)
	if err != nil {
		return err
	}
	return s.at(status).Cancel(ctx, status.ID)
}

// at is the queue that has a message.
func (s *Submitter) at(status tasks.Status) *tasks.Queue {
	return s.queue.With(mailer.Options{Using: status.Mailer, Queue: status.Queue})
}
