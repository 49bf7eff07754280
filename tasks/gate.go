package tasks

import (
	"context"
	"sync"
	"time"
)

// The pauses between probes of a relay that takes no mail.
const (
	probeMin = time.Second
	probeMax = time.Minute
)

// gate stands between the senders and a relay. While the relay takes no mail the gate
// is shut: messages wait, nothing hammers the relay, and after growing pauses one
// sender at a time is let through to probe it.
type gate struct {
	mu      sync.Mutex
	reason  error         // why it is shut; nil: open
	trouble error         // why it was shut last, until the relay has judged a message again
	opened  chan struct{} // closed when a shut gate opens
	probe   chan struct{} // holds a token when a probe is due
	timer   *time.Timer   // puts the token there; nil: a probe is due or under way
	pause   time.Duration // before the next probe; grows until a message is accepted
}

func newGate() *gate { return &gate{probe: make(chan struct{}, 1)} }

// wait returns when the caller may use the relay. probe says that the gate is still
// shut and that the caller is the one to find out: it must call open or shut next. ok is
// false if ctx ended first.
func (g *gate) wait(ctx context.Context) (probe, ok bool) {
	g.mu.Lock()
	reason, opened := g.reason, g.opened
	g.mu.Unlock()
	if reason == nil {
		return false, ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false, false
	case <-opened:
		return false, ctx.Err() == nil
	case <-g.probe:
		return true, true
	}
}

// shut closes the gate, and says whether the trouble begins here.
func (g *gate) shut(reason error, probed bool) (begins bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	begins = g.trouble == nil
	first := g.reason == nil
	g.reason, g.trouble = reason, reason
	if first {
		g.opened = make(chan struct{})
	}
	if first || probed {
		g.pause = min(max(2*g.pause, probeMin), probeMax)
		g.timer = time.AfterFunc(g.pause, g.due)
	}
	return begins
}

// due lets one waiter through to probe.
func (g *gate) due() {
	select {
	case g.probe <- struct{}{}:
	default:
	}
}

// open lets everybody through. The next pause starts where the last one ended,
// unless a message has been accepted: a relay may greet us and still take nothing.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reason != nil {
		g.reason = nil
		close(g.opened)
	}
}

// works notes that the relay judges messages, or that none is there to be judged. It says
// whether a trouble ends here: one that greets us, and then takes nothing, is no end of it.
func (g *gate) works() (ends bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reason != nil || g.trouble == nil {
		return false
	}
	g.trouble = nil
	return true
}

// accepted makes the next pause a short one.
func (g *gate) accepted() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pause = 0
}

// stop ends the timer.
func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer != nil {
		g.timer.Stop()
	}
}

// held returns why no mail goes through, nil if there is no trouble.
func (g *gate) held() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.trouble
}
