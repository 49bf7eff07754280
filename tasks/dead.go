package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/blobstore"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// A dead letter is an archived task of asynq, so asynqmon shows it. But asynq drops
// archived tasks without a word: all but the newest 10,000 of a queue, and those older
// than 90 days, whenever it archives another. So before a worker archives one it
// moves the oldest out of asynq's reach, into a sorted set of ours beside the
// archive. The task's record stays where it is; only the list that names it changes.

func archiveKey(queue string) string { return "asynq:{" + queue + "}:archived" }

func pendingKey(queue string) string { return "asynq:{" + queue + "}:pending" }

// rescue comes before a task is archived. It moves the dead letters of its queue that asynq
// would soon drop, and notes the whole reason, for asynq gets it without addresses.
func rescue(ctx context.Context, client redis.UniversalClient, queue, id, reason string) error {
	if err := asynqbatch.MakeRoom(ctx, client, queue, asynqbatch.TaskKey(queue, id), reason); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

// wholeReason is why a task has failed last: in full, if that is noted of just this failure. What has never failed, and
// is a dead letter because a person has archived it, has a reason too.
func wholeReason(ctx context.Context, client redis.UniversalClient, info *asynq.TaskInfo) (string, error) {
	noted, err := client.HGet(ctx, asynqbatch.TaskKey(info.Queue, info.ID), wire.FieldReason).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", redisconn.Unavailable(err)
	}
	return reasonOf(noted, info.LastErr), nil
}

// reasonOf is wholeReason of what is noted and what asynq has.
func reasonOf(noted, lastErr string) string {
	if lastErr == "" || redact.Reason(noted, false) == lastErr {
		return noted
	}
	return lastErr
}

// DeadLetter is a message, or those of its recipients, that could not be delivered and
// will not be tried again by itself.
type DeadLetter struct {
	ID     string // of the task
	Queue  string
	Reason string    // the last error, with addresses
	Tries  int       // that the message had
	At     time.Time // of the last one

	// Message is nil if the task could not be read, or has many messages; Payload is what it holds.
	Message    *mailer.EmailMessage
	Messages   int      // of a task of bulk mail that is a dead letter as a whole; 0 for others
	Recipients []string // bare addresses: those of the message that it did not reach
	Tags       []string
	Mailing    string
	Payload    []byte

	// Missing names the attachments and bodies whose content is lost: it was stored beside
	// the queue and is not there any more. They are empty in Message.
	Missing []string

	kind  string        // asynq's type of the task
	blobs *wire.Payload // what Summary has left out of Message; nil: nothing
}

// DeadLetters is the way to the messages that could not be delivered.
type DeadLetters struct {
	redis     redis.UniversalClient
	client    *producer
	inspector *asynq.Inspector
}

// NewDeadLetters returns the dead letters in the given Redis, which it does not close.
func NewDeadLetters(client redis.UniversalClient) *DeadLetters {
	return &DeadLetters{
		redis: client, client: newProducer(client), inspector: asynq.NewInspectorFromRedisClient(client),
	}
}

// Queues returns the names of all queues, sorted, as asynq has them: "default", and
// "marketing.default" for the mail of the named mailer marketing.
func (d *DeadLetters) Queues() ([]string, error) {
	queues, err := d.inspector.Queues()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	slices.Sort(queues)
	return queues, nil
}

// Count returns how many dead letters a queue has: the number to alarm on.
func (d *DeadLetters) Count(ctx context.Context, queue string) (int, error) {
	sum := 0
	for _, key := range []string{wire.DeadKey(queue), archiveKey(queue)} {
		n, err := d.redis.ZCard(ctx, key).Result()
		if err != nil {
			return 0, redisconn.Unavailable(err)
		}
		sum += int(n)
	}
	return sum, nil
}

// ErrNotDead reports that there is no dead letter with an ID.
var ErrNotDead = errors.New("no such dead letter")

// Get returns a dead letter with its whole message. The error is ErrNotDead if it was
// replayed or deleted.
func (d *DeadLetters) Get(queue, id string) (*DeadLetter, error) {
	l, err := d.Summary(queue, id)
	if err != nil || l.blobs == nil {
		return l, err
	}
	list := make([]blobstore.Blob, len(l.blobs.Blobs))
	for i, b := range l.blobs.Blobs {
		list[i] = blobOf(b)
	}
	contents, faults, err := d.client.contents.store.Read(context.Background(), list)
	if err != nil {
		return nil, err
	}
	for i, b := range l.blobs.Blobs {
		b.Put(l.Message, contents[i])
		if faults[i] != nil {
			l.Missing = append(l.Missing, lost(l.blobs, b, faults[i]).Error())
		}
	}
	l.blobs = nil
	return l, nil
}

// Summary is Get for lists: what is stored beside the queue, the attachments and bodies
// over QueueConfig.AttachmentThreshold, stays there and is empty in the message. Of
// Raw there is the beginning, which has the subject.
func (d *DeadLetters) Summary(queue, id string) (*DeadLetter, error) {
	info, err := d.inspector.GetTaskInfo(queue, id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return nil, fmt.Errorf("tasks: %s: %w", id, ErrNotDead)
	case err != nil:
		return nil, redisconn.Unavailable(err)
	case info.State != asynq.TaskStateArchived:
		return nil, fmt.Errorf("tasks: %s is %v: %w", id, info.State, ErrNotDead)
	}
	reason, err := wholeReason(context.Background(), d.redis, info)
	if err != nil {
		return nil, err
	}
	l := &DeadLetter{
		ID: id, Queue: queue, Reason: reason, Tries: info.Retried + 1, At: info.LastFailedAt, Payload: info.Payload,
		kind: info.Type,
	}
	if l.At.IsZero() { // it was never tried
		l.Tries--
		if l.At, err = d.archivedAt(queue, id); err != nil {
			return nil, err
		}
	}
	if info.Type == wire.TaskTypeBulk {
		summarizeBulk(l, info.Payload)
	} else if p, err := wire.Decode(info.Payload, info.Headers); err == nil {
		l.Message, l.Recipients, l.Tags, l.Mailing = p.Message, p.Recipients, p.Tags, p.Mailing
		if l.Tries += p.Spent; p.Refused != "" && p.Spent > 0 {
			l.Tries = p.Spent // it was refused in another task; this one was not tried
		}
		if len(p.Blobs) > 0 {
			l.blobs = p
			d.beginRaw(p)
		}
		if envelope, err := p.Message.Envelope(); err == nil && len(l.Recipients) == 0 {
			l.Recipients = envelope.To
		}
	}
	return l, nil
}

// summarizeBulk fills in what the payloads of a bulk task say. It is a dead letter as a whole if all its messages have
// expired while it waited, or if a person has archived it.
func summarizeBulk(l *DeadLetter, payload []byte) {
	for line := range bytes.Lines(payload) {
		l.Messages++
		o, _ := wire.ReadOutline(line)
		if l.Messages == 1 {
			l.Tags, l.Mailing = o.Tags, o.Mailing // as all have that were handed over together
		}
		to := o.Recipients
		for _, list := range [][]string{o.To, o.Cc, o.Bcc} {
			if len(o.Recipients) == 0 {
				to = append(to, list...)
			}
		}
		l.Recipients = append(l.Recipients, to...)
	}
}

// archivedAt is when a task became a dead letter.
func (d *DeadLetters) archivedAt(queue, id string) (time.Time, error) {
	for _, key := range []string{archiveKey(queue), wire.DeadKey(queue)} {
		at, err := d.redis.ZScore(context.Background(), key, id).Result()
		switch {
		case err == nil:
			return time.Unix(int64(at), 0), nil
		case !errors.Is(err, redis.Nil):
			return time.Time{}, redisconn.Unavailable(err)
		}
	}
	return time.Time{}, nil
}

// rawBeginning is enough for most headers.
const rawBeginning = 16 << 10

// beginRaw fills in the beginning of a raw message that is a blob, if it is there.
func (d *DeadLetters) beginRaw(p *wire.Payload) {
	for _, b := range p.Blobs {
		if b.Part != wire.PartRaw {
			continue
		}
		if head, err := d.client.contents.store.Head(context.Background(), b.Hash, rawBeginning); err == nil {
			b.Put(p.Message, head)
		}
	}
}
