package tasks

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Tasks of another program, and of a newer version of this one, in our queues: our worker puts them off, for longer
// each time, and spends none of their tries. Our mail goes on, and theirs is done by whoever can.
func TestWorker_foreign(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	reader := h.Client(t)
	client := asynq.NewClientFromRedisClient(reader)
	newer := `{"version":7,"colour":"red","message":"?"}`
	for id, task := range map[string]*asynq.Task{
		"theirs": asynq.NewTask("report:make", []byte("x"), asynq.MaxRetry(0)),
		"empty":  asynq.NewTask("report:make", nil, asynq.MaxRetry(3), asynq.Retention(time.Hour)),
		"newer":  asynq.NewTask(wire.TaskType, []byte(newer), asynq.MaxRetry(3)),
		"bulk":   asynq.NewTask(wire.TaskTypeBulk, []byte(newer+"\n"+newer+"\n"), asynq.MaxRetry(3)),
	} {
		if _, err := client.EnqueueContext(t.Context(), task, asynq.TaskID(id)); err != nil {
			t.Fatal(err)
		}
	}
	ids := []string{"theirs", "empty", "newer", "bulk"}
	log, counted := new(lockedBuffer), make(chan Foreign, 100)
	cfg := h.config()
	logger := zerolog.New(log)
	cfg.Logger = &logger
	cfg.Observers = []Observer{{Foreign: func(why Foreign) { counted <- why }}}
	stop := h.start(cfg)
	h.send(20, nil)
	h.wait(20)

	wantPutOff := func(round string, pause time.Duration) {
		t.Helper()
		h.eventually("all are put off", func() bool {
			i := h.info()
			return i.Scheduled == len(ids) && i.Pending+i.Active+i.Retry+i.Archived == 0
		})
		for _, id := range ids {
			at := time.Unix(int64(reader.ZScore(t.Context(), "asynq:{default}:scheduled", id).Val()), 0)
			if got := time.Until(at); got > pause+time.Second || got < pause-20*time.Second {
				t.Errorf("%s: %s is put off for %v, want %v", round, id, got, pause)
			}
			info, err := inspect(t, h.Server).GetTaskInfo("default", id)
			if err != nil || info.Retried != 0 || info.LastErr != "" {
				t.Errorf("%s: %s: %+v, %v", round, id, info, err)
			}
		}
	}
	due := func() {
		for _, id := range ids {
			reader.ZAddXX(t.Context(), "asynq:{default}:scheduled", redis.Z{Score: 1, Member: id})
		}
		for range ids {
			<-counted
		}
	}
	for range ids {
		<-counted
	}
	wantPutOff("first", 30*time.Second)
	due()
	wantPutOff("second", time.Minute)
	for _, id := range ids {
		reader.HSet(t.Context(), "asynq:{default}:t:"+id, wire.FieldPutOff, 1_000_000)
	}
	due()
	wantPutOff("last", 10*time.Minute)
	if n := reader.ZCard(t.Context(), "asynq:{default}:lease").Val() + reader.LLen(t.Context(), "asynq:{default}:active").Val(); n != 0 {
		t.Errorf("%d are in hand", n)
	}
	stop()
	if n := strings.Count(log.String(), "of another program"); n != 1 || !strings.Contains(log.String(), "report:make") {
		t.Errorf("named %d times, want once:\n%s", n, log)
	}
	if n := strings.Count(log.String(), "of a newer version"); n != 1 || !strings.Contains(log.String(), "version 7") {
		t.Errorf("named %d times, want once:\n%s", n, log)
	}

	// Whoever can do them does.
	theirs := asynq.NewServerFromRedisClient(reader, asynq.Config{Concurrency: 1, DelayedTaskCheckInterval: 100 * time.Millisecond, LogLevel: asynq.FatalLevel})
	done := make(chan string, len(ids))
	for _, id := range ids {
		reader.ZAddXX(t.Context(), "asynq:{default}:scheduled", redis.Z{Score: 1, Member: id})
	}
	if err := theirs.Start(asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		done <- id
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	for range ids {
		<-done
	}
	theirs.Shutdown()
}
