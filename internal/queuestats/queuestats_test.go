package queuestats_test

import (
	"context"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/queuestats"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// TestRead: our reading of asynq's keys agrees with asynq's own.
func TestRead(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	if all, err := queuestats.Read(ctx, client); err != nil || len(all) != 0 {
		t.Fatalf("with an empty Redis: %v, %v", all, err)
	}
	queue := tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{FromEmail: "me@example.com", Hostname: "app.example"}})
	inspector := asynq.NewInspectorFromRedisClient(client)
	var ids []string
	before := time.Now()
	for _, o := range []tasks.Options{{}, {}, {}, {Queue: "bulk"}, {ProcessIn: time.Hour}, {Queue: "night", ProcessIn: time.Hour}} {
		id, err := queue.With(o).Enqueue(ctx, &mailer.EmailMessage{Subject: "x", To: []string{"to@example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := inspector.ArchiveTask("default", ids[1]); err != nil {
		t.Fatal(err)
	}
	if err := client.ZAdd(ctx, wire.DeadKey("default"), redis.Z{Score: 1, Member: "rescued"}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := inspector.PauseQueue("bulk"); err != nil {
		t.Fatal(err)
	}
	all, err := queuestats.Read(ctx, client)
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, got := range all {
		want, err := inspector.GetQueueInfo(got.Name)
		if err != nil {
			t.Fatal(err)
		}
		rescued := 0
		if got.Name == "default" {
			rescued = 1
		}
		if got.Waiting != want.Pending || got.InFlight != want.Active || got.Scheduled != want.Scheduled ||
			got.Retry != want.Retry || got.Dead != want.Archived+rescued || got.Paused != want.Paused {
			t.Errorf("%+v, asynq has %+v", got, want)
		}
		if got.Since.IsZero() != (want.Pending == 0) || want.Pending > 0 && (got.Since.Before(before) || got.Since.After(time.Now())) {
			t.Errorf("%s waits since %v", got.Name, got.Since)
		}
	}
}

// statusTimeout is how long a command of redisconn.ConnectStatus's client may take.
const statusTimeout = 2 * time.Second

// A Redis that is silent costs a caller the time that it has, and not more.
func TestConnectStatus_silentRedis(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	client, err := redisconn.ConnectStatus(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := queuestats.Read(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := queuestats.Read(ctx, client); mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > statusTimeout {
		t.Errorf("it took %v", took)
	}
	start = time.Now()
	if _, err := queuestats.Read(t.Context(), client); err == nil {
		t.Error("no error without a time-out of the caller's")
	}
	if took := time.Since(start); took > 5*statusTimeout {
		t.Errorf("without a time-out it took %v", took)
	}
}
