package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// hangups are the SIGHUPs of the process.
type hangups struct {
	mu   sync.Mutex
	sent chan struct{} // nil: they end the command
}

type hangupsKey struct{}

// withHangups returns a context that ends at the first SIGHUP, or, if the command has them for something else, when the
// terminal goes away that the process was started on.
func withHangups(ctx context.Context) context.Context {
	h := new(hangups)
	ctx, cancel := context.WithCancel(context.WithValue(ctx, hangupsKey{}, h))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	terminal := hasTerminal()
	go func() {
		defer cancel()
		for {
			select {
			case <-signals:
				if !h.send() || terminal && !hasTerminal() {
					signal.Stop(signals)
					return
				}
			case <-ctx.Done():
				if !h.send() {
					signal.Stop(signals) // it is the second signal now, which ends the process
				}
				return
			}
		}
	}()
	return ctx
}

// send reports whether the command has the SIGHUPs, and passes one on. Several in a row are one.
func (h *hangups) send() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sent == nil {
		return false
	}
	select {
	case h.sent <- struct{}{}:
	default:
	}
	return true
}

// Hangups takes the SIGHUPs of the process for the command: from now on they do not end it, but are sent to the channel. It still
// ends when the terminal goes away that it was started on. The channel is nil in a program that has its signals itself, or where they are ignored.
func Hangups(ctx context.Context) <-chan struct{} {
	h, ok := ctx.Value(hangupsKey{}).(*hangups)
	if !ok {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sent == nil {
		h.sent = make(chan struct{}, 1)
	}
	return h.sent
}

// hasTerminal reports whether the process has a controlling terminal. One that has gone away is none any more: the system takes it
// from the process before it sends SIGHUP.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}
