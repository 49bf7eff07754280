package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// From hand-over to receiver: a program queues messages, a worker delivers them, and two endpoints hear of each recipient what
// becomes of them.
func TestWhole(t *testing.T) {
	t.Parallel()
	server := redis.Start(t, redis.Options{})
	s := newStream(t, server.Client(t))
	first, second := startReceiver(t, takes), startReceiver(t, takes)
	targets := []target.Target{to(t, first.URL), to(t, second.URL)}
	start(t, Config{Targets: targets, Redis: s.client})
	s.begun(targets[0])
	s.begun(targets[1])

	queue := tasks.NewQueue(s.client, tasks.QueueConfig{Events: tasks.EventLog{On: true}})
	var ids []string
	for n := range 20 {
		id, err := queue.With(tasks.Options{Tags: []string{"welcome"}}).Enqueue(t.Context(), &mailer.EmailMessage{
			Subject: fmt.Sprint(n), FromEmail: "shop@example.com", To: []string{"ann@example.com"}, Cc: []string{"bob@example.com"},
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	worker, err := tasks.NewWorker(s.client, tasks.WorkerConfig{
		Connect: func(string) (mailer.Backend, error) { return locmem.New(locmem.Config{Outbox: new(locmem.Outbox)}) },
		Events:  tasks.EventLog{On: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	for _, rec := range []*receiver{first, second} {
		told := map[string][]string{} // by message and recipient
		await(t, "all events", func() bool { return len(rec.all()) >= 20*2*2 })
		for _, p := range rec.all() {
			var got payload
			if err := json.Unmarshal(p.body, &got); err != nil || len(got.Data.To) != 1 || len(got.Data.Tags) != 1 || got.Data.MessageID == "" {
				t.Fatalf("%s: %v", p.body, err)
			}
			key := got.Data.EmailID + " " + got.Data.To[0]
			told[key] = append(told[key], strings.TrimPrefix(string(got.Type), "email."))
		}
		for _, id := range ids {
			for _, who := range []string{" ann@example.com", " bob@example.com"} {
				if got := slices.Sorted(slices.Values(told[id+who])); fmt.Sprint(got) != "[queued sent]" {
					t.Errorf("%s: %v", id+who, got)
				}
				delete(told, id+who)
			}
		}
		if len(told) > 0 {
			t.Errorf("what are these: %v", slices.Collect(maps.Keys(told)))
		}
	}
}
