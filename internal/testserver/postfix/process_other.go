//go:build !linux

package postfix

import (
	"syscall"
	"time"
)

// adoptOrphans cannot be had on this system.
func adoptOrphans() {}

// awaitGroup waits until the daemon's children are gone, so that nobody writes any
// more into the directory that is going to be removed.
func awaitGroup(pgid int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if syscall.Kill(-pgid, 0) != nil {
			return
		}
		<-tick.C
	}
}
