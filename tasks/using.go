package tasks

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// UnknownMailerError says that a message names a mailer that is not configured.
type UnknownMailerError struct {
	Name  string
	Known []string
}

func (e *UnknownMailerError) Error() string {
	return fmt.Sprintf("tasks: the mailer %q is not configured (there are %s)", e.Name, strings.Join(e.Known, ", "))
}

// Using returns the queue for messages that a named mailer is to deliver, "" being the
// default one. The payload carries the name alone; host and password are the worker's.
// A name that QueueConfig.Mailers lacks is an UnknownMailerError.
func (q *Queue) Using(name string) (mailer.Backend, error) {
	if err := q.checkMailer(name); err != nil {
		return nil, err
	}
	o := q.cfg.Options
	o.Using = name
	return q.With(o), nil
}

func (q *Queue) checkMailer(name string) error {
	if name == "" || q.cfg.Mailers == nil || slices.Contains(q.cfg.Mailers, name) {
		return nil
	}
	return &UnknownMailerError{Name: name, Known: q.cfg.Mailers}
}

// queueOf is the queue of asynq's that the task with an ID waits in. A named mailer has
// queues of its own. A producer that does not know the mailers puts the message
// into the plain queue, from which a worker forwards it.
func (q *Queue) queueOf(id string) wire.QueueName {
	n := wire.QueueName{Queue: cmp.Or(q.cfg.Options.Queue, "default"), Shard: wire.ShardOf(id, q.cfg.Shards)}
	if q.cfg.Mailers != nil {
		n.Mailer = q.cfg.Options.Using
	}
	return n
}
