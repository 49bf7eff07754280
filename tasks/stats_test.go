package tasks

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// TestReadStats: what is late shows also where no worker is there to see it.
func TestReadStats(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	if all, err := ReadStats(ctx, client); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
	queue := NewQueue(client, QueueConfig{Defaults: mailer.Defaults{FromEmail: "me@example.com", Hostname: "app.example"}})
	for _, o := range []Options{{}, {Queue: "bulk"}, {Queue: "bulk", ProcessIn: time.Hour}, {Queue: "night", ProcessIn: 8 * time.Hour}} {
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
	all, err := ReadStats(ctx, client)
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

// TestCountWorkers: a worker has several servers of asynq's, and one that is dead is none.
func TestCountWorkers(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	now := time.Now().Unix()
	for key, until := range map[string]int64{
		"asynq:servers:{one:1:aaaa}": now + 10, "asynq:servers:{one:1:bbbb}": now + 10,
		"asynq:servers:{one:2:cccc}": now + 10, "asynq:servers:{two:1:dddd}": now - 10,
	} {
		if err := client.ZAdd(t.Context(), "asynq:servers", redis.Z{Score: float64(until), Member: key}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := CountWorkers(t.Context(), client); n != 2 || err != nil {
		t.Errorf("%d workers, want 2 (%v)", n, err)
	}
}

// TestReadMemory: from a few tasks of the same size the estimate is about right.
func TestReadMemory(t *testing.T) {
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
	got, err := ReadMemory(ctx, client, []string{"default", "empty"})
	if err != nil || got["empty"] != 0 || got["default"] < want || got["default"] > want+want/10 {
		t.Errorf("%v, want about %d (%v)", got, want, err)
	}
}
