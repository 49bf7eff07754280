package testserver

import (
	"fmt"
	"syscall"
)

// adoptOrphans makes the children that a daemon leaves behind ours (prctl(2),
// PR_SET_CHILD_SUBREAPER), so that we can wait for them. They would go to the
// first process, which in a container often waits for nobody.
func adoptOrphans() {
	const setChildSubreaper = 36
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}

// reserve keeps a port from the other tests until this process ends, however it does: it holds the name of a socket (unix(7), abstract)
// that goes with the process.
func reserve(port int) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("@mailpouch-test-port-%d", port)}); err != nil {
		_ = syscall.Close(fd)
		return fmt.Errorf("port %d is another test's: %w", port, err)
	}
	return nil
}
