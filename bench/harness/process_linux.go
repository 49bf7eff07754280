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

// CPU is the processor time that the process has used so far, of all its threads, in user
// and in system. It reads the process's own clock, as clock_getcpuclockid(3) names it: it
// is as exact as the scheduler's books and does not wait for the process to end, as its
// rusage would.
func (p *Process) CPU(b *Bench) time.Duration {
	b.Helper()
	return cpuOf(b, p.PID())
}

// OwnCPU is the processor time of this program.
func OwnCPU(b *Bench) time.Duration {
	b.Helper()
	return cpuOf(b, os.Getpid())
}

func cpuOf(b *Bench, pid int) time.Duration {
	b.Helper()
	const schedClock = 2 // CPUCLOCK_SCHED, of a process
	var t unix.Timespec
	b.Check(unix.ClockGettime(int32(^pid<<3|schedClock), &t)) //nolint:gosec // a PID has 22 bits
	return time.Duration(t.Nano())
}

// MachineCPU is the processor time that all programs of the machine have used since it was
// started, and what its host took from it.
func MachineCPU(b *Bench) time.Duration {
	b.Helper()
	stat, err := os.ReadFile("/proc/stat")
	b.Check(err)
	busy, err := busyTime(string(stat))
	b.Check(err)
	return busy
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

// PeakMemory is the most memory that the process has had at once (VmHWM), in bytes.
func (p *Process) PeakMemory(b *Bench) int64 {
	b.Helper()
	n, err := peakOf(p.PID())
	b.Check(err)
	return n
}

// memory is PeakMemory, or zero if the process has just ended.
func (p *Process) memory() int64 {
	n, _ := peakOf(p.PID()) // where it is not known it is zero
	return n
}

func peakOf(pid int) (int64, error) {
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
