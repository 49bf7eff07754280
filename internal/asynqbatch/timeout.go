package asynqbatch

import (
	"context"
	"encoding/binary"
	"slices"
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
	timeout, ok := timeoutOf(message)
	if !ok {
		return message
	}
	if timeout == 0 || timeout >= neverSeconds {
		timeout = uint64(defaultTimeout / time.Second)
	}
	var room [16]byte
	return message + string(appendTimeout(room[:0], neverSeconds+timeout))
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
		if timeout, ok := timeoutOf(string(message)); ok && timeout > neverSeconds {
			changed := append([]any(nil), args...) // asynq may run the script again
			changed[i] = appendTimeout(slices.Clip(message), timeout-neverSeconds)
			return changed
		}
	}
	return args
}

// timeoutOf is the time-out of a task in seconds. It is false if the task cannot be read.
func timeoutOf(message string) (timeout uint64, ok bool) {
	for at := 0; at < len(message); {
		number, value, n := field(message[at:])
		if n == 0 {
			return 0, false
		}
		if number == fieldTimeout {
			timeout = value
		}
		at += n
	}
	return timeout, true
}

// appendTimeout gives a task another time-out, and no deadline: protocol buffers take the last one of a field.
func appendTimeout(message []byte, seconds uint64) []byte {
	return binary.AppendUvarint(append(message, fieldDeadline<<3, 0, fieldTimeout<<3), seconds)
}
