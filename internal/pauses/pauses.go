// Package pauses pauses queues, mailers and mailings, and keeps all parts of a queue as paused as one of them.
//
// What is paused is in one hash of Redis, with who did it, when and why. In the slot of each of asynq's queues there is what
// that means for it: asynq's own key of a paused queue, and a hash with the paused mailings (internal/asynqbatch). Whoever
// pauses writes both, and workers compare them twice a second ([Keep]): a part of a queue that is new is paused too, and what
// is done with asynq's own tools, which know one part of a queue each, is done to the others.
//
//	enqueue pause --queue bulk      hash: queue bulk  ->  bulk  bulk:mass  bulk~2  marketing.bulk ...
//	asynq's tools pause bulk        bulk              ->  hash: queue bulk of mailer default  ->  bulk:mass ...
package pauses

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// UnknownError reports a queue or a mailer that there is none of.
type UnknownError struct {
	Target Target
	Known  []string // queues, or mailers
}

func (e *UnknownError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("tasks: there is no %s: nothing was ever put into such a queue of this Redis, and no worker serves it", e.Target)
	}
	return fmt.Sprintf("tasks: there is no %s (there are %s)", e.Target, strings.Join(e.Known, ", "))
}

// Set pauses something, in all queues that there are. If it is paused already it stays as it is, and that pause is returned.
// By and At may be left out. A queue or a mailer without a queue in Redis is an UnknownError.
func Set(ctx context.Context, client redis.UniversalClient, p Pause) (before *Pause, err error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	names, err := queueNames(ctx, client)
	if err != nil {
		return nil, err
	}
	if p.Mailing == "" && !slices.ContainsFunc(names, func(name string) bool { return p.covers(wire.ParseQueueName(name)) }) {
		return nil, &UnknownError{p.Target, known(p.Target, names)}
	}
	if p.By == "" {
		p.By = hostName()
	}
	if p.At.IsZero() {
		p.At = time.Now().UTC().Truncate(time.Millisecond)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	fresh, err := client.HSetNX(ctx, wire.PausedKey, p.Target.String(), data).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	list, err := Keep(ctx, client, names)
	if err != nil {
		return nil, err
	}
	for _, other := range list.all {
		if !fresh && other.Target == p.Target {
			return &other, nil
		}
	}
	return nil, nil
}

func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown host"
	}
	return host
}

// known are the names that a target could have had.
func known(t Target, names []string) []string {
	var list []string
	for _, name := range names {
		n := wire.ParseQueueName(name)
		switch {
		case t.Queue == "":
			list = append(list, mailerOf(n))
		case t.Mailer == "" || t.Mailer == mailerOf(n):
			list = append(list, n.Queue)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// End ends the pause of a target, and brings back what was set aside. It is false if there was none.
func End(ctx context.Context, client redis.UniversalClient, t Target) (ended bool, err error) {
	if err := t.Validate(); err != nil {
		return false, err
	}
	n, err := client.HDel(ctx, wire.PausedKey, t.String()).Result()
	if err != nil {
		return false, redisconn.Unavailable(err)
	}
	names, err := queueNames(ctx, client)
	if err != nil {
		return false, err
	}
	if _, err := Keep(ctx, client, names); err != nil { // also if there was none: somebody may have died in the middle
		return false, err
	}
	return n > 0, wake(ctx, client, names)
}

// wake tells workers which queues have tasks.
func wake(ctx context.Context, client redis.UniversalClient, names []string) error {
	pending := make([]*redis.IntCmd, len(names))
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, name := range names {
			pending[i] = pipe.Exists(ctx, "asynq:{"+name+"}:pending")
		}
		return nil
	})
	if err == nil {
		_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, name := range names {
				if pending[i].Val() > 0 {
					pipe.Publish(ctx, wire.WakeChannel, name)
				}
			}
			return nil
		})
	}
	if err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

// List returns all pauses, the oldest first.
func List(ctx context.Context, client redis.UniversalClient) ([]Pause, error) {
	fields, err := client.HGetAll(ctx, wire.PausedKey).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	return read(fields), nil
}

// queueNames are the names of all queues of ours, as asynq has them.
func queueNames(ctx context.Context, client redis.UniversalClient) ([]string, error) {
	names, err := client.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return wire.ParseQueueName(name).String() != name }), nil
}
