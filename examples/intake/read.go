package main

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/tasks"
)

// read is for a program in Go that reads the events itself, beside the webhooks or instead of them.
func read(ctx context.Context, client redis.UniversalClient) error {
	events := tasks.NewEvents(client, tasks.EventsConfig{Group: "example"})
	return events.Run(ctx, func(_ context.Context, all []tasks.Event) error {
		for _, e := range all {
			fmt.Println(e.Type, e.EmailID, e.Recipient, e.Reply)
		}
		return nil // an error brings the same events again
	})
}
