package asynqbatch

import (
	"bytes"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// What is encoded is what asynq itself writes.
func TestEncode(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	task := asynq.NewTaskWithHeaders("type", []byte("payload"), map[string]string{"a": "b"})
	opts := []asynq.Option{asynq.TaskID("id"), asynq.Queue("bulk"), asynq.MaxRetry(7), asynq.Timeout(time.Minute), asynq.Retention(time.Hour)}
	if _, err := asynq.NewClientFromRedisClient(client).Enqueue(task, opts...); err != nil {
		t.Fatal(err)
	}
	want, err := client.HGet(t.Context(), TaskKey("bulk", "id"), "msg").Bytes()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Encode(task, opts...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("Encode = %q, %v, want %q", got, err, want)
	}
}
