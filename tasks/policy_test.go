package tasks

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
)

func TestTaskError(t *testing.T) {
	t.Parallel()
	cause := errors.New("451 later")
	if err := taskError(verdict{Action: complete, Reason: cause}); err != nil {
		t.Errorf("complete: %v, want nil", err)
	}
	tests := []struct {
		name      string
		err       error
		costsTry  bool
		skipRetry bool
		text      string
	}{
		{"retry", taskError(verdict{Action: retry, Delay: time.Minute, Reason: cause}), true, false, "451 later"},
		{"dead letter", taskError(verdict{Action: deadLetter, Reason: cause}), true, true, "451 later"},
		{"hold", taskError(verdict{Action: hold, Reason: cause}), false, false, "given back untried"},
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
	p := policy{deliverypolicy.Policy{RetryMin: time.Second, RetryMax: time.Hour}}
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
