package outgoing

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/mailpouch/mailpouch/mailer"
)

// PanicError is the error of a message over which a Func has panicked. It costs that message a try.
type PanicError struct {
	Value any
	Stack []byte
}

// Error says what Go itself says, and of anything else only its type, for its text may be a message's.
func (e *PanicError) Error() string {
	if err, ok := e.Value.(runtime.Error); ok {
		return "panic: " + err.Error()
	}
	return fmt.Sprintf("panic with a %T", e.Value)
}

// guarded calls change, whatever it does.
func guarded(change func() (*mailer.EmailMessage, error)) (m *mailer.EmailMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return change()
}
