package tasks

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/events"
)

// Event is what has happened to a message for one of its recipients.
//
//	type Event struct {
//		// ID is the same however often the event is delivered: who has seen it need not look at it again.
//		ID   string
//		Type Type
//		At   time.Time // by the clock of Redis, in UTC
//
//		MessageID string // as in the header field
//		EmailID   string // as Enqueue has returned it, also for what has come of the message since
//		Recipient string // in full; "" if the message could not be read
//
//		Queue   string // as the producer named it
//		Mailer  string // "" for the default one
//		Mailing string
//		Tags    []string
//
//		Reply string // the relay's, or why the message failed or is delayed; one line
//		Tries int    // that the message had, this one included
//	}
type Event = events.Event

// EventType is what has happened to a message for one of its recipients.
//
//	type Type string
//
//	// Final reports whether nothing more happens to the message for the recipient by itself.
//	func (t Type) Final() bool
type EventType = events.Type

// The types of events. EventSent, EventFailed and EventCancelled are final: nothing more happens, unless a person has a dead letter
// queued again.
const (
	EventQueued    = events.Queued    // Redis has the message
	EventSent      = events.Sent      // the relay has accepted it: it said 250, which is no delivery to a mailbox
	EventDelayed   = events.Delayed   // the relay refused it for now, and another try comes
	EventFailed    = events.Failed    // it is a dead letter; or its one try has failed, and it was handed over so (FailSilently)
	EventCancelled = events.Cancelled // it was taken back before it was on the wire
)

// EventsConfig configures Events.
//
//	type ReaderConfig struct {
//		// Group is whom the events are for: of all readers of a group one gets an event, and each group gets all of them, from when its first
//		// reader began. It is a name as those of queues are.
//		Group string
//
//		Batch  int             // events that are handled together, at most: 100 if zero
//		Logger *zerolog.Logger // no logs if nil
//		// Has unexported fields.
//	}
type EventsConfig = events.ReaderConfig

// Events reads what happens to messages, where QueueConfig.Events and WorkerConfig.Events have it written.
type Events struct{ room *events.Reader }

// NewEvents returns a reader of the events in the given Redis, which it does not close.
func NewEvents(client redis.UniversalClient, cfg EventsConfig) *Events {
	return &Events{events.NewReader(client, cfg)}
}

// Begin makes the group known, if it is not: it gets what happens from then on, also while no reader runs. Run does so too. The error is
// that the group has no name, or that Redis could not be asked.
func (e *Events) Begin(ctx context.Context) error { return e.room.Begin(ctx) }

// Run calls handle with what has happened, in the order in which it has, until ctx ends. It returns nil then, or at once an error if
// the group has no name. One call has up to EventsConfig.Batch events, maybe of several messages.
//
// When handle returns nil the events are done for the group. When it returns an error they come again, to the same reader, after a second,
// and then after pauses that grow to a minute; those behind them wait. So handle is to return an error only if trying
// again helps. It may take as long as it likes.
//
// At least once: what a reader had not done when it died another one gets, half a minute later. Such an event has the same ID. The events of a message come in
// their order, as far as they are in one queue: one that leaves a task of many, or goes to the queue of its mailer, may be overtaken by
// itself by a second or so.
//
// The context of handle ends with ctx, and if the reader stood still for so long that another one has taken over.
// One reader calls Run once at a time.
func (e *Events) Run(ctx context.Context, handle func(ctx context.Context, events []Event) error) error {
	return e.room.Run(ctx, handle)
}

// ForgetEvents ends a group of readers: what it has not read counts for nobody. It is for a group that nobody reads for any more. If a
// reader of the group runs, it begins anew, with what happens then.
func ForgetEvents(ctx context.Context, client redis.UniversalClient, group string) error {
	return events.Forget(ctx, client, group)
}
