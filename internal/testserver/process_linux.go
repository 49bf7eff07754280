package testserver

import "syscall"

// adoptOrphans makes the children that a daemon leaves behind ours (prctl(2),
// PR_SET_CHILD_SUBREAPER), so that we can wait for them. They would go to the
// first process, which in a container often waits for nobody.
func adoptOrphans() {
	const setChildSubreaper = 36
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}
