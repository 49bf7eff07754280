package workercli

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// newLogger writes JSON for programs, and lines for people on a terminal.
func newLogger(w io.Writer, s settings.Log) zerolog.Logger {
	level, err := zerolog.ParseLevel(s.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	if s.Format == "console" || s.Format == "auto" && cli.IsTerminal(w) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !cli.IsTerminal(w), FormatPrepare: printable}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// printable removes control characters from the lines for people: JSON escapes only some.
func printable(line map[string]any) error {
	for name, value := range line {
		line[name] = printableValue(value)
	}
	return nil
}

func printableValue(value any) any {
	switch v := value.(type) {
	case string:
		return redact.Line(v)
	case []any:
		for i := range v {
			v[i] = printableValue(v[i])
		}
	}
	return value
}

// adopt sends the logs of libraries that log for the whole process into our log: go-redis,
// whose lines come back as errors too, and the standard library's log, which asynqmon uses.
// And whoever reads the log may go away: the worker goes on without it, where SIGPIPE would end it with mail on the wire.
func adopt(w io.Writer, log zerolog.Logger) {
	if w != os.Stderr {
		return // a command inside another program, to which they belong
	}
	signal.Ignore(syscall.SIGPIPE)
	redis.SetLogger(redisLog{log})
	stdlog.SetFlags(0)
	stdlog.SetOutput(log)
}

// redisLog is go-redis's logger.
type redisLog struct{ log zerolog.Logger }

// Printf implements the logger of go-redis.
func (l redisLog) Printf(_ context.Context, format string, args ...any) {
	l.log.Debug().Msg("go-redis: " + redact.Text(fmt.Sprintf(format, args...), maxTraced, false))
}

// maxTraced is how much of a line of a conversation is logged.
const maxTraced = 1000

// traced returns the registry with an smtp backend that logs its conversations, whatever the
// level. Each backend, which is one connection at a time, has a number.
func traced(registry backends.Registry, log zerolog.Logger, s settings.Log) backends.Registry {
	registry = maps.Clone(registry)
	var last atomic.Int64
	log, show := log.Level(zerolog.InfoLevel), s.ShowAddresses // it was asked for
	entry, logins := registry["smtp"], new(backends.Logins)
	entry.New = func(s settings.Settings) (mailer.Backend, error) {
		number := last.Add(1)
		return backends.SMTP(s, logins, func(line string) {
			log.Info().Int64("smtp", number).Msg(redact.Text(line, maxTraced, show))
		})
	}
	registry["smtp"] = entry
	return registry
}

// logged logs why a worker ends, a line for each problem, so that all output of a worker has
// the same form. The error that it returns is not printed again.
func logged(log zerolog.Logger, err error) error {
	if err == nil {
		return nil
	}
	var problems settings.Problems
	if !errors.As(err, &problems) {
		log.Error().Err(err).Msg("the worker has ended")
	}
	for _, p := range problems {
		log.Error().Msg(p.Error())
	}
	return cli.Reported(err)
}
