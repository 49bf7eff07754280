package tasks

import (
	"cmp"
	"context"
	"iter"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// IDs returns the dead letters of a queue by the IDs of their tasks, oldest first.
func (d *DeadLetters) IDs(ctx context.Context, queue string) ([]string, error) {
	var ids []string
	for id, err := range d.EachID(ctx, queue) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// deadPage is how many dead letters are asked for in a round trip.
const deadPage = 500

// EachID yields the IDs of a queue's dead letters, oldest first, and asks Redis for them page by page: however many
// there are, few are in memory. Letters may be deleted or replayed meanwhile, by the caller too; those that become dead
// letters meanwhile are not yielded. With an error it ends.
func (d *DeadLetters) EachID(ctx context.Context, queue string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		// The oldest of asynq's archive may move to our set at any time. So what is in the archive, which asynq keeps
		// small, comes first into memory, and is yielded last.
		recent, err := d.redis.ZRange(ctx, archiveKey(queue), 0, -1).Result()
		if err != nil {
			yield("", redisconn.Unavailable(err))
			return
		}
		later := make(map[string]bool, len(recent))
		for _, id := range recent {
			later[id] = true
		}
		for id, err := range eachMember(ctx, d.redis, wire.DeadKey(queue)) {
			if err == nil && later[id] {
				continue
			}
			if !yield(id, err) || err != nil {
				return
			}
		}
		for _, id := range recent {
			if !yield(id, nil) {
				return
			}
		}
	}
}

// eachMember yields the members of a sorted set in their order, up to what is last in it now. What has its place in the
// set all the while is yielded once, whatever is added and removed: a page begins where the one before has ended by the
// order of the members, and their numbers are only where it is looked for.
func eachMember(ctx context.Context, client redis.UniversalClient, key string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		last, err := client.ZRangeWithScores(ctx, key, -1, -1).Result()
		if err != nil {
			yield("", redisconn.Unavailable(err))
			return
		}
		if len(last) == 0 {
			return
		}
		var end *redis.Z // of what has been yielded
		for at := int64(0); ; {
			page, err := client.ZRangeWithScores(ctx, key, at, at+deadPage-1).Result()
			if err != nil {
				yield("", redisconn.Unavailable(err))
				return
			}
			if at > 0 && (len(page) == 0 || compareMembers(*end, page[0]) < 0) { // some before it are gone
				at = max(at-deadPage/2, 0)
				continue
			}
			for i := range page {
				if end != nil && compareMembers(page[i], *end) <= 0 {
					continue
				}
				if compareMembers(page[i], last[0]) > 0 {
					return
				}
				end = &page[i]
				if !yield(member(page[i]), nil) {
					return
				}
			}
			if len(page) < deadPage {
				return
			}
			at += deadPage - 1 // the last one again, to see that the pages meet
		}
	}
}

// compareMembers compares members as Redis orders them.
func compareMembers(a, b redis.Z) int {
	return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(member(a), member(b)))
}

func member(z redis.Z) string {
	id, _ := z.Member.(string)
	return id
}
