package webhook

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/events"
)

// memory is a source of events in memory.
type memory struct {
	mu     sync.Mutex
	events []events.Event
	handed int
	acked  map[string]int
	more   chan struct{} // closed when there are more events, or one was acknowledged
	refuse int           // so many acknowledgements fail
	fail   int           // so many reads fail
	closed bool
	most   int // of those asked for
}

func newMemory(events ...events.Event) *memory {
	return &memory{events: events, acked: map[string]int{}, more: make(chan struct{})}
}

func (m *memory) changed() {
	close(m.more)
	m.more = make(chan struct{})
}

func (m *memory) add(events ...events.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, events...)
	m.changed()
}

func (m *memory) Next(ctx context.Context, most int) ([]events.Event, error) {
	for {
		m.mu.Lock()
		m.most = max(m.most, most)
		if m.fail > 0 {
			m.fail--
			m.mu.Unlock()
			return nil, fmt.Errorf("the source is away")
		}
		if n := min(most, len(m.events)-m.handed); n > 0 {
			events := m.events[m.handed : m.handed+n]
			m.handed += n
			m.mu.Unlock()
			return events, nil
		}
		more := m.more
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-more:
		}
	}
}

func (m *memory) Ack(_ context.Context, e events.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse > 0 {
		m.refuse--
		return fmt.Errorf("the source is away")
	}
	m.acked[e.ID]++
	m.changed()
	return nil
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// ackedIDs is how many events are acknowledged.
func (m *memory) ackedIDs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.acked)
}

// await waits until so many events are acknowledged.
func (m *memory) await(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		m.mu.Lock()
		acked, more := len(m.acked), m.more
		m.mu.Unlock()
		if acked >= n {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d events were acknowledged", acked, n)
		case <-more:
		}
	}
}

// event is the event of that number.
func event(n int) events.Event {
	return events.Event{
		ID: fmt.Sprintf("evt_%d", n), Type: "email.sent", At: time.Now().UTC().Round(0),
		MessageID: fmt.Sprintf("<%d@example.com>", n), EmailID: fmt.Sprintf("task-%d", n), Recipient: fmt.Sprintf("ann+%d@example.com", n),
		Queue: "default", Tags: []string{"welcome"}, Reply: "250 2.0.0 Ok: queued as ÄÖ \u2028 <4711>", Tries: 1,
	}
}

func someEvents(n int) []events.Event {
	all := make([]events.Event, n)
	for i := range all {
		all[i] = event(i)
	}
	return all
}
