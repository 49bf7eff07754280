package pauses

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// before does something before a client sends a command of a name for the first time.
type before struct {
	redis.Hook
	command string
	do      func()
}

func (b *before) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *before) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b *before) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, c redis.Cmder) error {
		if c.Name() == b.command && b.do != nil {
			do := b.do
			b.do = nil
			do()
		}
		return next(ctx, c)
	}
}

// A queue that is paused with asynq's tools and resumed just when a worker has seen the pause goes on.
func TestKeep_resumedWhileItIsNoted(t *testing.T) {
	const queue = "default"
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	if err := client.Set(ctx, asynqbatch.PausedKey(queue), 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	resumed := &before{command: "hsetnx", do: func() {
		if err := client.Del(ctx, asynqbatch.PausedKey(queue)).Err(); err != nil {
			t.Error(err)
		}
	}}
	client.AddHook(resumed)
	for range 2 {
		if _, err := Keep(ctx, client, []string{queue}); err != nil {
			t.Fatal(err)
		}
	}
	if resumed.do != nil {
		t.Fatal("the pause was not noted")
	}
	if n := client.Exists(ctx, asynqbatch.PausedKey(queue), wire.PausesKey(queue), wire.PausedKey).Val(); n != 0 {
		t.Errorf("%d keys of a pause are left: the queue is paused again, or taken for paused", n)
	}
}

// A worker that ends when it has seen a pause leaves it as it is.
func TestKeep_notNoted(t *testing.T) {
	const queue = "default"
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	if err := client.Set(ctx, asynqbatch.PausedKey(queue), 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	wanted := map[string]asynqbatch.Wanted{queue: {}}
	for range 2 { // workers that see it, and end
		if found, err := asynqbatch.SetPauses(ctx, client, wanted); err != nil || found[queue].By != asynqbatch.ByPausing {
			t.Fatalf("found %+v, %v", found, err)
		}
	}
	if n := client.Exists(ctx, asynqbatch.PausedKey(queue)).Val(); n != 1 {
		t.Error("the queue is paused no more")
	}
	paused, err := Keep(ctx, client, []string{queue})
	if err != nil || !paused.Has(queue, "") || len(paused.List()) != 1 {
		t.Errorf("paused %+v, %v", paused.List(), err)
	}
	// And one that is resumed before anybody has noted it leaves nothing.
	if err := client.Del(ctx, asynqbatch.PausedKey(queue), wire.PausedKey, wire.PausesKey(queue)).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.HSet(ctx, wire.PausesKey(queue), wire.FieldQueuePaused, wire.QueueFoundPaused).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := Keep(ctx, client, []string{queue}); err != nil {
		t.Fatal(err)
	}
	if n := client.Exists(ctx, wire.PausesKey(queue)).Val(); n != 0 {
		t.Error("a mark is left")
	}
}
