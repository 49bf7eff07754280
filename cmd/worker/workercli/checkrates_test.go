package workercli

import (
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A rate that was lowered is said, and one that is never reached; a bad one is a problem of its setting.
func TestCheck_rates(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_QUEUE_BACKEND", "dummy")
	t.Setenv("EMAIL_RATE", "200/s, 50000/d")
	if got := worker(t.Context(), t, backends.Builtin(), "check"); got.code != 0 || !strings.Contains(got.out, "200/s, 50000/d") || strings.Contains(got.out, "EMAIL_RATE: ") {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.err)
	}
	if err := server.Client(t).HSet(t.Context(), wire.RateKey(""), "factor", "0.2500").Err(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("EMAIL_RATE", "200/s, 50000/d burst=10")
	got := worker(t.Context(), t, backends.Builtin(), "check")
	for _, want := range []string{"EMAIL_RATE: the relay has said that it gets too much: workers send at 25 %", "EMAIL_RATE: 50000/d burst=10 is spread evenly"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("check did not print %q:\n%s", want, got.out)
		}
	}
	t.Setenv("EMAIL_RATE", "200/w")
	t.Setenv("EMAIL_RATE_DOMAINS", "gmail.com")
	if got := worker(t.Context(), t, backends.Builtin(), "check"); got.code != 78 || !strings.Contains(got.err+got.out, `EMAIL_RATE`) || !strings.Contains(got.err+got.out, `"200/w" is not a rate`) || !strings.Contains(got.err+got.out, `"gmail.com" is not a rate`) {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.err)
	}
}
