package tasks

import (
	"sync/atomic"
	"time"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
)

// busy is what the senders of a mailer are doing: whether one has sent something lately, and how many are sending, or have
// nothing to do. The zero value is ready for use.
type busy struct {
	last     atomic.Int64
	wires    atomic.Int32 // senders that wait for their relay
	normal   atomic.Int32 // senders that wait for something to send
	priority atomic.Int32 // and for priority mail
}

// rest notes that a sender has nothing to do, until the function that it returns is called, and what it would take.
func (b *busy) rest(normal, priority bool) (over func()) {
	add := func(n int32) {
		if normal {
			b.normal.Add(n)
		}
		if priority {
			b.priority.Add(n)
		}
	}
	add(1)
	return func() { add(-1) }
}

// idle is how many senders wait for mail of a kind.
func (b *busy) idle(priority bool) int {
	if priority {
		return int(b.priority.Load())
	}
	return int(b.normal.Load())
}

// note notes that a message has been sent, or tried, or that a batch begins.
func (b *busy) note(now time.Time) { b.last.Store(now.UnixNano()) }

// stands reports whether messages are on the wire, no sender has nothing to do, and none was answered for so long.
func (b *busy) stands(now time.Time, patience time.Duration) bool {
	return b.wires.Load() > 0 && b.idle(false) == 0 && now.Sub(time.Unix(0, b.last.Load())) > patience
}

func (b *busy) lately() bool {
	return time.Since(time.Unix(0, b.last.Load())) < asynqbatch.CheckInterval
}
