package producer

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/presence"
)

// While workers are upgraded, old ones and new ones live side by side, and what an old one cannot read it leaves to the others. So mail
// is written as all of them read it, if it can be: without compression, and without tags. A mailing cannot be left out, for it
// could not be paused or cancelled as its sender was promised. It waits for the workers that know mailings, and is refused
// where there is none.

// askedFor is for how long a program believes what it knows of the workers: as long as a worker takes to say that it lives.
const askedFor = presence.Every

// versions knows which payloads the workers that live can read.
type versions struct {
	redis redis.UniversalClient

	asking sync.Mutex // held by who asks
	mu     sync.Mutex // guards what follows
	known  presence.Reads
	until  time.Time
}

// reads returns what the workers can read. Redis is asked now and again: one goroutine waits for that, and the others go on with what is
// known, unless nothing is.
func (v *versions) reads(ctx context.Context) presence.Reads {
	if known, ok := v.fresh(); ok {
		return known
	}
	if !v.asking.TryLock() {
		if known, _ := v.fresh(); known.Known() {
			return known
		}
		v.asking.Lock()
		defer v.asking.Unlock()
		if known, ok := v.fresh(); ok {
			return known
		}
	} else {
		defer v.asking.Unlock()
	}
	workers, err := presence.Read(ctx, v.redis)
	reads := presence.ReadsOf(workers)
	if err != nil {
		reads = presence.Reads{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known, v.until = reads, time.Now().Add(askedFor)
	return reads
}

// fresh is what is known. It is false if that is nothing, or old.
func (v *versions) fresh() (known presence.Reads, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.known, time.Now().Before(v.until)
}
