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
