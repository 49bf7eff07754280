package tasks

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/mailer"
)

// The pauses between probes of a relay that takes no mail.
const (
	probeMin = time.Second
	probeMax = time.Minute
)

// breaker is the circuit breaker between the senders and a relay. While the relay takes no mail it is
// tripped: messages wait, nothing hammers the relay, and after growing pauses one
// sender at a time is let through to probe it, with one connection and one message.
//
//	          trip                    probe, then reset
//	reset ----------> tripped, pause ------------------> reset
//	                     ^      | probe, then trip: the pause doubles
//	                     +------+
type breaker struct {
	mu      sync.Mutex
	reason  error             // why it is tripped; nil: it is not
	trouble error             // why it was tripped last, until the relay has judged a message again
	resets  chan struct{}     // closed when a tripped breaker is reset
	trips   chan struct{}     // closed when it is tripped, and replaced when it is reset
	asks    bool              // a probe has a connection, and tries or wants a message
	opening map[*opening]bool // what opens the only connections, for long
	holding bool              // what waits for the relay is to wait in Redis
	lets    chan struct{}     // closed while that is so
	probe   chan struct{}     // holds a token when a probe is due
	timer   *time.Timer       // puts the token there; nil: it was never tripped
	dueAt   time.Time         // when it does
	pause   time.Duration     // before the next probe; grows until a message is accepted
	refused []string          // the messages refused one after the other, none accepted in between
	last    error             // what it said of the last of them, once they are inARow, until it is tried anew
	passes  bool              // a message has been accepted since it was tripped last
	blamed  map[string]bool   // the messages refused while others passed

	watchers []func(breakerState) // called with mu held
}

// breakerState is what others see of a breaker.
type breakerState struct {
	holding bool  // what waits for the relay is to wait in Redis, or to go elsewhere
	asks    bool  // a probe has a connection, and tries or wants a message
	trouble error // why no mail goes through
}

// same reports whether there is nothing new.
func (s breakerState) same(before breakerState) bool {
	return s.holding == before.holding && s.asks == before.asks &&
		(s.trouble == nil && before.trouble == nil || s.trouble != nil && before.trouble != nil && s.trouble.Error() == before.trouble.Error())
}

// inARow is how many different messages a relay has to refuse one after the other, in words
// that may be about itself, until it is the relay that is held and not the messages.
const inARow = 3

// maxBlamed is how many messages are remembered that were refused while others passed.
const maxBlamed = 1000

func newBreaker() *breaker {
	return &breaker{
		probe: make(chan struct{}, 1), trips: make(chan struct{}), lets: make(chan struct{}), opening: map[*opening]bool{}, blamed: map[string]bool{},
	}
}

// wait returns when the caller may use the relay. probe says that the breaker is still
// tripped and that the caller is the one to find out: it must call reset or trip next. ok is
// false if ctx ended first.
func (b *breaker) wait(ctx context.Context) (probe, ok bool) {
	b.mu.Lock()
	reason, resets := b.reason, b.resets
	b.mu.Unlock()
	if reason == nil {
		return false, ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false, false
	case <-resets:
		return false, ctx.Err() == nil
	case <-b.probe:
		return true, true
	}
}

func (b *breaker) tripped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reason != nil
}

// tripping is closed when the breaker is tripped. For a probe it never is.
func (b *breaker) tripping(probe bool) <-chan struct{} {
	if probe {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trips
}

// holds reports whether what waits for the relay is to wait in Redis, where other workers find it: all, while the
// relay takes no mail, and while it is not known for long whether a connection to it can be opened.
func (b *breaker) holds() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holding
}

// holdsNow is closed while holds is true.
func (b *breaker) holdsNow() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lets
}

// watch has the watcher called with each change, before the breaker is used. It must be quick, and must not use the breaker.
func (b *breaker) watch(watcher func(breakerState)) { b.watchers = append(b.watchers, watcher) }

// tell calls the watchers. b.mu is held.
func (b *breaker) tell() {
	for _, watcher := range b.watchers {
		watcher(breakerState{b.holding, b.asks, b.trouble})
	}
}

// update is called when what holds depends on has changed. b.mu is held.
func (b *breaker) update() {
	defer b.tell()
	holding := b.reason != nil && !b.asks || len(b.opening) > 0
	switch {
	case holding && !b.holding:
		close(b.lets)
	case !holding && b.holding:
		b.lets = make(chan struct{})
	}
	b.holding = holding
}

// ask lets one message through to the sender that probes, which has a connection by now.
func (b *breaker) ask() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asks = b.reason != nil
	b.update()
}

// opening is an attempt to open a connection.
type opening struct{ over bool }

// takesLong notes that an attempt to open the only connection takes long. ended is called when it is over.
func (b *breaker) takesLong(o *opening) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !o.over {
		b.opening[o] = true
		b.update()
	}
}

func (b *breaker) ended(o *opening) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o.over = true
	delete(b.opening, o)
	b.update()
}

// asking reports whether a sender probes the relay with one message, or waits for one.
func (b *breaker) asking() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asks
}

// trip holds everybody back, and reports whether the trouble begins here. after, if not zero, is when to
// probe, instead of the usual pause. If the relay has said how long to wait, the probe is not before that, whichever
// of the senders has heard it.
func (b *breaker) trip(reason error, probed bool, after time.Duration) (begins bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	begins = b.trouble == nil
	first := b.reason == nil
	b.passes = false
	b.reason, b.trouble = reason, reason
	if first {
		b.resets = make(chan struct{})
		close(b.trips)
	}
	b.asks = false
	b.update()
	asked := deliverypolicy.HoldAfter(reason)
	if first || probed {
		if after == 0 {
			b.pause = min(max(2*b.pause, probeMin), probeMax)
			after = b.pause
		}
		b.probeIn(max(after, asked))
	} else if asked > time.Until(b.dueAt) && b.timer.Stop() {
		b.probeIn(asked)
	}
	return begins
}

// probeIn lets one waiter through after that time. b.mu is held.
func (b *breaker) probeIn(after time.Duration) {
	b.dueAt = time.Now().Add(after)
	b.timer = time.AfterFunc(after, b.due)
}

// again lets one waiter through to probe now, unless the relay has said how long to wait: the login may be another one.
func (b *breaker) again() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reason == nil || b.asks || deliverypolicy.HoldAfter(b.reason) > 0 {
		return
	}
	b.pause = 0
	b.timer.Stop()
	b.probeIn(0)
}

// due lets one waiter through to probe.
func (b *breaker) due() {
	select {
	case b.probe <- struct{}{}:
	default:
	}
}

// reset lets everybody through. The next pause starts where the last one ended,
// unless a message has been accepted: a relay may greet us and still take nothing.
func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = nil
	if b.reason != nil {
		b.reason = nil
		close(b.resets)
		b.trips = make(chan struct{})
		b.asks = false
		b.update()
	}
}

// works notes that the relay judges messages, or that none is there to be judged. It reports
// whether a trouble ends here: one that greets us, and then takes nothing, is no end of it.
func (b *breaker) works() (ends bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reason != nil || b.trouble == nil {
		return false
	}
	b.trouble = nil
	b.tell()
	return true
}

// accepted notes that the relay has accepted a message: the next pause is a short one, and
// what it refuses it does not refuse to all.
func (b *breaker) accepted() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.refused); n > 0 && n < inARow {
		if len(b.blamed)+n > maxBlamed {
			clear(b.blamed)
		}
		for _, name := range b.refused {
			b.blamed[name] = true
		}
	}
	b.pause, b.refused, b.last, b.passes = 0, nil, nil, true
}

// relayRefuses reports whether an error of the class Unavailable means that the relay takes
// no mail at all. If not, it is the temporary failure of the message with that name: a
// message written by a stranger must not hold the mail of all others.
//
// Before a message is spoken of, and in silence, it is the relay. Else it is the relay
// once it has refused several different messages in a row. Where it says that it is
// closing, or wants a login, it is believed at once, but not about the one message that
// it refuses while others pass, nor twice about the same one, nor about a recipient. What was
// refused while others passed says nothing of the relay when it comes again.
func (b *breaker) relayRefuses(name string, err error) bool {
	var e *mailer.SendError
	if !errors.As(err, &e) || e.Code == 0 || !aboutMessage(e.Step) {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.blamed[name] && len(b.refused) < inARow {
		return false
	}
	again := slices.Contains(b.refused, name)
	if !again && len(b.refused) < inARow {
		b.refused = append(b.refused, name)
	}
	switch {
	case len(b.refused) == inARow:
		failure := *e
		failure.Recipient, failure.Refused = "", nil
		b.last = &failure
		return true
	case again, e.Step == mailer.StepRcpt, len(b.refused) == 1 && b.passes:
		return false
	}
	return e.Code == 421 || e.Code/10 == 53
}

// refuses returns what the relay has said to several different messages in a row, nil if it has not: the rest of a
// batch need not hear it too, for the relay may count what it refuses.
// A probe asks the relay all the same.
func (b *breaker) refuses(probe bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		return nil
	}
	return b.last
}

// blames reports whether the message with that name was refused while others passed.
func (b *breaker) blames(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.blamed[name]
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
func (b *breaker) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
}

// held returns why no mail goes through, nil if there is no trouble.
func (b *breaker) held() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trouble
}
