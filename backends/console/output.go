package console

import (
	"io"
	"sync"
)

// Output lets several backends, each used by a goroutine of its own, share a Writer:
// it passes on one Write at a time. A backend writes each message with one Write, so
// messages never interleave.
type Output struct {
	mu sync.Mutex // held during a Write to w
	w  io.Writer
}

// NewOutput returns an Output that writes to w.
func NewOutput(w io.Writer) *Output { return &Output{w: w} }

// Write is w's Write. A short one without an error becomes io.ErrShortWrite.
func (o *Output) Write(p []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err = o.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}
