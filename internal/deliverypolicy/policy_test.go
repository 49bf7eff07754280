package deliverypolicy

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestPolicy_Decide(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := Policy{RetryMin: 5 * time.Second, RetryMax: time.Hour, MaxAge: 120 * time.Hour}
	class := func(c mailer.Class) error { return &mailer.SendError{Class: c, Step: mailer.StepEnd, Code: 451} }
	fresh := Attempt{Now: now, Due: now, MaxRetry: 25}
	with := func(change func(*Attempt)) Attempt { a := fresh; change(&a); return a }

	tests := []struct {
		name    string
		err     error
		attempt Attempt
		want    Action
	}{
		{"accepted", nil, fresh, Complete},
		{"4yz", class(mailer.Temporary), fresh, Retry},
		{"an error that does not say", errors.New("disk full"), fresh, Retry},
		{"5yz", class(mailer.Permanent), fresh, DeadLetter},
		{"wrapped 5yz", fmt.Errorf("mine: %w", class(mailer.Permanent)), fresh, DeadLetter},
		{"cannot be rendered", &mailer.InvalidMessageError{Field: "to[0]", Reason: "no address"}, fresh, DeadLetter},
		{"header injection", &mailer.BadHeaderError{Field: "subject", Reason: "line break"}, fresh, DeadLetter},
		{"relay unavailable", class(mailer.Unavailable), fresh, Hold},
		{"relay unavailable, tries used up", class(mailer.Unavailable), with(func(a *Attempt) { a.Retried = 25 }), Hold},
		{"relay unavailable, too old", class(mailer.Unavailable), with(func(a *Attempt) { a.Due = now.Add(-121 * time.Hour) }), DeadLetter},
		{"relay unavailable, past its deadline", class(mailer.Unavailable), with(func(a *Attempt) { a.Deadline = now.Add(-time.Second) }), DeadLetter},
		{"reply lost", class(mailer.Unknown), fresh, Retry},
		{"4yz on the last try", class(mailer.Temporary), with(func(a *Attempt) { a.Retried = 25 }), DeadLetter},
		{"4yz on the last but one", class(mailer.Temporary), with(func(a *Attempt) { a.Retried = 24 }), Retry},
		{"4yz without retries", class(mailer.Temporary), with(func(a *Attempt) { a.MaxRetry = 0 }), DeadLetter},
		{"4yz, next try too late", class(mailer.Temporary), with(func(a *Attempt) { a.Due = now.Add(-120 * time.Hour) }), DeadLetter},
		{"4yz, next try after the deadline", class(mailer.Temporary), with(func(a *Attempt) { a.Deadline = now.Add(time.Second) }), DeadLetter},
		{"fail_silently and 5yz", class(mailer.Permanent), with(func(a *Attempt) { a.FailSilently = true }), Complete},
		{"fail_silently and no relay", class(mailer.Unavailable), with(func(a *Attempt) { a.FailSilently = true }), Complete},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := p.Decide(tt.err, tt.attempt)
			if got.Action != tt.want {
				t.Errorf("action = %v, want %v (reason %v)", got.Action, tt.want, got.Reason)
			}
			if tt.err != nil && !errors.Is(got.Reason, tt.err) {
				t.Errorf("reason %v does not hold the cause %v", got.Reason, tt.err)
			}
		})
	}
}

// The next hop may say how long to wait: the pause is no shorter, and no more than a tenth longer than the longer of both.
func TestPolicy_RetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := Policy{RetryMin: 5 * time.Second, RetryMax: 10 * time.Second, MaxAge: 120 * time.Hour}
	after := func(c mailer.Class, d time.Duration) error {
		return &mailer.SendError{Class: c, Step: mailer.StepEnd, Code: 429, RetryAfter: d}
	}
	fresh := Attempt{Now: now, Due: now, MaxRetry: 25}
	for _, tt := range []struct {
		name       string
		err        error
		attempt    Attempt
		want       Action
		delay, max time.Duration
		hold       time.Duration
	}{
		{"not said", after(mailer.Temporary, 0), fresh, Retry, 5 * time.Second, 10 * time.Second, 0},
		{"shorter than ours", after(mailer.Temporary, time.Second), fresh, Retry, 5 * time.Second, 10 * time.Second, time.Second},
		{"longer than ours", after(mailer.Temporary, time.Minute), fresh, Retry, time.Minute, 66 * time.Second, time.Minute},
		{"wrapped", fmt.Errorf("mine: %w", after(mailer.Temporary, time.Minute)), fresh, Retry, time.Minute, 66 * time.Second, time.Minute},
		{"lost reply", after(mailer.Unknown, time.Minute), fresh, Retry, time.Minute, 66 * time.Second, time.Minute},
		{"of the message while others pass", OfMessage(after(mailer.Unavailable, time.Minute)), fresh, Retry, time.Minute, 66 * time.Second, time.Minute},
		{"of its recipients", RefusedReason([]*mailer.SendError{{RetryAfter: time.Second}, {RetryAfter: time.Hour}, {}}), fresh, Retry, time.Hour, 66 * time.Minute, time.Hour},
		{"negative", after(mailer.Temporary, -time.Hour), fresh, Retry, 5 * time.Second, 10 * time.Second, 0},
		{"absurd", after(mailer.Temporary, 1e6*time.Hour), fresh, Retry, 24 * time.Hour, 27 * time.Hour, time.Hour},
		{"held", after(mailer.Unavailable, time.Minute), fresh, Hold, 0, 0, time.Minute},
		{"refused for good", after(mailer.Permanent, time.Minute), fresh, DeadLetter, 0, 0, time.Minute},
		{"tries used up", after(mailer.Temporary, time.Minute), Attempt{Now: now, Due: now}, DeadLetter, 0, 0, time.Minute},
		{"after EMAIL_MAX_AGE", after(mailer.Temporary, 2*time.Hour), Attempt{Now: now, Due: now.Add(-119 * time.Hour), MaxRetry: 25}, DeadLetter, 0, 0, time.Hour},
		{"after the deadline", after(mailer.Temporary, time.Minute), Attempt{Now: now, Due: now, Deadline: now.Add(time.Minute), MaxRetry: 25}, DeadLetter, 0, 0, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if v := p.Decide(tt.err, tt.attempt); v.Action != tt.want || v.Delay < tt.delay || v.Delay > tt.max {
				t.Errorf("%v after %v, want %v after %v to %v", v.Action, v.Delay, tt.want, tt.delay, tt.max)
			}
			if got := HoldAfter(tt.err); got != tt.hold {
				t.Errorf("held for %v, want %v", got, tt.hold)
			}
		})
	}
}

func TestPolicy_Delay(t *testing.T) {
	t.Parallel()
	p := Policy{RetryMin: 5 * time.Second, RetryMax: time.Hour}
	for retried := range 100 {
		ceiling := p.RetryMax
		if retried < 10 {
			ceiling = min(p.RetryMax, p.RetryMin<<(retried+1))
		}
		seen := map[time.Duration]bool{}
		for range 50 {
			d := p.Delay(retried)
			if d < p.RetryMin || d > ceiling {
				t.Fatalf("delay(%d) = %v, want between %v and %v", retried, d, p.RetryMin, ceiling)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("delay(%d) took only %d values in 50 draws: no jitter", retried, len(seen))
		}
	}
	if d := (Policy{RetryMin: time.Hour, RetryMax: time.Hour}).Delay(0); d != time.Hour {
		t.Errorf("delay with min = max: %v, want 1h", d)
	}
}

func TestRemainders(t *testing.T) {
	t.Parallel()
	a := &mailer.SendError{Class: mailer.Temporary, Recipient: "a@example.com"}
	b := &mailer.SendError{Class: mailer.Permanent, Recipient: "b@example.com"}
	c := &mailer.SendError{Class: mailer.Unavailable, Recipient: "c@example.com"}
	if later, never := Remainders([]*mailer.SendError{a, b, c}, false); len(later) != 2 || later[0] != a || later[1] != c || len(never) != 1 || never[0] != b {
		t.Errorf("later %v, never %v", later, never)
	}
	if later, never := Remainders([]*mailer.SendError{a, b}, true); later != nil || never != nil {
		t.Errorf("silently: later %v, never %v", later, never)
	}
}

func TestInDoubt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&mailer.SendError{Class: mailer.Temporary}, false},
		{fmt.Errorf("mine: %w", &mailer.SendError{Class: mailer.Temporary}), false},
		{&mailer.SendError{Class: mailer.Unknown}, true},
		{errors.New("disk full"), true},
	} {
		if got := InDoubt(tt.err); got != tt.want {
			t.Errorf("InDoubt(%v) = %v", tt.err, got)
		}
	}
	if class := mailer.ClassOf(OfMessage(&mailer.SendError{Class: mailer.Unavailable, Code: 421})); class != mailer.Temporary {
		t.Errorf("the error of a message is %v", class)
	}
}
