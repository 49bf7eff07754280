package main

import (
	"context"
	"sync"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/bench/baseline"
)

// handOver hands mails over with asynq's own client from several goroutines, as one hands
// over a list that is in memory.
func handOver(ctx context.Context, o options) error {
	opts, err := redis.ParseURL(o.redis)
	if err != nil {
		return err
	}
	opts.PoolSize = o.concurrency
	connections := redis.NewClient(opts)
	defer func() { _ = connections.Close() }()
	client := asynq.NewClientFromRedisClient(connections)
	errs := make([]error, o.concurrency)
	var all sync.WaitGroup
	for i := range o.concurrency {
		all.Go(func() {
			for j := i; j < o.mails && errs[i] == nil; j += o.concurrency {
				errs[i] = enqueue(ctx, client, j)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func enqueue(ctx context.Context, client *asynq.Client, i int) error {
	task, err := baseline.Mail{From: baseline.Sender, To: baseline.Recipient(i), Subject: baseline.Subject, Body: baseline.Body(i)}.Task()
	if err != nil {
		return err
	}
	_, err = client.EnqueueContext(ctx, task)
	return err
}
