package batcher

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What comes while round trips are under way goes together afterwards, and nothing is done twice.
func TestBatcher(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var done [][]int
		under := make(chan struct{})
		b := New(func(items []int) {
			<-under
			mu.Lock()
			defer mu.Unlock()
			done = append(done, items)
		})
		for i := range 10 {
			go b.Add(i)
			synctest.Wait()
		}
		for range mostTrips + 1 {
			under <- struct{}{}
			synctest.Wait()
		}
		slices.SortFunc(done, func(a, b []int) int { return a[0] - b[0] })
		if got := fmt.Sprint(done); got != "[[0] [1] [2 3 4 5 6 7 8 9]]" {
			t.Errorf("round trips %s", got)
		}
	})
}
