package intake

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// NotAllowedError is the error of a message that its client's key does not let it hand in. Nothing was queued.
type NotAllowedError struct {
	Field  string // "from", "rate", or a Choice
	Value  string // of the field
	Reason string // what the key lets its client do
}

func (e *NotAllowedError) Error() string {
	return fmt.Sprintf("%s: %q %s", e.Field, e.Value, e.Reason)
}

// RateError is the error of a message beyond the rate of its client's key. Nothing was queued.
type RateError struct {
	Rate       string        // as the key has it
	RetryAfter time.Duration // when there may be another one
}

func (e *RateError) Error() string {
	return fmt.Sprintf("more messages than the rate of the key (%s): try again in %v", e.Rate, e.RetryAfter.Round(time.Second))
}

// ErrNotFound is the error of a message that is not there, or not the client's: it is told no difference.
var ErrNotFound = errors.New("there is no such message")

// IsFull reports whether an error of Submitter.Submit is that Redis has no memory left: the message was not queued.
func IsFull(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && strings.HasPrefix(reply.Error(), "OOM")
}
