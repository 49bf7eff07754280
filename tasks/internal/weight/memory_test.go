package weight

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		first, ok := b.Take(t.Context(), 60)
		if !ok {
			t.Fatal("there is no room in an empty budget")
		}
		var order []string
		waits := func(name string, octets int) {
			go func() {
				release, ok := b.Take(t.Context(), octets)
				if order = append(order, name); ok {
					release()
				}
			}()
			synctest.Wait()
		}
		waits("bigger than all of it", 1000)
		waits("small, but behind a big one", 10)
		if len(order) > 0 {
			t.Fatalf("%v did not wait", order)
		}
		first()
		synctest.Wait()
		if got := strings.Join(order, ", then "); got != "bigger than all of it, then small, but behind a big one" {
			t.Errorf("got room: %s", got)
		}

		release, _ := b.Take(t.Context(), 100)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, ok := b.Take(ctx, 1); ok {
			t.Error("there is room in a full budget")
		}
		release()
		if _, ok := b.Take(t.Context(), 100); !ok {
			t.Error("who gave up has kept some of it")
		}
		if _, ok := (*Budget)(nil).Take(t.Context(), 1<<40); !ok {
			t.Error("no budget is a limit")
		}
	})
}

func TestNewBudgets(t *testing.T) {
	t.Parallel()
	normal, priority := NewBudgets(80_000_000, 2, 4, true)
	if normal.size != 28_000_000 || priority.size != 7_000_000 {
		t.Errorf("a mailer has %d and %d bytes, want 28,000,000 and 7,000,000 of half of what the cache leaves", normal.size, priority.size)
	}
}
