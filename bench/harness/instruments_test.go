package harness

import (
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestParseInfo(t *testing.T) {
	got := parseInfo("# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.25\r\n\r\n# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\n")
	if len(got) != 3 || got["used_cpu_sys"] != 1.5 || got["used_cpu_user"] != 2.25 || got["used_memory"] != 1<<20 {
		t.Errorf("got %v", got)
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"PATH=/bin", "EMAIL_HOST=mx.example.com", "REDIS_URL=redis://h", "HOME=/root", "EMAIL_QUEUE_SHARDS=2"})
	if want := []string{"PATH=/bin", "HOME=/root"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestVersion(t *testing.T) {
	if got := version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64"); got != "7.0.15" {
		t.Errorf("got %q", got)
	}
}

func TestProcess(t *testing.T) {
	err := Run(t.Context(), "case", Programs{}, func(b *Bench) {
		p := Start(b, "/bin/sh", []string{"-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit $CODE"}, "CODE=3")
		b.Cleanup(func() {
			if !p.Ended() {
				t.Error("the process has not ended")
			}
		})
		p.Wait(b)
	})
	if err == nil || err.Error() != "case: sh: exit status 3\nsh said:\nnothing" {
		t.Errorf("error %v", err)
	}
}

func TestProcess_Used(t *testing.T) {
	err := Run(t.Context(), "case", Programs{}, func(b *Bench) {
		p := Start(b, "/bin/sh", []string{"-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"})
		if peak := p.Wait(b); runtime.GOOS == "linux" && peak <= 0 {
			t.Errorf("it had %d bytes", peak)
		}
		if used := p.Used(); used <= 0 || used > time.Minute {
			t.Errorf("it used %v", used)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
