package tasks

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestPolicy_decide(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := policy{retryMin: 5 * time.Second, retryMax: time.Hour, maxAge: 120 * time.Hour}
	class := func(c mailer.Class) error { return &mailer.SendError{Class: c, Step: mailer.StepEnd, Code: 451} }
	fresh := attempt{now: now, due: now, maxRetry: 25}
	with := func(change func(*attempt)) attempt { a := fresh; change(&a); return a }

	tests := []struct {
		name    string
		err     error
		attempt attempt
		want    action
	}{
		{"accepted", nil, fresh, complete},
		{"4yz", class(mailer.Temporary), fresh, retry},
		{"an error that does not say", errors.New("disk full"), fresh, retry},
		{"5yz", class(mailer.Permanent), fresh, deadLetter},
		{"wrapped 5yz", fmt.Errorf("mine: %w", class(mailer.Permanent)), fresh, deadLetter},
		{"cannot be rendered", &mailer.InvalidMessageError{Field: "to[0]", Reason: "no address"}, fresh, deadLetter},
		{"header injection", &mailer.BadHeaderError{Field: "subject", Reason: "line break"}, fresh, deadLetter},
		{"relay unavailable", class(mailer.Unavailable), fresh, hold},
		{"relay unavailable, tries used up", class(mailer.Unavailable), with(func(a *attempt) { a.retried = 25 }), hold},
		{"relay unavailable, too old", class(mailer.Unavailable), with(func(a *attempt) { a.due = now.Add(-121 * time.Hour) }), deadLetter},
		{"relay unavailable, past its deadline", class(mailer.Unavailable), with(func(a *attempt) { a.deadline = now.Add(-time.Second) }), deadLetter},
		{"reply lost", class(mailer.Unknown), fresh, retry},
		{"4yz on the last try", class(mailer.Temporary), with(func(a *attempt) { a.retried = 25 }), deadLetter},
		{"4yz on the last but one", class(mailer.Temporary), with(func(a *attempt) { a.retried = 24 }), retry},
		{"4yz without retries", class(mailer.Temporary), with(func(a *attempt) { a.maxRetry = 0 }), deadLetter},
		{"4yz, next try too late", class(mailer.Temporary), with(func(a *attempt) { a.due = now.Add(-120 * time.Hour) }), deadLetter},
		{"4yz, next try after the deadline", class(mailer.Temporary), with(func(a *attempt) { a.deadline = now.Add(time.Second) }), deadLetter},
		{"fail_silently and 5yz", class(mailer.Permanent), with(func(a *attempt) { a.failSilently = true }), complete},
		{"fail_silently and no relay", class(mailer.Unavailable), with(func(a *attempt) { a.failSilently = true }), complete},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := p.decide(tt.err, tt.attempt)
			if got.action != tt.want {
				t.Errorf("action = %v, want %v (reason %v)", got.action, tt.want, got.reason)
			}
			if tt.err != nil && !errors.Is(got.reason, tt.err) {
				t.Errorf("reason %v does not hold the cause %v", got.reason, tt.err)
			}
		})
	}
}

func TestPolicy_delay(t *testing.T) {
	t.Parallel()
	p := policy{retryMin: 5 * time.Second, retryMax: time.Hour}
	for retried := range 100 {
		ceiling := p.retryMax
		if retried < 10 {
			ceiling = min(p.retryMax, p.retryMin<<(retried+1))
		}
		seen := map[time.Duration]bool{}
		for range 50 {
			d := p.delay(retried)
			if d < p.retryMin || d > ceiling {
				t.Fatalf("delay(%d) = %v, want between %v and %v", retried, d, p.retryMin, ceiling)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("delay(%d) took only %d values in 50 draws: no jitter", retried, len(seen))
		}
	}
	if d := (policy{retryMin: time.Hour, retryMax: time.Hour}).delay(0); d != time.Hour {
		t.Errorf("delay with min = max: %v, want 1h", d)
	}
}

func TestVerdict_taskError(t *testing.T) {
	t.Parallel()
	cause := errors.New("451 later")
	if err := (verdict{action: complete, reason: cause}).taskError(); err != nil {
		t.Errorf("complete: %v, want nil", err)
	}
	tests := []struct {
		name      string
		err       error
		costsTry  bool
		skipRetry bool
		text      string
	}{
		{"retry", verdict{action: retry, delay: time.Minute, reason: cause}.taskError(), true, false, "451 later"},
		{"dead letter", verdict{action: deadLetter, reason: cause}.taskError(), true, true, "451 later"},
		{"hold", verdict{action: hold, reason: cause}.taskError(), false, false, "given back untried"},
		{"lease lost", asynq.ErrLeaseExpired, false, false, "asynq: task lease expired"},
		{"time is up", context.DeadlineExceeded, false, false, "context deadline exceeded"},
		{"a panic", errors.New("panic [worker.go:1]: nil map"), true, false, "panic [worker.go:1]: nil map"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := costsTry(tt.err); got != tt.costsTry {
				t.Errorf("costsTry = %v, want %v", got, tt.costsTry)
			}
			if got := errors.Is(tt.err, asynq.SkipRetry); got != tt.skipRetry {
				t.Errorf("is SkipRetry = %v, want %v", got, tt.skipRetry)
			}
			if got := tt.err.Error(); got != tt.text {
				t.Errorf("text = %q, want %q", got, tt.text)
			}
		})
	}
	p := policy{retryMin: time.Second, retryMax: time.Hour}
	if d := p.retryDelay(0, tests[0].err, nil); d != time.Minute {
		t.Errorf("retryDelay = %v, want the policy's 1m", d)
	}
	if d := p.retryDelay(0, errGivenBack, nil); d != 0 {
		t.Errorf("retryDelay of a task given back = %v, want 0", d)
	}
	if d := p.retryDelay(0, errors.New("panic"), nil); d < time.Second {
		t.Errorf("retryDelay of a panic = %v, want at least 1s", d)
	}
}
