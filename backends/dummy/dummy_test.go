package dummy_test

import (
	"sync"
	"testing"

	"github.com/mailpouch/mailpouch/backends/dummy"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		t.Parallel()
		return mailertest.Harness{Backend: newBackend(t)}
	})
}

func newBackend(t *testing.T) *dummy.Backend {
	t.Helper()
	b, err := dummy.New(dummy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBackend_Sent(t *testing.T) {
	t.Parallel()
	good := &mailer.EmailMessage{To: []string{"a@example.org"}}
	bad := &mailer.EmailMessage{To: []string{"a@example.org\r\nDATA"}}
	nobody := &mailer.EmailMessage{}
	tests := []struct {
		name    string
		batches [][]*mailer.EmailMessage
		want    int
	}{
		{"nothing", nil, 0},
		{"an empty batch", [][]*mailer.EmailMessage{{}}, 0},
		{"several batches", [][]*mailer.EmailMessage{{good, good}, {good}}, 3},
		{"bad messages are not counted", [][]*mailer.EmailMessage{{good, bad}, {bad}}, 1},
		{"messages to nobody are not counted", [][]*mailer.EmailMessage{{nobody, good}}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t)
			total := 0
			for _, batch := range tt.batches {
				sent, _ := b.SendMessages(t.Context(), batch)
				total += sent
			}
			if b.Sent() != tt.want || total != tt.want {
				t.Errorf("Sent is %d and the calls returned %d, want %d", b.Sent(), total, tt.want)
			}
		})
	}
}

func TestBackend_several_goroutines(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{{To: []string{"a@example.org"}}}); sent != 1 || err != nil {
				t.Errorf("%d, %v", sent, err)
			}
		})
	}
	wg.Wait()
	if b.Sent() != 10 {
		t.Errorf("Sent is %d, want 10", b.Sent())
	}
}
