package tasks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// This file is what the policy (internal/deliverypolicy) is for asynq: what becomes of a message after a try, in the words of
// its task.

// policy is the policy with what asynq asks of it.
type policy struct{ deliverypolicy.Policy }

type (
	attempt = deliverypolicy.Attempt
	verdict = deliverypolicy.Verdict
)

const (
	complete   = deliverypolicy.Complete
	retry      = deliverypolicy.Retry
	hold       = deliverypolicy.Hold
	deadLetter = deliverypolicy.DeadLetter
	drop       = deliverypolicy.Drop
)

// delayOf is the pause before those recipients are tried again alone. soon says that they may be at once.
func (p policy) delayOf(refused []*mailer.SendError, soon bool) time.Duration {
	why := deliverypolicy.RefusedReason(refused)
	if soon {
		return deliverypolicy.RetryAfter(why)
	}
	return p.DelayAfter(0, why)
}

// expiredError ends a message whose time was up when it was its turn.
type expiredError = deliverypolicy.ExpiredError

// spareRetry is added to the retries that asynq counts. asynq archives a task whose
// retries are used up even when it comes back without a try spent (the worker lost its
// lease, its time was up). With one to spare, which the policy never uses, such a
// task is tried again as it should be.
const spareRetry = 1

// retryError makes asynq retry a task after a pause that the policy chose.
type retryError struct {
	delay time.Duration
	cause error
}

func (e *retryError) Error() string { return redact.Reason(e.cause.Error(), true) }
func (e *retryError) Unwrap() error { return e.cause }

// deadLetterError makes asynq archive a task, with the reason alone as its text.
type deadLetterError struct{ reason error }

func (e *deadLetterError) Error() string        { return redact.Reason(e.reason.Error(), true) }
func (e *deadLetterError) Unwrap() error        { return e.reason }
func (e *deadLetterError) Is(target error) bool { return target == asynq.SkipRetry }

// errGivenBack returns a task that was not tried, at no cost.
var errGivenBack = errors.New("given back untried")

// errNotOurs leaves a task alone that another worker has by now. asynq hears that it is given back; Redis hears nothing.
var errNotOurs = fmt.Errorf("another worker has the task: %w", errGivenBack)

// BackReason is why a worker gave a task back that it had not tried.
type BackReason string

// The reasons.
const (
	BackHeld     BackReason = "held"     // the relay takes no mail here: another worker may reach it
	BackPaused   BackReason = "paused"   // its queue, its mailer or its mailing is paused
	BackAlone    BackReason = "alone"    // a task that has killed workers is to run alone
	BackTime     BackReason = "time"     // no connection was free for it for WorkerConfig.TaskTimeout
	BackMemory   BackReason = "memory"   // there was no memory for it for so long
	BackContents BackReason = "contents" // Redis did not give out its attachments or bodies
	BackRedis    BackReason = "redis"    // what becomes of it could not be written down
	BackRate     BackReason = "rate"     // its turn by the rates of its relay, or of its recipients' domains, is later
	BackForeign  BackReason = "foreign"  // it is another program's, or a newer version's
)

// givenBackError is errGivenBack with its reason, and how long the task rests.
type givenBackError struct {
	why   BackReason
	delay time.Duration
	later bool // it waits for so long among the scheduled ones, and not at the head of its queue
}

func givenBack(why BackReason) error { return &givenBackError{why: why} }

func (e *givenBackError) Error() string        { return errGivenBack.Error() + ": " + string(e.why) }
func (e *givenBackError) Is(target error) bool { return target == errGivenBack }

// backReason is why a task is given back.
func backReason(err error) BackReason {
	var g *givenBackError
	if errors.As(err, &g) {
		return g.why
	}
	return BackRedis
}

// errCancelled ends a task that was cancelled while a worker had it.
var errCancelled = fmt.Errorf("cancelled: %w", asynq.RevokeTask)

// taskError is the verdict in asynq's words.
func taskError(v verdict) error {
	switch v.Action {
	case retry:
		return &retryError{delay: v.Delay, cause: v.Reason}
	case deadLetter:
		return &deadLetterError{v.Reason}
	case hold:
		return errGivenBack
	case drop:
		return errCancelled
	case complete:
	}
	return nil
}

// costsTry is asynq's question whether an error was the task's fault. What ends a task
// from outside is not: it was given back, its time was up, or the worker was cut off
// from Redis or killed. Anything else is, a panic too, so that nothing is tried for ever.
func costsTry(err error) bool {
	for _, free := range []error{errGivenBack, context.DeadlineExceeded, context.Canceled, asynq.ErrLeaseExpired} {
		if errors.Is(err, free) {
			return false
		}
	}
	return true
}

// retryDelay is asynq's question how long a task waits for its next try.
func (p policy) retryDelay(retried int, err error, _ *asynq.Task) time.Duration {
	var r *retryError
	var g *givenBackError
	switch {
	case errors.As(err, &r):
		return r.delay
	case errors.As(err, &g):
		return g.delay
	case !costsTry(err):
		return 0
	}
	return p.Delay(retried)
}

// storedError is an error as asynq stores it.
type storedError struct{ cause error }

func (e *storedError) Error() string { return redact.Reason(e.cause.Error(), false) }
func (e *storedError) Unwrap() error { return e.cause }
