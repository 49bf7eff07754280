package main

import (
	"os"
	"path/filepath"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// asCommand in the environment makes the test binary the command, as the name sendmail does.
const asCommand = "MAILPOUCH_TEST_ENQUEUE"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" || filepath.Base(os.Args[0]) == "sendmail" {
		main()
	}
	redistest.VerifyTestMain(m)
}
