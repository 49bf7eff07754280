package asynqbatch

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// fill enqueues n tasks with short IDs, in the order of the IDs.
func fill(t *testing.T, client redis.UniversalClient, queue string, n int, opts ...asynq.Option) {
	t.Helper()
	c := asynq.NewClientFromRedisClient(client)
	for i := range n {
		id := asynq.TaskID(fmt.Sprintf("%06d", i))
		if _, err := c.EnqueueContext(t.Context(), asynq.NewTask("test", nil), append(opts, asynq.Queue(queue), id)...); err != nil {
			t.Fatal(err)
		}
	}
}

// dead returns the IDs that asynq's archive and the set beside it have of a queue, sorted.
func dead(t *testing.T, client redis.UniversalClient, queue string) []string {
	t.Helper()
	archived := client.ZRange(t.Context(), archiveKey(queue), 0, -1).Val()
	if len(archived) > ArchiveLimit {
		t.Errorf("%d in asynq's archive, want at most %d", len(archived), ArchiveLimit)
	}
	return slices.Sorted(slices.Values(append(archived, client.ZRange(t.Context(), wire.DeadKey(queue), 0, -1).Val()...)))
}

// A person archives more than asynq keeps, all at once and one by one: nothing is dropped.
func TestArchiveClient(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	inspector := asynq.NewInspectorFromRedisClient(ArchiveClient(client))
	const n = 10_500
	for queue, tt := range map[string]struct {
		opts    []asynq.Option
		archive func(queue string) (int, error)
	}{
		"pending":   {nil, inspector.ArchiveAllPendingTasks},
		"scheduled": {[]asynq.Option{asynq.ProcessIn(time.Hour)}, inspector.ArchiveAllScheduledTasks},
		"one by one": {nil, func(queue string) (int, error) {
			for i := range n {
				if err := inspector.ArchiveTask(queue, fmt.Sprintf("%06d", i)); err != nil {
					return i, err
				}
			}
			return n, nil
		}},
	} {
		t.Run(queue, func(t *testing.T) {
			t.Parallel()
			fill(t, client, queue, n, tt.opts...)
			moved, err := tt.archive(queue)
			if err != nil || moved != n {
				t.Fatalf("%d moved, %v, want %d", moved, err, n)
			}
			ids := dead(t, client, queue)
			if len(ids) != n || len(slices.Compact(ids)) != n {
				t.Fatalf("%d dead letters, want %d, each once", len(ids), n)
			}
			for i, id := range ids {
				info, err := inspector.GetTaskInfo(queue, id)
				if err != nil || info.State != asynq.TaskStateArchived || id != fmt.Sprintf("%06d", i) {
					t.Fatalf("%s: %v, %+v", id, err, info)
				}
			}
			if reason := client.HGet(t.Context(), TaskKey(queue, ids[7]), wire.FieldReason).Val(); reason != ByHand {
				t.Errorf("the reason is %q", reason)
			}
			if left := client.Exists(t.Context(), "asynq:{"+queue+"}:pending", "asynq:{"+queue+"}:scheduled").Val(); left != 0 {
				t.Error("something is still waiting")
			}
		})
	}
}

// What a worker's server archives by itself, such as a task that has lost its lease with no try left, makes asynq drop
// nothing either.
func TestServer_archives(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	const n = 10_500
	old := make([]redis.Z, n)
	for i := range old {
		id := strconv.Itoa(i)
		old[i] = redis.Z{Score: float64(i), Member: id} // of 1970
		client.HSet(t.Context(), TaskKey("default", id), "state", "archived")
	}
	if err := client.ZAdd(t.Context(), archiveKey("default"), old...).Err(); err != nil {
		t.Fatal(err)
	}
	fill(t, client, "default", 2)
	archived := make(chan struct{}, 2)
	server := New(client, Config{}).NewServer(ServerConfig{Config: asynq.Config{Concurrency: 1, ErrorHandler: asynq.ErrorHandlerFunc(func(context.Context, *asynq.Task, error) {
		archived <- struct{}{}
	})}})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return asynq.SkipRetry })); err != nil {
		t.Fatal(err)
	}
	<-archived
	<-archived
	server.Shutdown()
	if got := client.ZCard(t.Context(), archiveKey("default")).Val(); got != n+2 {
		t.Errorf("%d in the archive, want %d", got, n+2)
	}
	if got := client.Keys(t.Context(), TaskKey("default", "*")).Val(); len(got) != n+2 {
		t.Errorf("%d records, want %d", len(got), n+2)
	}
}
