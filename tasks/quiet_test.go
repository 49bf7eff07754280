package tasks

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestQuiet(t *testing.T) {
	t.Parallel()
	var q quiet
	now := time.Now()
	shown := 0
	for i := range 400 {
		if _, ok := q.line(now, fmt.Sprintf("Could not remove task id=%d", i)); ok {
			shown++
		}
	}
	if shown != quietLines {
		t.Errorf("%d of 400 like lines shown, want %d", shown, quietLines)
	}
	if text, ok := q.line(now, "Dequeue error: connection refused"); !ok || text != "Dequeue error: connection refused" {
		t.Errorf("another line: %q, %v", text, ok)
	}
	later := now.Add(quietFor + time.Second)
	if text, ok := q.line(later, "Could not remove task id=x"); !ok || !strings.HasSuffix(text, "id=x (and 395 more like it before)") {
		t.Errorf("later: %q, %v", text, ok)
	}
	if text, ok := q.line(later, "Could not remove task id=y"); !ok || text != "Could not remove task id=y" {
		t.Errorf("after it was told: %q, %v", text, ok)
	}
	if text, ok := q.line(now, ""); !ok || text != "" {
		t.Errorf("empty line: %q, %v", text, ok)
	}
}

// That a task had ended already is no news; any other trouble with ending it is.
func TestAsynqLogger_quiet(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := asynqLogger{zerolog.New(&out).Level(zerolog.InfoLevel), new(quiet)}
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
	if n := strings.Count(out.String(), "\n"); n != 2*quietLines {
		t.Errorf("%d lines logged, want %d", n, 2*quietLines)
	}
}
