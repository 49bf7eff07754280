package leak

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// commands is the directory that both commands were built into.
var commands string

func TestMain(m *testing.M) {
	redis.SetLogger(silence{}) // as both commands do
	dir, err := os.MkdirTemp("", "mailpouch-leak-")
	if err == nil {
		var out []byte
		if out, err = exec.Command("go", "build", "-o", dir, "../../../cmd/enqueue", "../../../cmd/worker").CombinedOutput(); err != nil {
			err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	commands = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}
