package sweep

import (
	"context"
	"hash/maphash"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// eachPending calls do with the IDs of a list of pending tasks, page by page, while tasks come and go: each that is in
// the list from the first page to the last is in one of them. New tasks come in at the beginning, which moves those that
// are to be read towards the end, and does no harm; what is removed moves them the other way. So pages overlap, and if a
// page has nothing of the one before, which is still in its order, then too much was removed, and it is read further
// up. do may get an ID twice.
func (s *Sweeper) eachPending(ctx context.Context, list string, do func(ids []string)) error {
	size, overlap := int64(s.cfg.page), int64(max(s.cfg.page/10, 1))
	before := map[string]bool{}
	for at := int64(0); ; {
		var ids []string
		err := s.slowly(ctx, func() (err error) {
			ids, err = s.redis.LRange(ctx, list, at, at+size-1).Result()
			return err
		})
		if err != nil {
			return err
		}
		if at > 0 && !slices.ContainsFunc(ids, func(id string) bool { return before[id] }) {
			at = max(at-size/2, 0)
			continue
		}
		do(ids)
		if int64(len(ids)) < size {
			return nil
		}
		clear(before)
		for _, id := range ids {
			before[id] = true
		}
		at += size - overlap
	}
}

// snapshot is which tasks were pending, as numbers made of their IDs: eight bytes for each.
type snapshot struct {
	seed    maphash.Seed
	numbers []uint64
}

// mostInSnapshot is how many tasks are compared. In a queue in which more are waiting no lost ones are found until it
// is shorter.
const mostInSnapshot = 4_000_000

// snapshot reads a list of pending tasks. It is nil if that is too long. Two IDs in a few millions of millions may have
// the same number: a lost task that another one stands for is found by the next search, which makes other numbers.
func (s *Sweeper) snapshot(ctx context.Context, list string) (*snapshot, error) {
	shot := &snapshot{seed: maphash.MakeSeed()}
	err := s.eachPending(ctx, list, func(ids []string) {
		for _, id := range ids {
			if len(shot.numbers) < 2*mostInSnapshot {
				shot.numbers = append(shot.numbers, maphash.String(shot.seed, id))
			}
		}
	})
	if err != nil || len(shot.numbers) >= 2*mostInSnapshot {
		return nil, err
	}
	slices.Sort(shot.numbers)
	return shot, nil
}

func (s *snapshot) has(id string) bool {
	_, ok := slices.BinarySearch(s.numbers, maphash.String(s.seed, id))
	return ok
}

// nodes are the servers that have a part of the keys each.
func nodes(ctx context.Context, client redis.UniversalClient) ([]redis.UniversalClient, error) {
	cluster, ok := redisconn.Cluster(client)
	if !ok {
		return []redis.UniversalClient{client}, nil
	}
	found := make(chan redis.UniversalClient, 1000)
	err := cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		found <- node
		return nil
	})
	close(found)
	var all []redis.UniversalClient
	for node := range found {
		all = append(all, node)
	}
	return all, err
}
