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

// policy holds the numbers of the policy.
type policy struct {
	retryMin time.Duration
	retryMax time.Duration
	maxAge   time.Duration
}

func (p policy) rules() deliverypolicy.Policy {
	return deliverypolicy.Policy{RetryMin: p.retryMin, RetryMax: p.retryMax, MaxAge: p.maxAge}
}

// attempt is what is known of a message when a try has ended.
type attempt struct {
	now          time.Time
	due          time.Time // when it was to be sent first
	deadline     time.Time // zero: none
	retried      int       // tries spent before this one
	maxRetry     int
	failSilently bool
	atMostOnce   bool
}

func (a attempt) known() deliverypolicy.Attempt {
	return deliverypolicy.Attempt{
		Now: a.now, Due: a.due, Deadline: a.deadline, Retried: a.retried, MaxRetry: a.maxRetry,
		FailSilently: a.failSilently, AtMostOnce: a.atMostOnce,
	}
}

type action = deliverypolicy.Action

const (
	complete   = deliverypolicy.Complete
	retry      = deliverypolicy.Retry
	hold       = deliverypolicy.Hold
	deadLetter = deliverypolicy.DeadLetter
	drop       = deliverypolicy.Drop
)

// verdict is what the worker does with the task.
type verdict struct {
	action action
	delay  time.Duration // for retry
	reason error         // for retry, hold and deadLetter, and for a silent failure
}

func (p policy) decide(err error, a attempt) verdict {
	v := p.rules().Decide(err, a.known())
	return verdict{action: v.Action, delay: v.Delay, reason: v.Reason}
}

// expired returns why the message may not be tried any more after the given delay.
func (p policy) expired(a attempt, delay time.Duration) error {
	return p.rules().Expired(a.known(), delay)
}

// expiry is when the message has expired.
func (p policy) expiry(a attempt) time.Time { return p.rules().Expiry(a.known()) }

// delay is the pause before try number retried+2.
func (p policy) delay(retried int) time.Duration { return p.rules().Delay(retried) }

// delayOf is the pause before those recipients are tried again alone. soon says that they may be at once.
func (p policy) delayOf(refused []*mailer.SendError, soon bool) time.Duration {
	why := deliverypolicy.RefusedReason(refused)
	if soon {
		return deliverypolicy.RetryAfter(why)
	}
	return p.rules().DelayAfter(0, why)
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
	BackForeign  BackReason = "foreign"  // it is another program's, or a newer version's
)

// givenBackError is errGivenBack with its reason, and how long the task rests.
type givenBackError struct {
	why   BackReason
	delay time.Duration
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
func (v verdict) taskError() error {
	switch v.action {
	case retry:
		return &retryError{delay: v.delay, cause: v.reason}
	case deadLetter:
		return &deadLetterError{v.reason}
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
	return p.delay(retried)
}

// storedError is an error as asynq stores it.
type storedError struct{ cause error }

func (e *storedError) Error() string { return redact.Reason(e.cause.Error(), false) }
func (e *storedError) Unwrap() error { return e.cause }
