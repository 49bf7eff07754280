package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/dummy"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// What became of a message is said in words, as JSON and as an exit code, before a worker has had it and afterwards.
func TestStatus(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	send := func(args ...string) string {
		return strings.TrimSpace(enqueue(t, "", append([]string{"send", "--to", "Ann <ann@example.com>", "--subject", "s"}, args...)...).out)
	}
	check := func(name string, code int, out, errs string, args ...string) {
		t.Helper()
		got := enqueue(t, "", args...)
		if got.code != code || !strings.Contains(got.out, out) || !strings.Contains(got.err, errs) || strings.Contains(got.out, "ann@example.com") {
			t.Errorf("%s: %+v, want exit code %d, %q and %q", name, got, code, out, errs)
		}
	}
	id, scheduled := send("--tag", "invoice", "--mailing", "spring"), send("--process-in", "1h")
	check("waiting", 75, "waiting", "", "status", id)
	check("scheduled", 75, `"state":"scheduled"`, "", "status", "--json", scheduled)
	check("a Message-ID as it is", 75, `"message_id":"<`, "", "status", "--json", scheduled)
	check("an empty ID", 64, "", "an ID or a Message-ID is expected", "status", "")
	check("unknown, without a worker", 1, "", "EMAIL_HISTORY is 0", "status", "nothing")
	check("a recipient whose mail waits", 0, "waiting", "", "history", "--to", "Ann@Example.com")

	client, err := redisconn.ConnectWorker(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ended := make(chan struct{}, 10)
	worker, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect:   func(string) (mailer.Backend, error) { return dummy.New(dummy.Config{}) },
		Observers: []tasks.Observer{{Outcome: func(tasks.Outcome) { ended <- struct{}{} }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was sent")
	}
	if got := enqueue(t, "", "cancel", scheduled); got.code != 0 {
		t.Fatal(got)
	}
	check("sent", 0, "sent", "", "status", id)
	check("cancelled", 65, "cancelled", "", "status", scheduled)
	check("unknown", 1, "", "none has ended since 20", "status", "nothing")
	check("no ID", 64, "", "an ID or a Message-ID is expected", "status", "")
	check("a blank", 64, "", "an ID or a Message-ID is expected", "status", " ")
	check("unknown as JSON", 1, `"state":"unknown"`, "", "status", "nothing", "--json")
	check("a recipient", 0, "a***@example.com", "", "history", "--to", "ANN@example.com")
	check("another one", 1, "", "no such message", "history", "--to", "ann@example.org")
	check("no recipient", 65, "", "", "history", "--to", "ann@@example.com")
	check("a tag", 0, id, "", "history", "--tag", "invoice", "--since", "1h")
	check("a mailing of another time", 1, "", "", "history", "--mailing", "spring", "--since", "2099-01-01")
	check("neither", 64, "", "--mailing is expected", "history")
	check("no time", 64, "", "since", "history", "--tag", "x", "--since", "yesterday")
	check("an empty tag", 64, "", "--tag", "history", "--tag", "", "--to", "ann@example.com")
	check("an empty mailing", 64, "", "--mailing", "history", "--tag", "invoice", "--mailing", "")
	check("no limit", 64, "", "--limit", "history", "--tag", "x", "--limit", "0")

	var s tasks.Status
	if err := json.Unmarshal([]byte(enqueue(t, "", "status", "--json", id).out), &s); err != nil || s.State != tasks.StateSent || s.Mailing != "spring" || s.Tags[0] != "invoice" {
		t.Errorf("as JSON: %+v, %v", s, err)
	}
	check("by its Message-ID", 0, id, "", "status", s.MessageID)
	if got := enqueue(t, "", "history", "--to", "ann@example.com", "--limit", "1"); strings.Count(got.out, "\n") != 1 || !strings.Contains(got.err, "there are more than these 1") {
		t.Errorf("one of two: %+v", got)
	}
}
