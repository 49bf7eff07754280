package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// Where whoever reads the output goes away (enqueue dead list | head -1), a command ends without a word, as other
// programs do.
func TestPipe_readerGoes(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t, redistest.Options{})
	for _, args := range [][]string{{"dead", "list"}, {"dead", "count"}, {"render", "--help"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		var errs bytes.Buffer
		c := exec.CommandContext(t.Context(), self, args...)
		c.Env = append(os.Environ(), asCommand+"=1", "REDIS_URL="+server.URL())
		c.Stdout, c.Stderr = w, &errs
		err = c.Run()
		_ = w.Close()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGPIPE || errs.Len() > 0 { //nolint:forcetypeassert // it is one on Unix
			t.Errorf("%v: %v, %q, want an end by SIGPIPE and no word", args, err, errs.String())
		}
	}
}
