package tasks

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
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
	refused []string      // the messages refused one after the other, none accepted in between
	passes  bool          // a message has been accepted since the gate was shut last
}

// inARow is how many different messages a relay has to refuse one after the other, in words
// that may be about itself, until it is the relay that is held and not the messages.
const inARow = 3

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

// whenOpen waits until the gate is open. It is false if ctx ended first.
func (g *gate) whenOpen(ctx context.Context) bool {
	for ctx.Err() == nil {
		g.mu.Lock()
		reason, opened := g.reason, g.opened
		g.mu.Unlock()
		if reason == nil {
			return true
		}
		select {
		case <-ctx.Done():
		case <-opened:
		}
	}
	return false
}

func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason != nil
}

// shut closes the gate, and says whether the trouble begins here.
func (g *gate) shut(reason error, probed bool) (begins bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	begins = g.trouble == nil
	first := g.reason == nil
	g.passes = false
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

// accepted notes that the relay has accepted a message: the next pause is a short one, and
// what it refuses it does not refuse to all.
func (g *gate) accepted() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pause, g.refused, g.passes = 0, nil, true
}

// relayRefuses reports whether an error of the class Unavailable means that the relay takes
// no mail at all. If not, it is the temporary failure of the message with that name: a
// message written by a stranger must not hold the mail of all others.
//
// Before a message is spoken of, and in silence, it is the relay. Else it is the relay
// once it has refused several different messages in a row. Where it says that it is
// closing, or wants a login, it is believed at once, but not about the one message that
// it refuses while others pass, nor twice about the same one, nor about a recipient.
func (g *gate) relayRefuses(name string, err error) bool {
	var e *mailer.SendError
	if !errors.As(err, &e) || e.Code == 0 || !aboutMessage(e.Step) {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	again := slices.Contains(g.refused, name)
	if !again && len(g.refused) < inARow {
		g.refused = append(g.refused, name)
	}
	switch {
	case len(g.refused) == inARow:
		return true
	case again, e.Step == mailer.StepRcpt, len(g.refused) == 1 && g.passes:
		return false
	}
	return e.Code == 421 || e.Code/10 == 53
}

// aboutMessage reports whether a message had been spoken of at that step.
func aboutMessage(step mailer.Step) bool {
	switch step {
	case mailer.StepMail, mailer.StepRcpt, mailer.StepData, mailer.StepBody, mailer.StepEnd:
		return true
	}
	return false
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
