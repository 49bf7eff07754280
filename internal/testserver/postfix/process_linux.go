package postfix

import "syscall"

// adoptOrphans makes the children that a daemon leaves behind ours (prctl(2),
// PR_SET_CHILD_SUBREAPER), so that we can wait for them. They would go to the
// first process, which in a container often waits for nobody.
func adoptOrphans() {
	const setChildSubreaper = 36
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}

// awaitGroup waits until the daemon's children are gone, so that nobody writes any
// more into the directory that is going to be removed.
func awaitGroup(pgid int) {
	for {
		_, err := syscall.Wait4(-pgid, nil, 0, nil)
		if err != nil && err != syscall.EINTR {
			return // ECHILD: none left
		}
	}
}
