package redact

import (
	"fmt"
	"runtime"
)

// Panic is what may be reported of a panic: what Go itself says, and of anything else only
// its type, for its text may be a message's. The stack says where it was.
func Panic(p any) string {
	if err, ok := p.(runtime.Error); ok {
		return Reason(err.Error(), true)
	}
	return fmt.Sprintf("with a %T", p)
}
