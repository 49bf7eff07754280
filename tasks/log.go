package tasks

import (
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// ended tells the trace, the log and the observers how a try of a message has ended.
func (w *Worker) ended(t ticket, end outcome) {
	o := t.ended(end)
	t.span.done(o.Action, o.Err)
	w.logOutcome(o)
	observers(w.cfg.Observers).outcome(o)
}

// logOutcome writes the one line that each try of a message leaves.
func (w *Worker) logOutcome(o Outcome) {
	line := w.log.WithLevel(o.Action.level())
	line.Str("message_id", o.MessageID).Str("task", o.TaskID).Str("queue", o.Queue).Str("mailer", o.Mailer)
	if o.Sender != 0 {
		line.Int("sender", o.Sender)
	}
	if o.Conn != "" {
		line.Str("connection", o.Conn)
	}
	line.Int("try", o.Try).Dur("waited", o.Waited).Dur("took", o.Took)
	if o.Action == ActionRetry {
		line.Dur("retry_in", o.RetryIn)
	}
	if o.Err != nil {
		line.AnErr("error", o.Err)
	}
	if o.Reply != "" {
		line.Str("reply", o.Reply)
	}
	for _, r := range o.Refused {
		w.log.Warn().Str("task", o.TaskID).AnErr("error", r).Msg("recipient refused")
	}
	line.Msg(string(o.Action))
}

func (a Action) level() zerolog.Level {
	switch a {
	case ActionDead:
		return zerolog.ErrorLevel
	case ActionRetry, ActionSilent:
		return zerolog.WarnLevel
	}
	return zerolog.InfoLevel
}

// asynqLogger gives asynq's own messages to zerolog. What it warns of for each task that
// becomes a dead letter or is given back is expected, or logged better by us.
type asynqLogger struct {
	log   zerolog.Logger
	quiet *quiet
}

func (l asynqLogger) Debug(args ...any) { l.log.Debug().Msg(fmt.Sprint(args...)) }
func (l asynqLogger) Info(args ...any)  { l.log.Info().Msg(fmt.Sprint(args...)) }

func (l asynqLogger) Warn(args ...any) {
	text := fmt.Sprint(args...)
	level := zerolog.WarnLevel
	if strings.HasPrefix(text, "Quitting worker") || strings.HasPrefix(text, "revoke task") || strings.HasPrefix(text, "Retry exhausted") {
		level = zerolog.DebugLevel
	}
	l.trouble(level, text)
}

func (l asynqLogger) Error(args ...any) { l.trouble(zerolog.ErrorLevel, fmt.Sprint(args...)) }

// trouble logs a line of which there may be one for each task.
func (l asynqLogger) trouble(level zerolog.Level, text string) {
	if level == zerolog.DebugLevel || endedBefore(text) {
		l.log.Debug().Msg(text)
		return
	}
	if text, ok := l.quiet.line(time.Now(), text); ok {
		l.log.WithLevel(level).Msg(text)
	}
}

func (l asynqLogger) Fatal(args ...any) { l.log.Fatal().Msg(fmt.Sprint(args...)) }
