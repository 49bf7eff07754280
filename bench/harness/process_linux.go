package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dieWithUs makes the kernel kill the program when ours is gone, even if that was killed.
func dieWithUs(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// withoutRoot makes the program run as nobody if we are root. A program that changes its
// user itself would outlive us: the kernel forgets then that it is to be killed.
func withoutRoot(cmd *exec.Cmd) {
	const nobody = 65534
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}

// cpuTime is the processor time of a process. It reads the process's own clock, as
// clock_getcpuclockid(3) names it: it is as exact as the scheduler's books and does not wait
// for the process to end, as its rusage would.
func cpuTime(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED, of a process
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|schedClock), &t) //nolint:gosec // a PID has 22 bits
	return time.Duration(t.Nano()), err
}

// machineTime is the processor time of the machine.
func machineTime() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return busyTime(string(stat))
}

// busyTime sums the first line of /proc/stat without what was idle: user, nice, system, idle,
// iowait, irq, softirq, steal, and then guests, which are in user already.
func busyTime(stat string) (time.Duration, error) {
	const tick = time.Second / 100 // USER_HZ, on every architecture that Go runs on
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("harness: /proc/stat begins with %q", line)
	}
	var sum time.Duration
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// peakMemory is VmHWM of a process, in bytes.
func peakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return peak(string(status))
}

// peak finds VmHWM in /proc/PID/status.
func peak(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("harness: no VmHWM in %q", status)
}
