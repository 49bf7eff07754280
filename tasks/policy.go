package tasks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// This file is the whole policy: what becomes of a message after a try. Nothing else
// decides it.
//
//	the backend says                          the worker does
//	----------------------------------------  --------------------------------------------
//	accepted, or nobody to send it to         the task completes
//	accepted, some recipients refused 4yz     the task completes; a new task tries those again
//	accepted, some recipients refused 5yz     the task completes; a dead letter names those
//	refused for now (4yz), or an error of     retry with exponential backoff and jitter; dead
//	  a backend that does not say               letter after max_retry, EMAIL_MAX_AGE or the deadline
//	refused for good (5yz); cannot be         dead letter at once
//	  rendered; payload cannot be decoded
//	the same 4yz to two messages in a row     these once more over a new connection, no try
//	  over a connection that has carried        spent; refused there too: retry, as above
//	  others
//	relay unavailable: no connection, TLS,    hold: the message waits where it is, no try spent,
//	  AUTH, 421 or login wanted, several        until the relay answers
//	  messages in a row put off
//	the same of one message while others      retry, as above
//	  pass, and of a recipient always
//	EMAIL_MAX_AGE or the deadline has passed  dead letter, wherever the message waits; what is
//	                                            on the wire is sent
//	connection lost after the final dot       retry (at least once): a second copy is possible;
//	                                            with at_most_once a dead letter, marked unknown
//	fail_silently, and any failure            the failure is logged and the task completes
//	cancelled, message not on the wire        the task goes, unsent
//	worker stops, message not on the wire     asynq puts the task back in front, no try spent

// policy holds the numbers of the table.
type policy struct {
	retryMin time.Duration
	retryMax time.Duration
	maxAge   time.Duration
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

type action int

const (
	complete   action = iota // the task is done
	retry                    // again after verdict.delay, one try spent
	hold                     // again when the relay is back, no try spent
	deadLetter               // kept for a person
	drop                     // cancelled: the task goes, unsent
)

// verdict is what the worker does with the task.
type verdict struct {
	action action
	delay  time.Duration // for retry
	reason error         // for retry, hold and deadLetter, and for a silent failure
}

// decide reads the table above.
func (p policy) decide(err error, a attempt) verdict {
	if err == nil {
		return verdict{action: complete}
	}
	if expired := new(expiredError); errors.As(err, &expired) {
		return verdict{action: deadLetter, reason: expired.reason}
	}
	if a.failSilently {
		return verdict{action: complete, reason: err}
	}
	switch mailer.ClassOf(err) {
	case mailer.Permanent:
		return verdict{action: deadLetter, reason: err}
	case mailer.Unavailable:
		if reason := p.expired(a, 0); reason != nil {
			return verdict{action: deadLetter, reason: fmt.Errorf("%w; %w", err, reason)}
		}
		return verdict{action: hold, reason: err}
	case mailer.Unknown:
		if a.atMostOnce {
			return verdict{action: deadLetter, reason: fmt.Errorf("unknown, it may have been delivered (at_most_once): %w", err)}
		}
	}
	delay := p.delay(a.retried)
	if a.retried >= a.maxRetry {
		return verdict{action: deadLetter, reason: fmt.Errorf("%w; gave up after %d tries", err, a.retried+1)}
	}
	if reason := p.expired(a, delay); reason != nil {
		return verdict{action: deadLetter, reason: fmt.Errorf("%w; %w", err, reason)}
	}
	return verdict{action: retry, delay: delay, reason: err}
}

// temporary is the error as one of the message alone.
func temporary(err error) error {
	var e *mailer.SendError
	if !errors.As(err, &e) {
		return err
	}
	failure := *e
	failure.Class = mailer.Temporary
	return &failure
}

// expired returns why the message may not be tried any more after the given delay.
func (p policy) expired(a attempt, delay time.Duration) error {
	next := a.now.Add(delay)
	switch {
	case !a.deadline.IsZero() && !next.Before(a.deadline):
		return fmt.Errorf("not sent before its deadline %s", a.deadline.Format(time.RFC3339))
	case next.Sub(a.due) >= p.maxAge:
		return fmt.Errorf("not sent within %v (EMAIL_MAX_AGE)", p.maxAge)
	}
	return nil
}

// expiry is when the message has expired.
func (p policy) expiry(a attempt) time.Time {
	at := a.due.Add(p.maxAge)
	if !a.deadline.IsZero() && a.deadline.Before(at) {
		return a.deadline
	}
	return at
}

// expiredError ends a message whose time was up when it was its turn.
type expiredError struct{ reason error }

func (e *expiredError) Error() string { return e.reason.Error() }
func (e *expiredError) Unwrap() error { return e.reason }

// delay is the pause before try number retried+2: somewhere between retryMin and a
// ceiling that doubles with each try up to retryMax, so that the messages of one
// failure do not come back all at once.
func (p policy) delay(retried int) time.Duration {
	ceiling := p.retryMin
	for i := 0; i <= retried && ceiling < p.retryMax; i++ {
		ceiling = min(2*ceiling, p.retryMax)
	}
	if ceiling <= p.retryMin {
		return p.retryMin
	}
	return p.retryMin + rand.N(ceiling-p.retryMin) //nolint:gosec // a pause needs no cryptographic chance
}

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
