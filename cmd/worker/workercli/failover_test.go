package workercli

import (
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/cli"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// check tries each member, and says how a mailer with members sends.
func TestCheck_members(t *testing.T) {
	redis := redistest.Start(t, redistest.Options{})
	relay, err := catcher.Start(catcher.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	for name, value := range map[string]string{
		"REDIS_URL": redis.URL(), "EMAIL_QUEUE_BACKEND": "failover", "EMAIL_MEMBERS": "ses,postmark", "EMAIL_MAILERS": "ses,postmark,news",
		"EMAIL_SES_URL": "smtp://" + relay.Addr(), "EMAIL_POSTMARK_URL": "smtp://127.0.0.1:1", "DEFAULT_FROM_EMAIL": "me@example.com",
		"EMAIL_NEWS_BACKEND": "failover", "EMAIL_NEWS_MEMBERS": "ses:3,postmark:1", "EMAIL_NEWS_POLICY": "weighted",
	} {
		t.Setenv(name, value)
	}
	got := worker(t.Context(), t, backends.Builtin(), "check")
	if got.code != cli.ExitUnavailable {
		t.Errorf("exit code %d", got.code)
	}
	for _, want := range []string{
		"Backend failover: the first that takes mail of ses:1,postmark:1\n", "Backend news failover: by weights ses:3,postmark:1\n",
		"Backend ses smtp at 127.0.0.1 port ", ": ok\n", "Backend postmark smtp at 127.0.0.1 port 1: ", "connection refused",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s%s", want, got.out, got.err)
		}
	}
}

// A worker whose members are wrong does not start, and names the variable.
func TestRun_members_wrong(t *testing.T) {
	t.Setenv("EMAIL_QUEUE_BACKEND", "failover")
	t.Setenv("EMAIL_MAILERS", "ses")
	t.Setenv("EMAIL_SES_HOST", "ses.example")
	t.Setenv("EMAIL_MEMBERS", "sse")
	got := worker(t.Context(), t, backends.Builtin(), "run")
	if want := `EMAIL_MEMBERS: the mailer \"sse\" is not configured; did you mean ses?`; got.code != cli.ExitConfig || !strings.Contains(got.err, want) && !strings.Contains(got.err, strings.ReplaceAll(want, `\`, "")) {
		t.Errorf("exit code %d, %s", got.code, got.err)
	}
}
