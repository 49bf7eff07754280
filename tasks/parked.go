package tasks

import (
	"context"
	"slices"
	"time"
)

// What a sender asks while it has no connection: the relay allows no more, or there are enough.

// isParked reports whether the sender has no connection because others have all that are allowed.
func (c *connection) isParked() bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.parked
}

// mayOpen reports whether the sender has a connection or may open one. If not, changed is closed when it
// may look again.
func (c *connection) mayOpen() (ok bool, changed <-chan struct{}) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	ok = !c.restsNow() && (c.open || p.taken() < p.allowed)
	c.parked = c.parked && !ok
	return ok, p.changed
}

// await waits until the sender has a connection or may open one. Who waits tries, when that is due and
// the mailer has use for it, whether the relay allows one more.
func (c *connection) await(stop, work context.Context) {
	for stop.Err() == nil {
		ok, changed := c.mayOpen()
		if ok {
			return
		}
		if c.rests() {
			select {
			case <-stop.Done():
			case <-changed:
			}
			continue
		}
		after, try := c.attempt()
		if try {
			_ = c.Open(work)
			continue
		}
		var timer <-chan time.Time
		if after > 0 {
			timer = time.After(after)
		}
		select {
		case <-stop.Done():
		case <-changed:
		case <-timer:
		}
	}
}

// attempt reports whether c is to try whether there is room for it, or after what time to look again; 0: not
// before a change.
func (c *connection) attempt() (after time.Duration, try bool) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken() >= p.leased.least(len(p.all)) {
		return 0, false
	}
	if wait := time.Until(p.due); wait > 0 {
		return wait, false
	}
	if p.scout == nil {
		p.scout = c
	}
	if p.scout != c {
		return 0, false
	}
	return livelyPoll, time.Since(p.accepted) < lively
}

// rests reports whether the sender is to have no connection, since there are enough.
func (c *connection) rests() bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.restsNow()
}

// rest notes that the sender has closed its connection, since there are enough.
func (c *connection) rest() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.open, c.parked = false, false
	c.pool.wake()
}

// mayRest is closed when the sender may have to rest. It is nil for one that never does.
func (c *connection) mayRest() <-chan struct{} {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.pool.leased.most < 0 && (c.dedicated || !c.pool.growth.grows() || c.rank < c.pool.growth.base) {
		return nil
	}
	return c.pool.changed
}

// servesAll reports whether the connection that is dedicated to the priority channel has to take all mail, since
// the relay allows no other one. changed is closed when that may have changed.
func (c *connection) servesAll() (all bool, changed <-chan struct{}) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	other := slices.ContainsFunc(p.all, func(o *connection) bool { return !o.dedicated && (o.open || o.opening) })
	return c.open && !other && p.taken() >= p.mayHave(), p.changed
}
