package letters

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

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

	// History has the tries that Redis remembers, oldest first: those of this task after which the message was to be
	// tried again, and the last one. Get alone fills it in.
	History []Try

	blobs  *wire.Payload // what Summary has left out of Message; nil: nothing
	kind   string        // asynq's type of the task
	failed bool          // it was tried
	score  float64       // that asynq's set has with it: when it is tried again, if it is
}

// Try is one try of a message that has failed.
type Try struct {
	Number int       `json:"try"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"` // with addresses
}

// Mailer is the name of the mailer whose queue the message is in, "" for the default one.
func (l *DeadLetter) Mailer() string { return wire.ParseQueueName(l.Queue).Mailer }

// Subject is the subject of the message, if there is one that can be read.
func (l *DeadLetter) Subject() string {
	switch {
	case l.Message == nil:
		return ""
	case l.Message.Subject != "":
		return l.Message.Subject
	}
	return l.Message.RawHeader("Subject")
}

// place is where a task is, and the time that asynq has with it in a sorted set.
type place struct {
	queue, id string
	score     float64
}

// The states of asynq's that a message has which failed, and the field of a task's record that has it.
const (
	stateArchived = "archived"
	stateRetry    = "retry"
	fieldState    = "state"
	fieldMessage  = "msg"
)

// readLetters reads the tasks in these places that are in the state, in one round trip. One that is not is nil. Messages
// are not decoded.
func readLetters(ctx context.Context, client redis.UniversalClient, state string, places []place) ([]*DeadLetter, error) {
	answers := make([]*redis.SliceCmd, len(places))
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, at := range places {
			answers[i] = p.HMGet(ctx, asynqbatch.TaskKey(at.queue, at.id), fieldState, fieldMessage, wire.FieldReason)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	letters := make([]*DeadLetter, len(places))
	for i, at := range places {
		var fields [3]string
		for n, v := range answers[i].Val() {
			fields[n], _ = v.(string)
		}
		if fields[0] != state {
			continue
		}
		letters[i] = newLetter(at, fields[1], fields[2])
		if state == stateRetry { // asynq has counted it, if the task is not of recipients that were put off
			letters[i].Tries = max(letters[i].Tries-1, 0)
		}
	}
	return letters, nil
}

// newLetter is what a task's record says without its message. The reason that is noted counts if it is that of the last
// failure. What has never failed, and is a dead letter because a person has archived it, has a reason too.
func newLetter(at place, message, noted string) *DeadLetter {
	m, _ := asynqbatch.ReadMessage(message) // what cannot be read is empty
	l := &DeadLetter{ID: at.id, Queue: at.queue, Reason: find.Reason(noted, m.LastError), Tries: m.Retried + 1, At: m.LastFailed, Payload: wire.Plain(m.Payload), kind: m.Type, score: at.score}
	if l.failed = !l.At.IsZero(); !l.failed {
		l.Tries--
		l.At = time.Unix(int64(at.score), 0)
	}
	return l
}

// decode reads the message, or messages, of a letter: what is stored beside the queue is left out.
func (l *DeadLetter) decode() {
	if l.kind == wire.TaskTypeBulk {
		l.decodeMany()
		return
	}
	p, err := wire.Decode(l.Payload, nil)
	if err != nil {
		return
	}
	l.Message, l.Recipients, l.Tags, l.Mailing = p.Message, p.Recipients, p.Tags, p.Mailing
	if l.Tries += p.Spent; p.Refused != "" && p.Spent > 0 {
		l.Tries = p.Spent // it was refused in another task; this one was not tried
	}
	if l.failed {
		l.Tries = max(l.Tries, 1)
	}
	if len(p.Blobs) > 0 {
		l.blobs = p
	}
	if envelope, err := p.Message.Envelope(); err == nil && len(l.Recipients) == 0 {
		l.Recipients = envelope.To
	}
}

// decodeMany fills in what the payloads of a bulk task say. It is a dead letter as a whole if all its messages have
// expired while it waited, or if a person has archived it.
func (l *DeadLetter) decodeMany() {
	for line := range bytes.Lines(l.Payload) {
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

// MaxTries is how many tries of a message are remembered: the first ones, and the last one always.
const MaxTries = 50

// tryField is where the record of a task has one of its tries.
func tryField(number int) string { return wire.FieldTry + strconv.Itoa(number) }

// TryNote is how the record of a task notes a try that has failed: in which field, and as what.
func TryNote(number int, at time.Time, reason error) (field, note string) {
	data, _ := json.Marshal(Try{ // it has nothing that cannot be
		Number: number, At: at.UTC().Truncate(time.Second), Reason: redact.Cut(redact.Reason(reason.Error(), true), maxTryReason),
	})
	return tryField(number), string(data)
}

const maxTryReason = 500 // characters

// readHistory fills in the history of a letter.
func (l *DeadLetter) readHistory(ctx context.Context, client redis.UniversalClient) error {
	fields := make([]string, min(max(l.Tries, 1), MaxTries))
	for i := range fields {
		fields[i] = tryField(i + 1)
	}
	values, err := client.HMGet(ctx, asynqbatch.TaskKey(l.Queue, l.ID), fields...).Result()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	for _, v := range values {
		var try Try
		if text, ok := v.(string); ok && json.Unmarshal([]byte(text), &try) == nil {
			l.History = append(l.History, try)
		}
	}
	if n := len(l.History); n > 0 && l.History[n-1].Number == l.Tries {
		return nil
	}
	if l.Tries > 0 && l.Reason != "" {
		l.History = append(l.History, Try{l.Tries, l.At, l.Reason})
	}
	return nil
}
