package events

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

// Type is what has happened to a message for one of its recipients.
type Type string

// The types. Sent, Failed and Cancelled are final: nothing more happens, unless a person has a dead letter queued again.
const (
	Queued    Type = "email.queued"    // Redis has it
	Sent      Type = "email.sent"      // the relay has accepted it: it said 250, which is no delivery to a mailbox
	Delayed   Type = "email.delayed"   // the relay refused it for now, and another try comes
	Failed    Type = "email.failed"    // it is a dead letter; or its one try has failed, and it was handed over so (FailSilently)
	Cancelled Type = "email.cancelled" // it was taken back before it was on the wire
)

// types have their number in Redis as their index.
var types = [...]Type{1: Queued, 2: Sent, 3: Delayed, 4: Failed, 5: Cancelled}

func (t Type) number() byte {
	for i, other := range types {
		if other == t {
			return byte(i)
		}
	}
	return 0
}

// Event is what has happened to a message for one of its recipients.
type Event struct {
	// ID is the same however often the event is delivered: who has seen it need not look at it again.
	ID   string
	Type Type
	At   time.Time // by the clock of Redis, in UTC

	MessageID string // as in the header field
	EmailID   string // as Enqueue has returned it, also for what has come of the message since
	Recipient string // in full; "" if the message could not be read

	Queue   string // as the producer named it
	Mailer  string // "" for the default one
	Mailing string
	Tags    []string

	Reply string // the relay's, or why the message failed or is delayed; one line
	Tries int    // that the message had, this one included
}

// Final reports whether nothing more happens to the message for the recipient by itself.
func (t Type) Final() bool { return t == Sent || t == Failed || t == Cancelled }

// eventID is the ID of an event: of the task that it happened to, which has the same ID again only with another due time.
func eventID(task string, due int64, t Type, tries int, recipient string) string {
	h := sha256.New()
	var numbers [16]byte
	binary.BigEndian.PutUint64(numbers[:], uint64(due)) //nolint:gosec // any number will do
	binary.BigEndian.PutUint64(numbers[8:], uint64(max(tries, 0)))
	_, _ = h.Write(numbers[:])
	_, _ = h.Write([]byte(string(t) + "\x00" + task + "\x00" + recipient))
	return "evt_" + strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:15]))
}
