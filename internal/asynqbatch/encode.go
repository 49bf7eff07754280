package asynqbatch

import (
	"context"
	"errors"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// encoder is a Redis that takes down what asynq would have written.
type encoder struct {
	redis.UniversalClient // nil: asynq's client uses two commands to enqueue a task
	message               []byte
}

var errNotEncoded = errors.New("asynqbatch: asynq enqueues tasks by another script than the known one")

// SAdd implements redis.SetCmdable: asynq adds the queue to the set of all.
func (e *encoder) SAdd(context.Context, string, ...any) *redis.IntCmd {
	return redis.NewIntResult(1, nil)
}

// EvalSha implements redis.Scripter. The arguments of asynq's script are the task, its ID and the time.
func (e *encoder) EvalSha(_ context.Context, _ string, keys []string, args ...any) *redis.Cmd {
	var ok bool
	if len(keys) != 2 || len(args) != 3 {
		return redis.NewCmdResult(nil, errNotEncoded)
	}
	if e.message, ok = args[0].([]byte); !ok {
		return redis.NewCmdResult(nil, errNotEncoded)
	}
	return redis.NewCmdResult(int64(1), nil)
}

// Encode returns a task as asynq's client writes it into the field "msg" of the task's record, and writes
// nothing: for a script that is to put it there together with other changes. When the task is due is not part of it.
func Encode(task *asynq.Task, opts ...asynq.Option) ([]byte, error) {
	var e encoder
	if _, err := asynq.NewClientFromRedisClient(&e).Enqueue(task, opts...); err != nil {
		return nil, err
	}
	return e.message, nil
}
