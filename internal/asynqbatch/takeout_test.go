package asynqbatch

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// A record is read as asynq has written it, whole or cut off.
func TestReadMessage(t *testing.T) {
	t.Parallel()
	task := asynq.NewTaskWithHeaders("type", []byte("pay\x00load"), map[string]string{"a": "b"})
	data, err := Encode(task, asynq.TaskID("id"), asynq.Queue("bulk"), asynq.MaxRetry(700), asynq.Timeout(time.Hour), asynq.Retention(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := ReadMessage(string(data))
	if !ok || string(m.Payload) != "pay\x00load" || m.LastError != "" || m.Type != "type" || m.Retention != time.Hour {
		t.Errorf("%+v", m)
	}
	for n := range data {
		if m, _ := ReadMessage(string(data[:n])); len(m.Payload) > len("pay\x00load") {
			t.Errorf("of %d bytes: %+v", n, m)
		}
	}
}

// The last failure is read as asynq's inspector reads it.
func TestReadMessage_lastErr(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.enqueue(t, "default", 1, 1)
	server := asynq.NewServerFromRedisClient(s.redis, asynq.Config{Concurrency: 1, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(_ context.Context, _ *asynq.Task) error {
		return errors.Join(asynq.SkipRetry, errors.New("no such user"))
	})); err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	inspector := asynq.NewInspectorFromRedisClient(s.redis)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		info, err := inspector.GetTaskInfo("default", "1")
		if err != nil || info.State != asynq.TaskStateArchived {
			continue
		}
		m, _ := ReadMessage(s.redis.HGet(t.Context(), TaskKey("default", "1"), "msg").Val())
		if m.LastError != info.LastErr || m.LastError == "" || !m.LastFailed.Equal(info.LastFailedAt) || m.Retried != info.Retried {
			t.Errorf("%+v, want %+v", m, info)
		}
		return
	}
	t.Error("the task was not archived")
}
