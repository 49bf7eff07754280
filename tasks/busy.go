package tasks

import (
	"sync/atomic"
	"time"
)

// busy says whether a lane has sent something lately. The zero value is ready for use.
type busy struct{ last atomic.Int64 }

// note notes that a message has been sent, or tried.
func (b *busy) note(now time.Time) { b.last.Store(now.UnixNano()) }

func (b *busy) lately() bool { return time.Since(time.Unix(0, b.last.Load())) < checkInterval }
