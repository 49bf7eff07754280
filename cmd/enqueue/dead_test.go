package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/redistest"
)

// bury makes dead letters of what waits in a queue, as asynqmon's archive button would.
func bury(t *testing.T, s *redistest.Server, queue string) {
	t.Helper()
	if _, err := asynq.NewInspectorFromRedisClient(s.Client(t)).ArchiveAllPendingTasks(queue); err != nil {
		t.Fatal(err)
	}
}

func TestDead(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	first := strings.TrimSpace(enqueue(t, "", "send", "--to", "ann@example.com", "--subject", "Grüße").out)
	second := strings.TrimSpace(enqueue(t, "", "send", "--to", "bob@example.com", "--queue", "bulk").out)
	bury(t, server, "default")
	bury(t, server, "bulk")

	if all, bulk := enqueue(t, "", "dead", "count"), enqueue(t, "", "dead", "count", "--queue", "bulk"); all.out != "2\n" || bulk.out != "1\n" {
		t.Errorf("count: %+v, of bulk %+v", all, bulk)
	}
	got := enqueue(t, "", "dead", "list")
	for _, want := range []string{first, second, "ann@example.com", "Grüße", "bulk"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("list has no %q:\n%s%s", want, got.out, got.err)
		}
	}
	if got := enqueue(t, "", "dead", "list", "--queue", "bulk"); strings.Contains(got.out, first) || !strings.Contains(got.out, second) {
		t.Errorf("list --queue bulk:\n%s", got.out)
	}
	if got := enqueue(t, "", "dead", "list", "--reason", "550"); strings.Contains(got.out, first) {
		t.Errorf("list --reason 550:\n%s", got.out)
	}
	if got := enqueue(t, "", "dead", "show", first); got.code != 0 || !strings.Contains(got.out, "not delivered to: ann@example.com") ||
		!strings.Contains(got.out, "\r\nTo: ann@example.com\r\n") {
		t.Errorf("show: %+v", got)
	}

	dir := filepath.Join(t.TempDir(), "dead")
	if got := enqueue(t, "", "dead", "export", "--eml", dir); got.code != 0 || got.out != "2 written\n" {
		t.Errorf("export --eml: %+v", got)
	}
	eml, err := os.ReadFile(filepath.Join(dir, first+".eml"))
	if err != nil || !strings.Contains(string(eml), "To: ann@example.com\r\n") {
		t.Errorf("exported %q, %v", eml, err)
	}
	got = enqueue(t, "", "dead", "export", second)
	var line exported
	if err := json.Unmarshal([]byte(got.out), &line); err != nil || line.ID != second || line.Message.To[0] != "bob@example.com" {
		t.Errorf("export: %+v (%v)", got, err)
	}

	if got := enqueue(t, "", "dead", "replay", first); got.code != 0 || got.out != "1 queued again\n" {
		t.Errorf("replay: %+v", got)
	}
	if got := enqueue(t, "", "dead", "delete", "--all"); got.code != 0 || got.out != "1 deleted\n" {
		t.Errorf("delete --all: %+v", got)
	}
	if got := enqueue(t, "", "dead", "list"); strings.Count(got.out, "\n") != 1 {
		t.Errorf("list at the end:\n%s", got.out)
	}
	if n := pending(t, server, "default"); n != 1 {
		t.Errorf("%d waiting, want the replayed one", n)
	}
}

func TestDead_badInput(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"dead"}, 64, "a command is wanted"},
		{[]string{"dead", "replay"}, 64, "which ones?"},
		{[]string{"dead", "delete"}, 64, "which ones?"},
		{[]string{"dead", "show"}, 64, "which ones?"},
		{[]string{"dead", "show", "NOSUCHID"}, 65, "NOSUCHID: no such dead letter"},
		{[]string{"dead", "replay", "NOSUCHID"}, 65, "NOSUCHID: no such dead letter"},
	} {
		if got := enqueue(t, "", tt.args...); got.code != tt.code || !strings.Contains(got.err, tt.want) {
			t.Errorf("%v: exit code %d, want %d\n%s", tt.args, got.code, tt.code, got.err)
		}
	}
}
