package tasks

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// asynq's worries are heard; its chatter about single tasks is not.
func TestAsynqLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := asynqLogger{zerolog.New(&out).Level(zerolog.InfoLevel), new(quiet)}
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
