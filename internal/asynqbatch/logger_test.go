package asynqbatch

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestLimiter(t *testing.T) {
	t.Parallel()
	var l limiter
	now := time.Now()
	shown := 0
	for i := range 400 {
		if _, ok := l.line(now, fmt.Sprintf("Could not remove task id=%d", i)); ok {
			shown++
		}
	}
	if shown != enoughLines {
		t.Errorf("%d of 400 like lines shown, want %d", shown, enoughLines)
	}
	if text, ok := l.line(now, "Dequeue error: connection refused"); !ok || text != "Dequeue error: connection refused" {
		t.Errorf("another line: %q, %v", text, ok)
	}
	later := now.Add(enoughFor + time.Second)
	if text, ok := l.line(later, "Could not remove task id=x"); !ok || !strings.HasSuffix(text, "id=x (and 395 more like it before)") {
		t.Errorf("later: %q, %v", text, ok)
	}
	if text, ok := l.line(later, "Could not remove task id=y"); !ok || text != "Could not remove task id=y" {
		t.Errorf("after it was told: %q, %v", text, ok)
	}
	if text, ok := l.line(now, ""); !ok || text != "" {
		t.Errorf("empty line: %q, %v", text, ok)
	}
}

// That a task had ended already is no news; any other trouble with ending it is.
func TestLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := newLogger(zerolog.New(&out).Level(zerolog.InfoLevel))
	done := `Could not remove task id=1 type="mailpouch:message" from "asynq:{default}:active" err: INTERNAL_ERROR: redis eval error: `
	l.Warn(done + "NOT FOUND; Will retry syncing")
	l.Error(done + "NOT FOUND")
	if out.Len() > 0 {
		t.Errorf("logged %s", out.String())
	}
	for range 100 {
		l.Warn(done + "EOF; Will retry syncing")
		l.Error("Failed to extend lease for tasks [1]: EOF")
	}
	if n := strings.Count(out.String(), "\n"); n != 2*enoughLines {
		t.Errorf("%d lines logged, want %d", n, 2*enoughLines)
	}
}

// asynq's worries are heard; its chatter about single tasks is not.
func TestLogger_levels(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := newLogger(zerolog.New(&out).Level(zerolog.InfoLevel))
	l.Debug("Processor done")
	l.Warn("Quitting worker. task id=1")
	l.Warn("Retry exhausted for task id=1")
	if out.Len() > 0 {
		t.Errorf("logged %s", out.String())
	}
	l.Info("Starting ", "processing")
	l.Warn("Could not remove task id=1")
	l.Error("Dequeue error: EOF")
	for _, want := range []string{
		`"level":"info","message":"Starting processing"`,
		`"level":"warn","message":"Could not remove task id=1"`,
		`"level":"error","message":"Dequeue error: EOF"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("log has no %s:\n%s", want, out.String())
		}
	}
}
