package letters

import (
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// A set that changes while it is read: what was there from the first page to the last one is read once.
func TestEachMember(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	const n = 5 * memberPage
	name := func(i int) string { return fmt.Sprintf("%06d", i) }
	var members []redis.Z
	for i := range n {
		members = append(members, redis.Z{Score: float64(i / (2 * memberPage)), Member: name(i)}) // many of one second
	}
	for what, change := range map[string]func(key string, i int, id string){
		"nothing happens":  func(string, int, string) {},
		"all are removed":  func(key string, _ int, id string) { client.ZRem(t.Context(), key, id) },
		"most are removed": func(key string, i int, _ string) { client.ZRemRangeByRank(t.Context(), key, 0, int64(i%3)-1) },
		"some come in before": func(key string, i int, _ string) {
			client.ZAdd(t.Context(), key, redis.Z{Score: -1, Member: name(-i - 1)})
		},
		"some come in behind": func(key string, i int, _ string) {
			client.ZAdd(t.Context(), key, redis.Z{Score: 9, Member: name(n + i)})
		},
	} {
		t.Run(what, func(t *testing.T) {
			key := "set of " + what
			if err := client.ZAdd(t.Context(), key, members...).Err(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for z, err := range eachMember(t.Context(), client, key) {
				if err != nil {
					t.Fatal(err)
				}
				id := member(z)
				change(key, len(got), id)
				got = append(got, id)
			}
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("%d, not in order or not once", len(got))
			}
			left := client.ZRangeArgs(t.Context(), redis.ZRangeArgs{Key: key, Start: 0, Stop: 8, ByScore: true}).Val()
			if what == "all are removed" && (len(got) != n || len(left) > 0) || what != "most are removed" && len(got) != n {
				t.Errorf("%d of %d, %d are left", len(got), n, len(left))
			}
			for _, id := range left { // they have been there all the while
				if _, ok := slices.BinarySearch(got, id); !ok {
					t.Fatalf("%s was left out", id)
				}
			}
		})
	}
}
