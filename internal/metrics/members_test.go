package metrics

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// The first member cannot be reached, and all goes with the second: both are seen, by the names of mailer and member.
func TestMembers(t *testing.T) {
	redis := redistest.Start(t, redistest.Options{})
	server, err := catcher.Start(catcher.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	client, err := redisconn.ConnectWorker(redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{Mailers: []string{"main", "away", "here"}})
	sent := make(chan tasks.Outcome, 100)
	addrs := map[string]string{"": server.Addr(), "away": testserver.FreeAddr(t), "here": server.Addr()}
	worker, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect: func(name string) (mailer.Backend, error) {
			return smtp.New(smtp.Config{Addrs: []string{addrs[name]}, Hostname: "worker.example", Hooks: m.Hooks(name)})
		},
		Mailers:   map[string]int{"main": 0, "away": 1, "here": 1},
		Failover:  map[string]tasks.Failover{"main": {Members: []tasks.Member{{Mailer: "away", Weight: 1}, {Mailer: "here", Weight: 1}}}},
		Observers: []tasks.Observer{m.Observer(), {Outcome: func(o tasks.Outcome) { sent <- o }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := worker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait(); _ = client.Close() })
	queue := tasks.NewQueue(client, tasks.QueueConfig{Mailers: []string{"main"}, Defaults: mailer.Defaults{FromEmail: "me@example.com", Hostname: "app.example"}})
	for range 3 {
		if _, err := queue.With(tasks.Options{Using: "main"}).Enqueue(t.Context(), &mailer.EmailMessage{To: []string{"a@example.com"}}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		o := <-sent
		if o.Action != tasks.ActionSent || o.Member != "here" {
			t.Errorf("%s with %q: %v", o.Action, o.Member, o.Err)
		}
	}
	w := &world{metrics: m}
	want := map[string]float64{
		`mailpouch_failover_serves{mailer="main",member="away"}`:         0,
		`mailpouch_failover_serves{mailer="main",member="here"}`:         1,
		`mailpouch_failover_passed_over{mailer="main"}`:                  1,
		`mailpouch_failover_messages_total{mailer="main",member="away"}`: 0,
		`mailpouch_failover_messages_total{mailer="main",member="here"}`: 3,
		`mailpouch_mailer_held{mailer="away"}`:                           1,
		`mailpouch_mailer_held{mailer="main"}`:                           0,
		`mailpouch_smtp_accepted_total{mailer="here"}`:                   3,
		`mailpouch_smtp_accepted_total{mailer="main"}`:                   0,
	}
	text, got := w.until(t, want)
	for series, n := range want {
		if have, ok := got[series]; !ok || have != n {
			t.Errorf("%s is %v (there: %v), want %v\n%s", series, have, ok, n, grep(text, "failover"))
		}
	}
}

// grep are the lines of a text that have a word.
func grep(text, word string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}
