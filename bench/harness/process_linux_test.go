package harness

import (
	"testing"
	"time"
)

func TestPeak(t *testing.T) {
	got, err := peak("Name:\tworker\nVmPeak:\t  999 kB\nVmHWM:\t   12 kB\nVmRSS:\t    8 kB\n")
	if err != nil || got != 12<<10 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := peak("Name:\tworker\n"); err == nil {
		t.Error("found a peak where there is none")
	}
}

func TestBusyTime(t *testing.T) {
	got, err := busyTime("cpu  100 10 200 99999 5000 1 2 3 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if err != nil || got != 3160*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	for _, stat := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9\n", "cpu a b c d e f g h i\n"} {
		if _, err := busyTime(stat); err == nil {
			t.Errorf("read %q", stat)
		}
	}
}

func TestProcess_CPU(t *testing.T) {
	err := Run(t.Context(), "case", Programs{}, func(b *Bench) {
		busy := Start(b, "/bin/sh", []string{"-c", "while :; do :; done"})
		idle := Start(b, "/bin/sleep", []string{"60"})
		used, deadline := busy.CPU(b), time.Now().Add(patience)
		for busy.CPU(b)-used < 20*time.Millisecond && time.Now().Before(deadline) {
			OwnCPU(b) // it takes turns with us
		}
		if got := busy.CPU(b) - used; got < 20*time.Millisecond {
			t.Errorf("a busy process has used %v", got)
		}
		if got := idle.CPU(b); got > 20*time.Millisecond {
			t.Errorf("an idle process has used %v", got)
		}
		if busy.PeakMemory(b) < 100_000 {
			t.Errorf("a shell has used %d bytes", busy.PeakMemory(b))
		}
	})
	if err != nil {
		t.Error(err)
	}
}
