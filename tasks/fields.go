package tasks

import "github.com/mailpouch/mailpouch/internal/asynqbatch"

// taskKey is where asynq keeps a task.
func taskKey(queue, id string) string { return asynqbatch.TaskKey(queue, id) }

// The fields that we add to asynq's record of a task. In a mass task each message has its
// own, which end in its slot: "mailpouch:sent:17".
const (
	fieldSent  = "mailpouch:sent"  // a record: the relay has accepted the message
	fieldBegun = "mailpouch:begun" // at_most_once: the token of a try whose end is not known
	fieldWire  = "mailpouch:wire"  // the token of a try that may have delivered the message: too late to cancel

	fieldLost  = "mailpouch:lost"  // how many leases of the task were lost
	fieldAlone = "mailpouch:alone" // the runs of the message alone that have begun and not ended, a blank behind each

	fieldCancelled = "mailpouch:cancelled" // "1": the worker that has the task is to drop it
	fieldReason    = "mailpouch:reason"    // why the task is a dead letter, with addresses, which asynq's text of it has not
	fieldReplayed  = "mailpouch:replayed"  // in place of the task: the ID of the one that a replay made of it
)

// headerDied is the header of a task whose message is not to be read: why not.
const headerDied = "mailpouch-died"
