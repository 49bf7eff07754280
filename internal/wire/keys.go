package wire

// The fields that we add to asynq's record of a task. In a bulk task each message has its
// own, which end in its slot: "mailpouch:sent.17".
const (
	FieldSent  = "mailpouch:sent"  // a Record: the relay has accepted the message
	FieldBegun = "mailpouch:begun" // at_most_once: the token of a try whose end is not known
	FieldWire  = "mailpouch:wire"  // the token of a try that may have delivered the message: too late to cancel

	FieldOwner = "mailpouch:owner" // of an active task: names the fetch whose it is
	FieldLost  = "mailpouch:lost"  // how many leases of the task were lost
	FieldAlone = "mailpouch:alone" // the runs of the message alone that have begun and not ended, a blank behind each

	FieldUnrecorded = "mailpouch:unrecorded" // there, with FieldSent: the history has no record of that yet

	FieldCancelled = "mailpouch:cancelled" // not empty: the worker that has the task is to drop it
	FieldReason    = "mailpouch:reason"    // why the task is a dead letter, with addresses, which asynq's text of it has not
	FieldTry       = "mailpouch:try."      // with its number: when a try of the message has failed, and why
	FieldPutOff    = "mailpouch:putoff"    // how often workers have put the task off that they can do nothing with
	FieldReplayed  = "mailpouch:replayed"  // in place of the task: the ID of the one that a replay made of it, or of the key's next one
)

// Decided is in FieldWire while a message that was not on the wire moves on, or ends.
const Decided = "decided"

// DeadKey is a sorted set: the dead letters of a queue that asynq's own archive has no room for.
func DeadKey(queue string) string { return "mailpouch:{" + queue + "}:dead" }

// CancelledKey is there for a while after a task was cancelled. Its ID is Meta.BaseID: an ID may
// come back.
func CancelledKey(queue, id string) string { return "mailpouch:{" + queue + "}:cancelled:" + id }

// WakeChannel is where programs publish the name of a queue that they have put a task into, so that a worker looks
// at it soon. It is a hint: nothing depends on it but how soon the task is seen.
const WakeChannel = "mailpouch:wake"

// WaitingKey is in the slot of one of asynq's queues: the ID of a worker that has found the queue empty and waits for a
// task. Whoever queues one takes the ID away and publishes the queue's name on WakeChannelOf it, so that one worker wakes.
func WaitingKey(queue string) string { return "mailpouch:{" + queue + "}:waiting" }

// WakeChannelOf is where a worker that waits is told of a task.
func WakeChannelOf(worker string) string { return WakeChannel + ":" + worker }

// WorkersKey is the set of the IDs of workers that live, and of some that do no more: those without a WorkerKey.
const WorkersKey = "mailpouch:workers"

// WorkerKey is there while a worker lives.
func WorkerKey(id string) string { return "mailpouch:worker:" + id }

// DayKey is a hash: how many messages all workers sent on a day, and what became of others.
func DayKey(date string) string { return "mailpouch:day:" + date }

// QueuesKey is asynq's set of the names of queues: its inspector knows no others.
const QueuesKey = "asynq:queues"

// LoginsKey is what is known of the logins to an account, whose digest is given: when one was refused.
func LoginsKey(digest string) string { return "mailpouch:{login:" + digest + "}" }

// PausesKey is a hash in the slot of one of asynq's queues: what of it is paused. With FieldQueuePaused the queue is paused,
// beside asynq's own key that says so; a mailing has a field that begins with FieldMailing. It is gone while nothing is.
func PausesKey(queue string) string { return "mailpouch:{" + queue + "}:pauses" }

// The fields of PausesKey, and their values.
const (
	FieldQueuePaused = "queue"
	FieldMailing     = "mailing:" // and the name

	QueuePaused      = "1"     // by us
	QueueFoundPaused = "found" // with asynq's tools, which nobody has noted yet

	MailingPaused = "1"    // its tasks are set aside
	MailingBack   = "back" // those that were set aside come back, before any other is fetched
)

// AsideKey is a sorted set in the slot of one of asynq's queues: the scheduled tasks of a paused mailing, by when they came.
func AsideKey(queue, mailing string) string { return "mailpouch:{" + queue + "}:aside:" + mailing }

// AsideUntil is when what is set aside is scheduled for: never, and a time that tools can show. It is in the year 2200.
const AsideUntil = 7258118400

// PausedKey is a hash of all pauses: what is paused, and by whom.
const PausedKey = "mailpouch:paused"

// RateKey is a hash: what all workers have used of the rates of a mailer's relay, "" being the default mailer. All keys of its rates
// are in one slot.
func RateKey(mailer string) string { return "mailpouch:{rate:" + mailer + "}" }

// RateDomainKey is a hash: what they have used of the rates of a domain.
func RateDomainKey(mailer, domain string) string { return RateKey(mailer) + ":domain:" + domain }

// RateConnectionsKey is a hash: how many connections each of them has.
func RateConnectionsKey(mailer string) string { return RateKey(mailer) + ":connections" }

// RequestKey is what a client's idempotency key stands for that is for several messages: a digest of the request. digest is one of the key.
func RequestKey(digest string) string { return "mailpouch:{request:" + digest + "}" }
