// Package profile reads from a CPU profile which part of a worker took how much of the
// processor.
package profile

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/mailpouch/mailpouch/bench/report"
)

// The parts of a worker.
const (
	collector = "garbage collector"
	scheduler = "Go's scheduler"
	ledger    = "ledger"
	rest      = "the rest"
)

// whole are parts that take all that happens below one of their frames: what the ledger
// asks Redis is the ledger's.
var whole = []struct{ part, file, function string }{
	{collector, "", "runtime.gcBgMarkWorker"},
	{collector, "", "runtime.gcAssistAlloc"},
	{collector, "", "runtime.bgsweep"},
	{collector, "", "runtime.bgscavenge"},
	{ledger, "/tasks/ledger", ""},
}

// own are parts by what stands innermost: Redis's client where asynq calls it. The first
// one that fits a frame is its part.
var own = []struct{ part, file, function string }{
	{"Redis's client", "", "github.com/redis/go-redis/"},
	{"JSON", "/mailer/json", ""},
	{"JSON", "/internal/wire/", ""},
	{"JSON", "", "encoding/json"},
	{"SMTP", "", "github.com/mailpouch/mailpouch/backends/"},
	{"rendering", "", "github.com/mailpouch/mailpouch/mailer."},
	{"the worker itself", "", "github.com/mailpouch/mailpouch/"},
	{"asynq", "", "github.com/hibiken/asynq"},
}

// idle are where a thread is that looks for a goroutine to run.
var idle = []string{"runtime.schedule", "runtime.mcall", "runtime.mstart", "runtime.sysmon", "runtime.findRunnable"}

// inSystem are where a thread waits for the system to do something.
var inSystem = []string{
	"internal/runtime/syscall", "syscall.", "runtime.futex", "runtime.epollwait", "runtime.usleep",
	"runtime.madvise", "runtime.write1", "runtime.tgkill", "runtime.nanotime",
}

// frame is one function on a stack.
type frame struct{ function, file string }

// Parts reads a profile as net/http/pprof gives it. The parts come with the greatest
// first.
func Parts(data []byte) ([]report.Part, error) {
	p, err := profile.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	times := map[string]*report.Part{}
	var total float64
	for _, s := range p.Sample {
		stack := frames(s)
		name, took := partOf(stack), float64(s.Value[len(s.Value)-1])
		part := times[name]
		if part == nil {
			part = &report.Part{Name: name}
			times[name] = part
		}
		part.Share += took
		if hasPrefix(stack[0].function, inSystem) {
			part.Syscall += took
		}
		total += took
	}
	var parts []report.Part
	for _, part := range times {
		parts = append(parts, report.Part{Name: part.Name, Share: part.Share / total, Syscall: part.Syscall / total})
	}
	slices.SortFunc(parts, func(a, b report.Part) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name))
	})
	return parts, nil
}

// frames is the stack of a sample, the innermost function first, inlined ones too. It is
// never empty.
func frames(s *profile.Sample) []frame {
	var stack []frame
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function != nil {
				stack = append(stack, frame{line.Function.Name, line.Function.Filename})
			}
		}
	}
	if len(stack) == 0 {
		return []frame{{function: "unknown"}}
	}
	return stack
}

func partOf(stack []frame) string {
	for _, f := range stack {
		for _, r := range whole {
			if fits(f, r.file, r.function) {
				return r.part
			}
		}
	}
	for _, f := range stack {
		for _, r := range own {
			if fits(f, r.file, r.function) {
				return r.part
			}
		}
	}
	for _, f := range stack {
		if hasPrefix(f.function, idle) {
			return scheduler
		}
	}
	return rest
}

func fits(f frame, file, function string) bool {
	if file != "" {
		return strings.Contains(f.file, file)
	}
	return strings.HasPrefix(f.function, function)
}

func hasPrefix(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
