package asynqbatch

import (
	"context"
	"encoding/binary"
	"strings"
	"time"
)

// A task has a time-out, or a deadline, of the program that enqueued it. When it is over asynq gives the task back
// beside the handler, which goes on: somebody else gets the task meanwhile. How long a worker needs is for the
// worker to know, by its own settings. So asynq here gets each task with a time-out that is never over, and
// what asynq writes to Redis of a task has its own time-out again.

// never is added to a task's time-out. The sum is a time that tools can show.
const never = 100 * 365 * 24 * time.Hour

// defaultTimeout is what asynq's client gives a task that has neither a time-out nor a deadline.
const defaultTimeout = 30 * time.Minute

const neverSeconds = uint64(never / time.Second)

// Timeout is the time-out of a task that a handler has begun now with that context, in whole seconds. It is for
// tasks that are to have the same one: the context itself does not end with it.
func Timeout(ctx context.Context, now time.Time) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return defaultTimeout
	}
	left := deadline.Sub(now)
	if left > never/2 {
		left -= never
	}
	return max(left.Round(time.Second), time.Second)
}

// withoutTimeout is a task as asynq gets it. One that cannot be read stays as it is.
func withoutTimeout(message string) string {
	timeout, rest, ok := cutTimeout(message)
	if !ok {
		return message
	}
	if timeout == 0 || timeout >= neverSeconds {
		timeout = uint64(defaultTimeout / time.Second)
	}
	return addTimeout(rest, neverSeconds+timeout)
}

// withTimeouts undoes withoutTimeout in the arguments of a script about a task, but for a deadline: nobody obeys it.
func withTimeouts(keys []string, args []any) []any {
	if len(keys) == 0 || !strings.Contains(strings.Join(keys, " "), "}:t:") {
		return args
	}
	for i, arg := range args {
		message, isTask := arg.([]byte)
		if !isTask {
			continue
		}
		if timeout, rest, ok := cutTimeout(string(message)); ok && timeout > neverSeconds {
			changed := append([]any(nil), args...) // asynq may run the script again
			changed[i] = []byte(addTimeout(rest, timeout-neverSeconds))
			return changed
		}
	}
	return args
}

// cutTimeout returns the time-out of a task in seconds, and the task without that and without a deadline.
func cutTimeout(message string) (timeout uint64, rest string, ok bool) {
	var b strings.Builder
	b.Grow(len(message) + binary.MaxVarintLen64 + 1)
	kept := 0 // what of the message is in b, or left out
	for at := 0; at < len(message); {
		number, value, n := field(message[at:])
		if n == 0 {
			return 0, "", false
		}
		if number == fieldTimeout || number == fieldDeadline {
			if number == fieldTimeout {
				timeout = value
			}
			b.WriteString(message[kept:at])
			kept = at + n
		}
		at += n
	}
	b.WriteString(message[kept:])
	return timeout, b.String(), true
}

func addTimeout(message string, seconds uint64) string {
	return message + string(binary.AppendUvarint([]byte{fieldTimeout << 3}, seconds))
}
