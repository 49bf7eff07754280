package asynqbatch

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// When Redis has been away for longer than a lease, asynq complains about each task
// that it has, in lines that are all alike. Of a kind that many are enough:
const (
	enoughLines = 5
	enoughFor   = 30 * time.Second
)

// limiter suppresses lines of which there were enough. The zero value is ready for use.
type limiter struct {
	mu    sync.Mutex
	kinds map[string]*lineKind
}

type lineKind struct {
	since      time.Time
	lines      int // since then
	suppressed int // not reported yet
}

// line returns the text to log, or false if there were enough like it. It adds how many
// were suppressed before.
func (l *limiter) line(now time.Time, text string) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	words := strings.Fields(text)
	name := strings.Join(words[:min(3, len(words))], " ")
	if l.kinds == nil {
		l.kinds = map[string]*lineKind{}
	}
	k := l.kinds[name]
	if k == nil {
		k = &lineKind{}
		l.kinds[name] = k
	}
	if now.Sub(k.since) > enoughFor {
		k.since, k.lines = now, 0
	}
	k.lines++
	if k.lines > enoughLines {
		k.suppressed++
		return "", false
	}
	if k.suppressed > 0 {
		text = fmt.Sprintf("%s (and %d more like it before)", text, k.suppressed)
		k.suppressed = 0
	}
	return text, true
}

// endedBefore reports whether asynq complains of having recorded a task's end twice: the reply to
// the first time was lost, or another worker was faster. Nothing is amiss then.
func endedBefore(text string) bool {
	return strings.HasPrefix(text, "Could not remove task") && strings.Contains(text, "NOT FOUND")
}

// errCut is the error of commands that are cut off: asynq complains of each.
var errCut = errors.New("asynqbatch: the worker ends, and Redis is away")

// logger gives asynq's own messages to zerolog. What it warns of for each task that
// becomes a dead letter or is given back is expected, or logged better by us.
type logger struct {
	log     zerolog.Logger
	limiter *limiter
}

func newLogger(log zerolog.Logger) logger { return logger{log, new(limiter)} }

func (l logger) Debug(args ...any) { l.log.Debug().Msg(fmt.Sprint(args...)) }
func (l logger) Info(args ...any)  { l.log.Info().Msg(fmt.Sprint(args...)) }

func (l logger) Warn(args ...any) {
	text := fmt.Sprint(args...)
	level := zerolog.WarnLevel
	if strings.HasPrefix(text, "Quitting worker") || strings.HasPrefix(text, "revoke task") || strings.HasPrefix(text, "Retry exhausted") {
		level = zerolog.DebugLevel
	}
	l.trouble(level, text)
}

func (l logger) Error(args ...any) { l.trouble(zerolog.ErrorLevel, fmt.Sprint(args...)) }

// trouble logs a line of which there may be one for each task.
func (l logger) trouble(level zerolog.Level, text string) {
	if level == zerolog.DebugLevel || endedBefore(text) || strings.Contains(text, errCut.Error()) {
		l.log.Debug().Msg(text)
		return
	}
	if text, ok := l.limiter.line(time.Now(), text); ok {
		l.log.WithLevel(level).Msg(text)
	}
}

func (l logger) Fatal(args ...any) { l.log.Fatal().Msg(fmt.Sprint(args...)) }
