package workercli

import (
	"context"
	"sync"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/tasks"
)

// sayOddSizes makes the worker say once of each server that its limit on the size of a message is ignored.
func sayOddSizes(cfg *tasks.WorkerConfig, log zerolog.Logger) {
	var said sync.Map // by address and limit
	hooks := &smtp.Hooks{Connected: func(_ context.Context, c smtp.Connected) {
		if c.Conn.OddSize == "" {
			return
		}
		if _, before := said.LoadOrStore([2]string{c.Conn.Addr, c.Conn.OddSize}, true); !before {
			log.Warn().Str("server", c.Conn.Addr).Str("size", c.Conn.OddSize).
				Msg("the server announces a limit on the size of a message (SIZE) that cannot be meant: it is ignored, and the server judges each message itself")
		}
	}}
	cfg.Connect = hooked(cfg.Connect, func(string) *smtp.Hooks { return hooks })
}
