package events

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// Keeper keeps the events of all queues of a Redis within their size, for a worker. What scripts write is bounded for each queue; the
// sum of them is what a Keeper looks at. And it keeps the streams in Redis: when the last worker that writes events is gone they go too,
// a week later. It forgets groups whose sources do not come back, since what these have not read would count as lost.
type Keeper struct {
	redis  redis.UniversalClient
	cfg    Config
	log    zerolog.Logger
	every  time.Duration // it looks
	forget time.Duration // likewise: first when other workers, which may have been away as long as this one, have come back
}

// NewKeeper returns a Keeper.
func NewKeeper(client redis.UniversalClient, cfg Config, log zerolog.Logger) *Keeper {
	return &Keeper{client, cfg, log, 30 * time.Second, time.Hour}
}

// unusedFor is how long a group has had no source that is forgotten.
const unusedFor = 3 * 24 * time.Hour

// keptFor is how long streams stay when nobody keeps them.
const keptFor = 7 * 24 * time.Hour

const keptKey = "mailpouch:events:kept"

// Run looks at the streams again and again until ctx ends. Of several workers one does.
func (k *Keeper) Run(ctx context.Context) {
	forgot := time.Now()
	for failed := false; ; {
		if time.Since(forgot) >= k.forget {
			forgot = time.Now()
			if err := forgetUnused(ctx, k.redis, unusedFor); err != nil && ctx.Err() == nil {
				k.log.Debug().Err(err).Msg("events of endpoints that are gone are not forgotten yet")
			}
		}
		if err := k.look(ctx); err != nil && ctx.Err() == nil && !failed {
			k.log.Warn().Err(err).Msg("events: they cannot be kept within EMAIL_EVENTS_SIZE: tried again until they can")
			failed = true
		} else if err == nil {
			failed = false
		}
		if !wait(ctx, k.every) {
			return
		}
	}
}

// trimScript drops the oldest events of the stream KEYS[1] until it has at most ARGV[1] bytes, or some have gone. It returns how many
// bytes it has.
var trimScript = redis.NewScript(Lua + `return eventsTrim(KEYS[1], tonumber(ARGV[1]))`)

// look looks at the streams, unless somebody has lately.
func (k *Keeper) look(ctx context.Context) error {
	mine, err := k.redis.SetNX(ctx, keptKey, 1, k.every*9/10).Result()
	if err != nil || !mine {
		return err
	}
	queues, err := k.redis.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return err
	}
	sizes := make([]*redis.StringCmd, len(queues))
	_, err = k.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, queue := range queues {
			sizes[i] = p.HGet(ctx, stateKey(queue), fieldBytes)
			p.Expire(ctx, Key(queue), keptFor)
			p.Expire(ctx, stateKey(queue), keptFor)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) { // as one has none
		return err
	}
	sum, bytes := int64(0), map[string]int64{}
	for i, queue := range queues {
		if n, err := sizes[i].Int64(); err == nil {
			bytes[queue] = n
			sum += n
		}
	}
	if sum <= k.cfg.Size {
		return nil
	}
	// Each gives up the same part, so that one that is read keeps room beside one that is not.
	for queue, has := range bytes {
		most := int64(float64(has) * float64(k.cfg.Size) / float64(sum))
		for left := has; left > most; {
			n, err := trimScript.Run(ctx, k.redis, []string{Key(queue)}, strconv.FormatInt(most, 10)).Int64()
			if err != nil {
				return err
			}
			if n >= left {
				break // it is written to as fast, or nothing goes
			}
			left = n
		}
	}
	return nil
}
