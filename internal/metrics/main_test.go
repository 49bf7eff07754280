package metrics

import (
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

func TestMain(m *testing.M) { redistest.VerifyTestMain(m) }
