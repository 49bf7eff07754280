package console

import (
	"io"
	"os"
	"sync"

	"github.com/mailpouch/mailpouch/internal/redact"
)

// Output lets several backends, each used by a goroutine of its own, share a Writer:
// it passes on one Write at a time. A backend writes each message with one Write, so
// messages never interleave.
type Output struct {
	mu       sync.Mutex // held during a Write to w
	w        io.Writer
	terminal bool // w is one: what could control it is made visible
}

// NewOutput returns an Output that writes to w.
func NewOutput(w io.Writer) *Output { return &Output{w: w, terminal: isTerminal(w)} }

// Write is w's Write. A short one without an error becomes io.ErrShortWrite. On a terminal control
// characters are made visible, for a message may hold anything.
func (o *Output) Write(p []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	shown := p
	if o.terminal {
		shown = []byte(redact.Visible(string(p)))
	}
	n, err = o.w.Write(shown)
	switch {
	case err != nil:
		return min(n, len(p)), err
	case n < len(shown):
		return min(n, len(p)), io.ErrShortWrite
	}
	return len(p), nil
}

// isTerminal reports whether w is a device for characters, as a terminal is.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
