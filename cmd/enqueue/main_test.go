package main

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// asCommand in the environment makes the test binary the command, as the name sendmail does.
const asCommand = "MAILPOUCH_TEST_ENQUEUE"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" || filepath.Base(os.Args[0]) == "sendmail" {
		main()
	}
	// A pool that could not connect for a while tries again each second, and sees only then
	// that it has been closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}
