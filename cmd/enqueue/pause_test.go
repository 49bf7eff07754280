package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hibiken/asynq"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/tasks"
)

// expects checks what a command prints and how it ends: its output, or part of its error.
func (r result) expects(t *testing.T, code int, out, err string) {
	t.Helper()
	if ok, _ := regexp.MatchString("^"+out+"$", r.out); r.code != code || !ok || !strings.Contains(r.err, err) {
		t.Errorf("%d, %q, %q, want %d, %q, %q", r.code, r.out, r.err, code, out, err)
	}
}

func TestPause(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	enqueue(t, "", "paused").expects(t, 0, "", "nothing is paused")
	enqueue(t, "", "pause", "--queue", "bulk").expects(t, 65, "", "there is no queue bulk: nothing was ever put into")
	enqueue(t, "", "bulk", file(t, "lines", jsonLines(3)), "--queue", "bulk").expects(t, 0, `3 queued\nmailing bulk-[\d-]+-\w{4}\n`, "")
	enqueue(t, "", "pause", "--queue", "bluk").expects(t, 65, "", "there is no queue bluk (there are bulk)")
	enqueue(t, "", "pause", "--queue", "bulk", "--reason", "complaints\n").expects(t, 0, "paused: queue bulk\n", "")
	enqueue(t, "", "pause", "--queue", "bulk").expects(t, 0, "queue bulk is paused since [^\n]+\n", "")
	enqueue(t, "", "pause", "--mailing", "july").expects(t, 0, "paused: mailing july\n", "")
	host, _ := os.Hostname()
	enqueue(t, "", "paused").expects(t, 0, `WHAT +SINCE +BY +REASON\nqueue bulk +[\d-]+ [\d:]+ +`+regexp.QuoteMeta(host)+` +complaints\S*\nmailing july +[^\n]+ -\n`, "")
	enqueue(t, "", "paused", "--json").expects(t, 0, `{"queue":"bulk",[^\n]+\n{"mailing":"july",[^\n]+\n`, "")
	if client := server.Client(t); client.Exists(t.Context(), "asynq:{bulk:mass}:paused").Val() != 1 {
		t.Error("the part for bulk mail is not paused")
	}
	enqueue(t, "", "resume", "--queue", "bulk").expects(t, 0, "resumed: queue bulk\n", "")
	enqueue(t, "", "resume", "--queue", "bulk").expects(t, 65, "", "queue bulk is not paused")
	enqueue(t, "", "resume", "--mailing", "july").expects(t, 0, "resumed: mailing july\n", "")
	if keys := server.Client(t).Keys(t.Context(), "*pause*").Val(); len(keys) > 0 {
		t.Errorf("left behind: %s", keys)
	}
	enqueue(t, "", "pause").expects(t, 64, "", "a queue, a mailer or a mailing is expected")
	enqueue(t, "", "pause", "--mailing", "july", "--queue", "bulk").expects(t, 64, "", "in all queues")
	enqueue(t, "", "pause", "--queue", "bulk", "--mailer", "").expects(t, 64, "", "--mailer")
	enqueue(t, "", "resume", "--queue", " ", "--mailer", "default").expects(t, 64, "", "--queue")
	enqueue(t, "", "bulk", file(t, "lines", jsonLines(3)), "--mailing", "").expects(t, 64, "", "--mailing")
	enqueue(t, "", "bulk", file(t, "lines", jsonLines(3)), "--resume", "").expects(t, 64, "", "--resume")
	enqueue(t, "", "resume", "--mailer", "a b").expects(t, 64, "", "cannot be the name")
}

// The mailing of a run is known by its name, and its messages by their IDs, also when it is repeated.
func TestBulk_mailing(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	path := file(t, "lines", jsonLines(1500))
	ids := func(args ...string) []string {
		t.Helper()
		to := filepath.Join(t.TempDir(), "ids")
		if got := enqueue(t, "", append([]string{"bulk", path, "--ids", to}, args...)...); got.code != 0 {
			t.Fatal(got)
		}
		data, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		list := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		if slices.Contains(list, "") {
			t.Errorf("there are empty lines in it: %.60q", data)
		}
		return list
	}
	first := ids("--mailing", "july")
	if len(first) != 1500 || len(slices.Compact(slices.Sorted(slices.Values(first)))) != 1500 {
		t.Errorf("%d IDs, want 1500 different ones", len(first))
	}
	enqueue(t, "", "cancel", first[1499]).expects(t, 0, "cancelled\n", "")
	enqueue(t, "", "cancel", "--mailing", "july").expects(t, 0, "1499 cancelled, 0 too late\n", "")
	if n := pending(t, server, "default"); n != 0 {
		t.Errorf("%d messages wait", n)
	}
	once := ids("--resume", "August 2026", "--queue", "bulk")
	if again := ids("--resume", "August 2026", "--queue", "bulk"); len(once) != 1500 || !slices.Equal(once, again) {
		t.Error("a run that is repeated has other IDs")
	}
	if err := asynq.NewInspectorFromRedisClient(server.Client(t)).ArchiveTask("bulk", once[7]); err != nil {
		t.Fatal(err)
	}
	enqueue(t, "", "cancel", "--mailing", "August-2026").expects(t, 0, "1499 cancelled, 1 too late\n", "")
	enqueue(t, "", "cancel", "--mailing", "August 2026").expects(t, 64, "", "cannot be the name of a mailing")
	enqueue(t, "", "cancel", "--mailing", "Juli").expects(t, 65, "", "no message of the mailing Juli is in the queue")
	enqueue(t, "", "cancel").expects(t, 64, "", "accepts 1 arg")
	enqueue(t, "", "cancel", "--mailing", "x", "id").expects(t, 64, "", "accepts 1 arg")
	enqueue(t, "", "bulk", path, "--ids", filepath.Join(path, "x")).expects(t, 66, "", "not a directory")

	// A message of a file's own mailing.
	line := `{"to": ["ann@example.com"], "options": {"mailing": "own"}}`
	enqueue(t, "", "bulk", file(t, "own", line+"\n"+jsonLines(2)), "--mailing", "run").expects(t, 0, "3 queued\nmailing run\n", "")
	q := tasks.NewQueue(server.Client(t), tasks.QueueConfig{})
	if got, err := q.CancelMailing(t.Context(), "own"); err != nil || got.Cancelled != 1 {
		t.Errorf("CancelMailing = %+v, %v", got, err)
	}
}
