// Package deliverypolicy decides what becomes of a message after a try. It is the only place that does: the worker asks it,
// and so does the queue in memory for tests.
package deliverypolicy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// The whole policy:
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
//
// Where the backend says how long to wait (RetryAfter), the next try is no earlier than that, and nor is the probe of a
// mailer that is held.

// Policy holds the numbers of the table.
type Policy struct {
	RetryMin time.Duration
	RetryMax time.Duration
	MaxAge   time.Duration
}

// The numbers of a worker that is told no others.
const (
	DefaultRetryMin = 5 * time.Second
	DefaultRetryMax = time.Hour
	DefaultMaxAge   = 120 * time.Hour
)

// Attempt is what is known of a message when a try has ended.
type Attempt struct {
	Now          time.Time
	Due          time.Time // when it was to be sent first
	Deadline     time.Time // zero: none
	Retried      int       // tries spent before this one
	MaxRetry     int
	FailSilently bool
	AtMostOnce   bool
}

// Action is what is done with a message.
type Action int

// The actions.
const (
	Complete   Action = iota // the task is done
	Retry                    // again after Verdict.Delay, one try spent
	Hold                     // again when the relay is back, no try spent
	DeadLetter               // kept for a person
	Drop                     // cancelled: the task goes, unsent
)

// Verdict is what is done with a task.
type Verdict struct {
	Action Action
	Delay  time.Duration // for Retry
	Reason error         // for Retry, Hold and DeadLetter, and for a silent failure
}

// Decide reads the table above. err is the Err of the message's mailer.Result.
func (p Policy) Decide(err error, a Attempt) Verdict {
	if err == nil {
		return Verdict{Action: Complete}
	}
	if expired := new(ExpiredError); errors.As(err, &expired) {
		return Verdict{Action: DeadLetter, Reason: expired.Reason}
	}
	if a.FailSilently {
		return Verdict{Action: Complete, Reason: err}
	}
	switch mailer.ClassOf(err) {
	case mailer.Permanent:
		return Verdict{Action: DeadLetter, Reason: err}
	case mailer.Unavailable:
		if reason := p.Expired(a, 0); reason != nil {
			return Verdict{Action: DeadLetter, Reason: fmt.Errorf("%w; %w", err, reason)}
		}
		return Verdict{Action: Hold, Reason: err}
	case mailer.Unknown:
		if a.AtMostOnce {
			return Verdict{Action: DeadLetter, Reason: fmt.Errorf("unknown, it may have been delivered (at_most_once): %w", err)}
		}
	}
	delay := p.DelayAfter(a.Retried, err)
	if a.Retried >= a.MaxRetry {
		return Verdict{Action: DeadLetter, Reason: fmt.Errorf("%w; gave up after %d tries", err, a.Retried+1)}
	}
	if reason := p.Expired(a, delay); reason != nil {
		return Verdict{Action: DeadLetter, Reason: fmt.Errorf("%w; %w", err, reason)}
	}
	return Verdict{Action: Retry, Delay: delay, Reason: err}
}

// OfMessage is an error of the relay's as one of the message alone, for others have passed.
func OfMessage(err error) error {
	var e *mailer.SendError
	if !errors.As(err, &e) {
		return err
	}
	failure := *e
	failure.Class = mailer.Temporary
	return &failure
}

// InDoubt reports whether a message may have been delivered by a try that has failed, so that it is too late to cancel it.
func InDoubt(err error) bool {
	var failure *mailer.SendError
	return !errors.As(err, &failure) || failure.Class != mailer.Temporary
}

// Expired returns why the message may not be tried any more after the given delay.
func (p Policy) Expired(a Attempt, delay time.Duration) error {
	next := a.Now.Add(delay)
	switch {
	case !a.Deadline.IsZero() && !next.Before(a.Deadline):
		return fmt.Errorf("not sent before its deadline %s", a.Deadline.Format(time.RFC3339))
	case next.Sub(a.Due) >= p.MaxAge:
		return fmt.Errorf("not sent within %v (EMAIL_MAX_AGE)", p.MaxAge)
	}
	return nil
}

// Expiry is when the message has expired.
func (p Policy) Expiry(a Attempt) time.Time {
	at := a.Due.Add(p.MaxAge)
	if !a.Deadline.IsZero() && a.Deadline.Before(at) {
		return a.Deadline
	}
	return at
}

// ExpiredError ends a message whose time was up when it was its turn.
type ExpiredError struct{ Reason error }

func (e *ExpiredError) Error() string { return e.Reason.Error() }
func (e *ExpiredError) Unwrap() error { return e.Reason }

// Delay is the pause before try number retried+2: somewhere between RetryMin and a
// ceiling that doubles with each try up to RetryMax, so that the messages of one
// failure do not come back all at once.
func (p Policy) Delay(retried int) time.Duration {
	ceiling := p.RetryMin
	for i := 0; i <= retried && ceiling < p.RetryMax; i++ {
		ceiling = min(2*ceiling, p.RetryMax)
	}
	if ceiling <= p.RetryMin {
		return p.RetryMin
	}
	return p.RetryMin + rand.N(ceiling-p.RetryMin) //nolint:gosec // a pause needs no cryptographic chance
}

// The longest times that a next hop may ask for. What it asks for beyond them is a mistake, or a matter of days, which is seen
// as soon when it is asked once more; a hold keeps the mail of all.
const (
	maxRetryAfter = 24 * time.Hour
	maxHoldAfter  = time.Hour
)

// RetryAfter is how long the next hop wants to be left alone, by the error of a message or by that of its recipients: 0 if it
// has not said.
func RetryAfter(err error) time.Duration {
	var e *mailer.SendError
	if !errors.As(err, &e) {
		return 0
	}
	after := max(e.RetryAfter, 0)
	for _, r := range e.Refused {
		after = max(after, r.RetryAfter)
	}
	return min(after, maxRetryAfter)
}

// HoldAfter is RetryAfter for all the mail of a mailer.
func HoldAfter(err error) time.Duration { return min(RetryAfter(err), maxHoldAfter) }

// DelayAfter is Delay after a failure that may say how long to wait. The pause is then up to a tenth longer, for the
// same reason: many were told the same.
func (p Policy) DelayAfter(retried int, err error) time.Duration {
	return max(p.Delay(retried), spread(RetryAfter(err)))
}

// spread makes a time to wait up to a tenth longer.
func spread(after time.Duration) time.Duration {
	if after < 10 {
		return after
	}
	return after + rand.N(after/10) //nolint:gosec // a pause needs no cryptographic chance
}

// Remainders parts the recipients who were refused though the message was accepted for others: those who are tried again
// alone, and those who are a dead letter. A message that fails silently has none.
func Remainders(refused []*mailer.SendError, failSilently bool) (later, never []*mailer.SendError) {
	for _, r := range refused {
		switch {
		case failSilently:
		case r.Class == mailer.Permanent:
			never = append(never, r)
		default:
			later = append(later, r)
		}
	}
	return later, never
}

// RefusedReason is why recipients are tried again alone, or are a dead letter.
func RefusedReason(refused []*mailer.SendError) error {
	return &mailer.SendError{Step: mailer.StepRcpt, Refused: refused}
}

// The ends of the IDs of tasks for such recipients, behind the ID of the message's own.
const (
	SuffixLater = "-later"
	SuffixNever = "-refused"
)
