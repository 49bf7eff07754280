package workercli

import (
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/presence"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// Mail that waits where no worker looks is named, and so are parts that the settings do not know.
func TestCheck_queues(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_QUEUE_BACKEND", "dummy")
	t.Setenv("EMAIL_QUEUE_SHARDS", "2")
	client := server.Client(t)
	other := presence.New()
	other.Queues = []string{"night"}
	if err := presence.Announce(t.Context(), client, other, nil, presence.Counts{}); err != nil {
		t.Fatal(err)
	}
	hand := func(shards, messages int, o tasks.Options) {
		t.Helper()
		q := tasks.NewQueue(client, tasks.QueueConfig{Shards: shards, Defaults: mailer.Defaults{FromEmail: "me@example.com", Hostname: "app.example"}}).With(o)
		for range messages {
			if _, err := q.Enqueue(t.Context(), &mailer.EmailMessage{Subject: "x", To: []string{"to@example.com"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	hand(0, 1, tasks.Options{})
	if got := worker(t.Context(), t, backends.Builtin(), "check"); got.code != 0 || strings.Contains(got.out, "tasks wait") || strings.Contains(got.out, "divide") {
		t.Errorf("exit code %d\n%s", got.code, got.out)
	}
	hand(0, 2, tasks.Options{Queue: "forgotten"})
	hand(0, 1, tasks.Options{Queue: "night"}) // another worker takes these
	hand(4, 60, tasks.Options{})
	got := worker(t.Context(), t, backends.Builtin(), "check")
	for _, want := range []string{"warning: queue forgotten: 2 tasks wait", "warning: programs divide their queues into 4 parts at least, and EMAIL_QUEUE_SHARDS is 2"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("check did not print %q:\n%s", want, got.out)
		}
	}
	if strings.Contains(got.out, "queue night") || strings.Contains(got.out, "queue default") || got.code != 0 {
		t.Errorf("exit code %d\n%s", got.code, got.out)
	}
}
