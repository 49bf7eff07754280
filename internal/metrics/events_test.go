package metrics

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// A scrape says what is kept of events, what went unread, and how far each group is behind; without events nothing of them is read.
func TestEvents(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	queue := tasks.NewQueue(client, tasks.QueueConfig{BulkSize: 1, Events: tasks.EventLog{On: true, Size: 5000}})
	ctx, cancel := context.WithCancel(t.Context())
	reader := tasks.NewEvents(client, tasks.EventsConfig{Group: "shop"})
	asked := make(chan struct{}, 1000)
	done := make(chan error)
	go func() {
		done <- reader.Run(ctx, func(context.Context, []tasks.Event) error {
			asked <- struct{}{}
			return errors.New("not now")
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for end := time.Now().Add(time.Minute); client.HLen(t.Context(), "mailpouch:events").Val() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the reader does not begin")
		}
	}
	for range 100 {
		m := &mailer.EmailMessage{FromEmail: "a@example.com", To: []string{"ann@example.com"}}
		if _, err := queue.Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	<-asked
	text, series := scrape(t, New(Config{Redis: client, Events: true}))
	if n := series[`mailpouch_events_bytes{queue="default"}`]; n < 1000 || n > 5000 {
		t.Errorf("%v bytes", n)
	}
	if n := series[`mailpouch_events_unread_total{queue="default"}`]; n < 50 || n > 99 {
		t.Errorf("%v events went unread", n)
	}
	if n, ok := series[`mailpouch_events_oldest_seconds{group="shop"}`]; !ok || n <= 0 {
		t.Errorf("the oldest event is %v s old, in\n%s", n, text)
	}
	if text, _ := scrape(t, New(Config{Redis: client})); strings.Contains(text, "mailpouch_events") {
		t.Error("they are read though nobody has asked for it")
	}
}
