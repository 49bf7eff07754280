package queuestats_test

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/presence"
	"github.com/mailpouch/mailpouch/internal/queuestats"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// TestReadStats: what is late shows also where no worker is there to see it.
func TestReadStats(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	if all, err := queuestats.ReadStats(ctx, client); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
	queue := tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{FromEmail: "me@example.com", Hostname: "app.example"}})
	for _, o := range []tasks.Options{{}, {Queue: "bulk"}, {Queue: "bulk", ProcessIn: time.Hour}, {Queue: "night", ProcessIn: 8 * time.Hour}} {
		if _, err := queue.With(o).Enqueue(ctx, &mailer.EmailMessage{Subject: "x", To: []string{"to@example.com"}}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	late := redis.Z{Score: float64(now.Add(-10 * time.Minute).Unix()), Member: "late"}
	if err := client.ZAdd(ctx, "asynq:{bulk}:retry", late).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(ctx, "asynq:{bulk}:processed", 7, 0).Err(); err != nil {
		t.Fatal(err)
	}
	all, err := queuestats.ReadStats(ctx, client)
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	bulk, def, night := all[0], all[1], all[2]
	if bulk.Name != "bulk" || bulk.Waiting != 1 || bulk.Scheduled != 1 || bulk.Retry != 1 || bulk.Processed != 7 || bulk.Failed != 0 {
		t.Errorf("%+v", bulk)
	}
	if got := bulk.Oldest(now); got < 9*time.Minute || got > 11*time.Minute {
		t.Errorf("the oldest task of bulk waits for %v", got)
	}
	if got := def.Oldest(now.Add(time.Minute)); got < 50*time.Second || got > 70*time.Second {
		t.Errorf("after a minute the oldest task of default waits for %v", got)
	}
	if got := night.Oldest(now); got != 0 || night.Due.IsZero() {
		t.Errorf("what is due tomorrow is late by %v", got)
	}
}

// TestCountWorkers: each process counts, whatever its host and number, and one that is dead does not.
func TestCountWorkers(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	one, two, dead := presence.New(), presence.New(), presence.New()
	for _, w := range []presence.Worker{one, two, dead} {
		if err := presence.Announce(t.Context(), client, w, nil, presence.Counts{}); err != nil {
			t.Fatal(err)
		}
	}
	client.Del(t.Context(), wire.WorkerKey(dead.ID)) // as Redis does when its time is over
	if n, err := queuestats.CountWorkers(t.Context(), client); n != 2 || err != nil {
		t.Errorf("%d workers, want 2 (%v)", n, err)
	}
}

// TestRead_workers: a queue tells how many workers serve it, ours and those of other programs.
func TestRead_workers(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	ours := presence.New()
	ours.Queues, ours.Shards = []string{"default"}, 2
	if err := presence.Announce(ctx, client, ours, []string{"default", "never-used"}, presence.Counts{}); err != nil {
		t.Fatal(err)
	}
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Queues: map[string]int{"images": 1}, ShutdownTimeout: time.Second, LogLevel: asynq.FatalLevel,
	})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if served, err := asynqbatch.ServedQueues(ctx, client); err != nil {
			t.Fatal(err)
		} else if served["images"] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("asynq's server does not start")
		}
	}
	producer := asynq.NewClientFromRedisClient(client)
	for _, name := range []string{"default", "default~2", "default~3", "images", "marketing.default"} {
		if _, err := producer.EnqueueContext(ctx, asynq.NewTask("x", nil), asynq.Queue(name), asynq.ProcessIn(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := queuestats.Read(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, q := range all {
		if got[q.Name] = q.Workers; q.Unserved() != (q.Workers == 0) {
			t.Errorf("%+v", q)
		}
	}
	want := map[string]int{"default": 1, "default~2": 1, "default~3": 0, "images": 1, "marketing.default": 0}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestMemory: from a few tasks of the same size the estimate is about right.
func TestMemory(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	var want int64
	for i := range 50 {
		id := strconv.Itoa(i)
		key := asynqbatch.TaskKey("default", id)
		if err := client.HSet(ctx, key, "msg", string(slices.Repeat([]byte("x"), 5000))).Err(); err != nil {
			t.Fatal(err)
		}
		if err := client.LPush(ctx, "asynq:{default}:pending", id).Err(); err != nil {
			t.Fatal(err)
		}
		want += client.MemoryUsage(ctx, key).Val()
	}
	got, err := queuestats.Memory(ctx, client, []string{"default", "empty"})
	if err != nil || got["empty"] != 0 || got["default"] < want || got["default"] > want+want/10 {
		t.Errorf("%v, want about %d (%v)", got, want, err)
	}
}
