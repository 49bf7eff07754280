package transport

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes the system has taken for the server that this has not got yet: up to some megabytes, so that
// it may be minutes until a slow server lets the system take more. It is 0 if the system does not say.
func unsent(socket syscall.RawConn) (n int64) {
	_ = socket.Control(func(fd uintptr) {
		if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = int64(queued)
		}
	})
	return n
}
