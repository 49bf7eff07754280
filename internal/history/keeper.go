package history

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// Keeper keeps the history of all queues of a Redis within its size, for a worker, and knows the key of the installation.
// What scripts write is bounded for each queue; the sum of them is what a Keeper looks at.
type Keeper struct {
	redis  redis.UniversalClient
	cfg    Config
	log    zerolog.Logger
	secret atomic.Pointer[Secret]
}

// NewKeeper returns a Keeper.
func NewKeeper(client redis.UniversalClient, cfg Config, log zerolog.Logger) *Keeper {
	return &Keeper{redis: client, cfg: cfg, log: log}
}

// every is how often a Keeper looks, and of all of them one at how much there is.
const every = 30 * time.Second

// Run calls Look again and again until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
			k.Look(ctx)
		}
	}
}

// Look tells Redis what is kept, reads the key of the installation, or writes it again if Redis has lost it, and drops the oldest records of all
// queues if they are too many. What fails is done the next time.
func (k *Keeper) Look(ctx context.Context) {
	secret, mine, err := install(ctx, k.redis, k.cfg, k.secret.Load(), every)
	if err != nil {
		return
	}
	if k.secret.Store(secret); !mine || !k.cfg.On() {
		return
	}
	if err := k.trim(ctx); err != nil && ctx.Err() == nil {
		k.log.Warn().Err(err).Msg("history: it cannot be kept within EMAIL_HISTORY_SIZE")
	}
}

// Secret is the key of the installation, as far as it is known. Without it records are found by no recipient.
func (k *Keeper) Secret() *Secret { return k.secret.Load() }

// trimScript drops the oldest records of the queue KEYS[1] until it has ARGV[1] bytes, at most, or has dropped many. It
// returns how many it has.
var trimScript = redis.NewScript(Lua + `return historyTrim(KEYS[1], tonumber(ARGV[1]), 2000)`)

// trim drops the oldest records of all queues until all have no more than the size.
func (k *Keeper) trim(ctx context.Context) error {
	queues, err := k.redis.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return err
	}
	sizes, sum := map[string]int64{}, int64(0)
	for some := range slices.Chunk(queues, 500) {
		answers := make([]*redis.StringCmd, len(some))
		_, err := k.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, queue := range some {
				answers[i] = p.HGet(ctx, Key(queue), fieldBytes)
			}
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) { // as one has none
			return err
		}
		for i, queue := range some {
			if n, err := answers[i].Int64(); err == nil && n > 0 {
				sizes[queue] = n
				sum += n
			}
		}
	}
	for sum > k.cfg.Size && ctx.Err() == nil {
		queue, bytes, err := k.oldest(ctx, sizes)
		if err != nil || queue == "" {
			return err
		}
		most := max(sizes[queue]-bytes, sizes[queue]-(sum-k.cfg.Size), 0)
		left, err := trimScript.Run(ctx, k.redis, []string{Key(queue)}, most).Int64()
		if err != nil {
			return err
		}
		if left >= sizes[queue] {
			delete(sizes, queue) // nothing goes: it was emptied meanwhile
			continue
		}
		sum -= sizes[queue] - left
		sizes[queue] = left
	}
	return ctx.Err()
}

// oldest is the queue that has the oldest records, and how many bytes there are of that hour.
func (k *Keeper) oldest(ctx context.Context, sizes map[string]int64) (queue string, bytes int64, err error) {
	first := int64(-1)
	for name := range sizes {
		fields, err := k.redis.HGetAll(ctx, Key(name)).Result()
		if err != nil {
			return "", 0, err
		}
		for field, value := range fields {
			at, err := strconv.ParseInt(field, 10, 64)
			if err != nil || first >= 0 && at >= first {
				continue
			}
			first, queue = at, name
			bytes, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	return queue, max(bytes, 1), nil
}
