package failover

import (
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/mailer"
)

// The pauses before a member that has failed is tried again.
const (
	pauseMin = time.Second
	pauseMax = time.Minute
)

// Member is a backend to send with.
type Member struct {
	Name    string
	Weight  int // at least 1; without Config.Weighted it means nothing
	Backend mailer.Backend
}

// Health knows which members take no mail, and what each has had of its share. Backends with the same members share one, so that a
// program that makes a backend for each mail does not find out anew each time. The zero value is ready for use, by several
// goroutines.
type Health struct {
	mu      sync.Mutex
	members map[string]*member
	credits map[[2]string]int // by mailer and member
}

// member is what is known of one.
type member struct {
	due   time.Time     // it is not tried before; zero while it takes mail
	pause time.Duration // before the next try; grows until it accepts a message
}

// of returns what is known of a member. h.mu is held.
func (h *Health) of(name string) *member {
	if h.members == nil {
		h.members = map[string]*member{}
	}
	m := h.members[name]
	if m == nil {
		m = new(member)
		h.members[name] = m
	}
	return m
}

// works reports whether a member takes mail, as far as is known.
func (h *Health) works(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of(name).due.IsZero()
}

// try reports whether a member may be tried. One whose pause is over is tried by the first that asks, and by the others when it is
// back.
func (h *Health) try(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.of(name)
	if m.due.IsZero() {
		return true
	}
	now := time.Now()
	if now.Before(m.due) {
		return false
	}
	m.due = now.Add(m.pause)
	return true
}

// failed notes that a member takes no mail.
func (h *Health) failed(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.of(name)
	m.pause = min(max(2*m.pause, pauseMin), pauseMax)
	m.due = time.Now().Add(max(m.pause, deliverypolicy.HoldAfter(err)))
}

// opened notes that a connection to a member was opened: it may be back.
func (h *Health) opened(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of(name).due = time.Time{}
}

// judged notes that a member judges messages.
func (h *Health) judged(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*h.of(name) = member{}
}

// shares divides so many messages of a mailer among members, by their weights. What one lacks of its share it has the next time.
func (h *Health) shares(mailer string, members []Member, messages int) []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.credits == nil {
		h.credits = map[[2]string]int{}
	}
	sum := 0
	for _, m := range members {
		sum += m.Weight
	}
	shares := make([]int, len(members))
	for range messages {
		best := 0
		for i, m := range members {
			key := [2]string{mailer, m.Name}
			if h.credits[key] += m.Weight; h.credits[key] > h.credits[[2]string{mailer, members[best].Name}] {
				best = i
			}
		}
		h.credits[[2]string{mailer, members[best].Name}] -= sum
		shares[best]++
	}
	return shares
}
