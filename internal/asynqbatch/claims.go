package asynqbatch

import (
	"strings"
	"sync"
	"time"
)

// claims are the tasks that this process has fetched, by their keys.
//
// A task is whose owner token is in its record: each fetch writes a random one there. Only a script can tell, and
// each that ends, moves or marks a task compares the token. What is noted here is which token that is, and how long
// there is no need to ask.
//
//	fetch            owner in Redis and here, until now + a lease
//	extend, steps    until later, if Redis says that it is ours still
//	end, giveBack    settled: asynq, which does not know yet, is told nothing more of it
type claims struct {
	clock Clock

	mu      sync.Mutex
	byKey   map[string]claim
	fetches uint64
	purgeAt int // look for claims that nobody will ask for when there are so many
}

// claim is what this process knows of a task that it has fetched.
type claim struct {
	owner   string        // the token in its record
	order   uint64        // of the fetch, among all
	since   string        // when it came into its queue, in asynq's words
	until   time.Duration // it is ours until then, at least
	asked   time.Duration // when it was fetched
	fresh   bool          // it had none of Config.TouchedFields then
	ends    bool          // nothing is to be kept of it when it has ended: no retention, no lock
	settled bool          // it has ended or was given back, and asynq has yet to hear of it
	notes   Notes         // what is written when it ends, or is to be tried again
	earlier int           // fetches of the same task before this one of which asynq has yet to hear the end
}

// Notes are what is written of a message with what becomes of it, by the same script.
type Notes struct {
	Record string // for the history; "" if there is none
	Events string // as events.Append has them; "" if there are none

	// Late says that they may have been written: they were with the entry that says that the message was accepted, if that is there and
	// wire.FieldUnrecorded is not.
	Late bool
}

// leaseTime is how long asynq's leases last.
const leaseTime = 30 * time.Second

// leaseMargin is what is left of a lease when its task is taken for surely ours at the latest.
const leaseMargin = 10 * time.Second

// freshFor is how long what the fetch has said of a task is taken to be so still.
const freshFor = time.Second

// forgottenAfter is how long after its lease a claim is kept for asynq, which may have dropped the task.
const forgottenAfter = 5 * time.Minute

const fewClaims = 10_000

func newClaims(clock Clock) *claims {
	return &claims{clock: clock, byKey: map[string]claim{}, purgeAt: fewClaims}
}

// fetched notes a task that Redis was asked for at that time.
func (c *claims) fetched(key string, next claim, asked time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetches++
	next.order, next.until, next.asked = c.fetches, asked+leaseTime, asked
	if last, ok := c.byKey[key]; ok && c.clock() < last.until+leaseTime { // asynq says nothing of a task whose lease is over
		next.earlier = last.earlier
		if last.settled {
			next.earlier++
		}
	}
	c.byKey[key] = next
	if len(c.byKey) >= c.purgeAt {
		c.purge()
	}
}

// purge drops the claims of tasks that asynq has given up. c.mu is held.
func (c *claims) purge() {
	now := c.clock()
	for key, t := range c.byKey {
		if now > t.until+forgottenAfter {
			delete(c.byKey, key)
		}
	}
	c.purgeAt = max(fewClaims, 2*len(c.byKey))
}

// owner is the token of a task, "" if it was not fetched here.
func (c *claims) owner(key string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[key].owner
}

// get returns the claim of a task, unless it is settled.
func (c *claims) get(key string) (claim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.byKey[key]
	return t, ok && !t.settled
}

// sure reports whether a task is ours for a while yet, whatever other workers do.
func (c *claims) sure(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.byKey[key]
	return ok && !t.settled && c.clock()+leaseMargin < t.until
}

// isFresh reports whether a task was fetched just now, and nobody had done anything to it.
func (c *claims) isFresh(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.byKey[key]
	return ok && !t.settled && t.fresh && c.clock() < t.asked+freshFor
}

// confirmed notes that a task with that owner is ours until then. lost notes that it is another's.
// A task of which nothing is known was fetched by a script that this package does not know.
func (c *claims) confirmed(key, owner string, until time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.byKey[key]
	if ok && t.owner != owner || !ok && owner != "" {
		return
	}
	t.until = max(t.until, until)
	c.byKey[key] = t
}

func (c *claims) lost(key, owner string) {
	c.change(key, owner, func(t *claim) { t.until = min(t.until, c.clock()) })
}

// settle notes that a task with that owner has ended or was given back, before asynq has said so.
func (c *claims) settle(key, owner string) {
	c.change(key, owner, func(t *claim) { t.settled = true })
}

// note notes what is written when a task ends, or is to be tried again. noted is what was noted.
func (c *claims) note(key string, notes Notes) {
	c.change(key, c.owner(key), func(t *claim) { t.notes = notes })
}

func (c *claims) noted(key string) Notes {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[key].notes
}

func (c *claims) change(key, owner string, change func(*claim)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.byKey[key]; ok && t.owner == owner {
		change(&t)
		c.byKey[key] = t
	}
}

// asynqEnds is called when asynq ends, moves or gives back a task that it was given. told reports that it is to
// be told that this is done: the task has ended here before, or was given back.
func (c *claims) asynqEnds(key string) (owner string, told bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.byKey[key]
	switch {
	case t.earlier > 0: // it speaks of an earlier fetch
		t.earlier--
		c.byKey[key] = t
		return "", true
	case t.settled:
		delete(c.byKey, key)
		return "", true
	}
	return t.owner, false
}

// ended notes that asynq has ended or moved a task with that owner.
func (c *claims) ended(key, owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.byKey[key]
	switch {
	case !ok || t.owner != owner:
	case t.earlier > 0:
		c.byKey[key] = claim{earlier: t.earlier - 1, settled: true, until: t.until}
	default:
		delete(c.byKey, key)
	}
}

// queueOf splits a task's key into what all keys of its queue begin with and its ID.
func queueOf(key string) (prefix, id string) {
	i := strings.Index(key, "}:t:")
	if i < 0 {
		return key, ""
	}
	return key[:i+len("}:")], key[i+len("}:t:"):]
}

// drop notes that a task with that owner was given back before asynq was given it.
func (c *claims) drop(key, owner string) { c.ended(key, owner) }
