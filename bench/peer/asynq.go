package main

import (
	"context"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/bench/baseline"
)

// sender sends one mail.
type sender func(ctx context.Context, m baseline.Mail) error

// work is the asynq server that all of them share, with asynq's defaults but for the flags.
// It ends with ctx.
func work(ctx context.Context, o options, send sender) error {
	opts, err := redis.ParseURL(o.redis)
	if err != nil {
		return err
	}
	client := redis.NewClient(opts)
	defer func() { _ = client.Close() }()
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Concurrency:       o.concurrency,
		TaskCheckInterval: o.interval,
		Queues:            map[string]int{"critical": 6, "default": 3, "bulk": 1},
		LogLevel:          asynq.ErrorLevel,
	})
	err = server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		if send == nil {
			return nil
		}
		m, err := baseline.Read(task)
		if err != nil {
			return err
		}
		return send(ctx, m)
	}))
	if err != nil {
		return err
	}
	<-ctx.Done()
	server.Shutdown()
	return nil
}
