// Package harness runs measurements: it starts servers and the measured programs, and reads
// their processor time and memory.
package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Bench is what one measurement runs in: a testing.TB outside of go test, so that the
// helpers of the tests (internal/testserver/redis) serve here too. As there, Fatal ends the
// goroutine of the measurement, Skip says that it is not possible here, and Cleanup
// registers what has to be stopped at its end.
type Bench struct {
	testing.TB // nil; it is here for its unexported method only

	Programs Programs

	ctx  context.Context
	name string

	mu       sync.Mutex
	cleanups []func()
	fatal    error
	skipped  string
}

// SkippedError says why a measurement is not possible on this machine or with this tree.
type SkippedError struct{ Reason string }

func (e *SkippedError) Error() string { return "skipped: " + e.Reason }

// Run runs one measurement with whatever it starts, and stops that again. It returns
// what Fatal said, or a SkippedError.
func Run(ctx context.Context, name string, programs Programs, measure func(*Bench)) error {
	b := &Bench{Programs: programs, ctx: ctx, name: name}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.cleanup()
		measure(b)
	}()
	<-done
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.fatal != nil:
		return fmt.Errorf("%s: %w", name, b.fatal)
	case b.skipped != "":
		return &SkippedError{b.skipped}
	}
	return ctx.Err()
}

// cleanup calls the last registered function first, also after a Fatal.
func (b *Bench) cleanup() {
	for {
		b.mu.Lock()
		n := len(b.cleanups)
		if n == 0 {
			b.mu.Unlock()
			return
		}
		last := b.cleanups[n-1]
		b.cleanups = b.cleanups[:n-1]
		b.mu.Unlock()
		last()
	}
}

// Check ends the measurement if err is not nil.
func (b *Bench) Check(err error) {
	if err != nil {
		b.end(err)
	}
}

func (b *Bench) end(err error) {
	b.mu.Lock()
	b.fatal = cmpError(b.fatal, err)
	b.mu.Unlock()
	runtime.Goexit()
}

// cmpError is the first error.
func cmpError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// The methods of testing.TB that a helper may call.

// Context ends when the program is interrupted.
func (b *Bench) Context() context.Context { return b.ctx }

// Name is the measurement's name.
func (b *Bench) Name() string { return b.name }

// Helper does nothing here.
func (b *Bench) Helper() {}

// Cleanup registers what is to be done at the end.
func (b *Bench) Cleanup(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanups = append(b.cleanups, f)
}

// TempDir makes a directory that is removed at the end.
func (b *Bench) TempDir() string {
	dir, err := os.MkdirTemp("", "mailpouch-bench-")
	b.Check(err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Failed reports whether Fatal or Error was called.
func (b *Bench) Failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fatal != nil
}

// Logf adds to the error of a measurement that has failed, and is silent otherwise.
func (b *Bench) Logf(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fatal != nil {
		b.fatal = fmt.Errorf("%w\n%s", b.fatal, fmt.Sprintf(format, args...))
	}
}

// Error notes that the measurement is worth nothing, and goes on.
func (b *Bench) Error(args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fatal = cmpError(b.fatal, said(args))
}

// Errorf is Error with a format.
func (b *Bench) Errorf(format string, args ...any) { b.Error(fmt.Sprintf(format, args...)) }

// Fatal ends the measurement.
func (b *Bench) Fatal(args ...any) { b.end(said(args)) }

// Fatalf is Fatal with a format.
func (b *Bench) Fatalf(format string, args ...any) { b.end(fmt.Errorf(format, args...)) }

// Skip ends the measurement: it is not possible here.
func (b *Bench) Skip(args ...any) {
	b.mu.Lock()
	b.skipped = said(args).Error()
	b.mu.Unlock()
	runtime.Goexit()
}

// Skipf is Skip with a format.
func (b *Bench) Skipf(format string, args ...any) { b.Skip(fmt.Sprintf(format, args...)) }

func said(args []any) error { return errors.New(strings.TrimSpace(fmt.Sprintln(args...))) }
