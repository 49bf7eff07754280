package tasks

import (
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// logOutcome writes the one line that each try of a message leaves.
func (w *Worker) logOutcome(t ticket, o outcome) {
	var line *zerolog.Event
	var text string
	switch o.verdict.action {
	case complete:
		line, text = w.log.Info(), "sent"
		if o.verdict.reason != nil {
			line, text = w.log.Warn(), "failed silently"
		} else if o.forwarded {
			text = "forwarded to its mailer's queue"
		} else if o.again {
			text = "sent before, not again"
		} else if o.result.Skipped {
			text = "nobody to send to"
		}
	case retry:
		line, text = w.log.Warn().Dur("retry_in", o.verdict.delay), "failed for now"
	case hold:
		line, text = w.log.Debug(), "held"
	case deadLetter:
		line, text = w.log.Error(), "dead letter"
	case drop:
		line, text = w.log.Info(), "cancelled"
	}
	line.Str("task", t.id).Str("queue", t.queue).Int("try", t.retried+1).Dur("took", time.Since(t.started))
	if t.payload != nil {
		line.Str("message_id", t.payload.Message.MessageID)
	}
	if o.verdict.reason != nil {
		line.AnErr("error", o.verdict.reason)
	}
	if o.result.Reply != "" {
		line.Str("reply", o.result.Reply)
	}
	for _, r := range o.result.Refused {
		w.log.Warn().Str("task", t.id).AnErr("error", r).Msg("recipient refused")
	}
	line.Msg(text)
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
