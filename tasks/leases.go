package tasks

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/mailpouch/mailpouch/internal/ratelimit"
)

// How often a worker says how many connections it has and would have: often while it has none and would have one, or would have
// more, since others may have closed theirs.
const (
	leaseEvery = 2 * time.Second
	leaseSoon  = 300 * time.Millisecond
)

// leases keeps the connections of a mailer to those that all workers may have together. Each worker says what it has and would
// have, and is told how many that may be; what it does not say any more others have after a while. A worker that may have none
// gives its mail back: others have the connections.
type leases struct {
	limiter *ratelimit.Limiter
	worker  string
	most    int // of all workers
	pool    *connections
	breaker *breaker
	mail    func(awake bool) bool // there is some in hand, or, if awake, there may be some in the queues

	observers observers
	mailer    string
	told      int // the number that observers have heard
}

func newLeases(r *rates, pool *connections, b *breaker, mail func(awake bool) bool) *leases {
	pool.lease(0)
	return &leases{
		limiter: r.Limiter, worker: rand.Text(), most: r.rates.Connections, pool: pool, breaker: b, mail: mail,
		observers: r.observers, mailer: r.mailer, told: -1,
	}
}

// run asks until stop ends.
func (l *leases) run(stop context.Context) {
	var none *opening // while there is no connection, and mail for it
	confirmed := time.Now()
	for stop.Err() == nil {
		asked, open := time.Now(), l.pool.openNow()
		busy := l.mail(none != nil)
		want := max(open, 1) // the first message is to find one
		if busy {
			want = l.pool.wants()
		}
		want = min(want, l.most)
		allowed, err := l.limiter.Lease(stop, l.worker, open, want, !busy)
		if err == nil {
			confirmed = asked
			l.pool.lease(allowed)
			l.tell(allowed)
		} else if time.Since(confirmed) > ratelimit.LeaseFor-leaseEvery { // others may have them by now
			l.pool.lease(0)
		}
		switch {
		case err != nil:
		case busy && allowed == 0 && none == nil:
			none = new(opening)
			l.breaker.takesLong(none)
		case none != nil && (!busy || allowed > 0):
			l.breaker.ended(none)
			none = nil
		}
		l.pause(stop, busy && allowed < want)
	}
	if none != nil {
		l.breaker.ended(none)
	}
}

// pause waits until it is time to ask again.
func (l *leases) pause(stop context.Context, short bool) {
	every, wanted := leaseEvery, l.pool.leased.wanted
	if short {
		every, wanted = leaseSoon, nil
	}
	timer := time.NewTimer(every)
	defer timer.Stop()
	select {
	case <-stop.Done():
	case <-timer.C:
	case <-wanted:
	}
}

// release gives the connections back, when the senders have closed them.
func (l *leases) release() {
	ctx, cancel := context.WithTimeout(context.Background(), leaseEvery)
	defer cancel()
	_, _ = l.limiter.Lease(ctx, l.worker, 0, 0, true) // else the time ends it
}

func (l *leases) tell(allowed int) {
	if allowed != l.told {
		l.told = allowed
		l.observers.leased(l.mailer, allowed, l.most)
	}
}

// lease notes how many connections there may be.
func (p *connections) lease(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n != p.leased.most {
		p.leased.most = n
		p.wake()
	}
}

// openNow is how many are open or about to be, and wants how many there would be.
func (p *connections) openNow() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken()
}

func (p *connections) wants() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sizeNow() + p.dedicated()
}
