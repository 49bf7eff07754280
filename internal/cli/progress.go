package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Bar shows how far a long job has come, on a terminal. Elsewhere it shows nothing.
type Bar struct{ bar *progressbar.ProgressBar }

// NewBar starts a bar on w for total steps, or for an unknown number if total is
// negative.
func NewBar(w io.Writer, total int, text string) *Bar {
	if !IsTerminal(w) {
		return &Bar{}
	}
	return &Bar{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(text),
		progressbar.OptionSetWidth(40),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("mails"),
		progressbar.OptionThrottle(65*time.Millisecond),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(w) }),
	)}
}

// Add adds n steps that are done.
func (b *Bar) Add(n int) {
	if b.bar != nil {
		_ = b.bar.Add(n) // it only fails past the end
	}
}

// Finish ends the bar where it is.
func (b *Bar) Finish() {
	if b.bar != nil {
		_ = b.bar.Exit()
	}
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
