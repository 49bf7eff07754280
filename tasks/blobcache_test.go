package tasks

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

func TestBlobCache_singleFlight(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	content := brochure(1, 100_000)
	h.send(1, with(content))
	count := &tally{}
	cache := newBlobCache(count.watch(h.Client(t)), 1<<20)
	var all sync.WaitGroup
	for range 400 {
		all.Go(func() {
			got, fault, err := cache.get(t.Context(), wire.Blob{Hash: hashOf(content), Size: len(content)})
			if err != nil || fault != "" || !bytes.Equal(got, content) {
				t.Errorf("got %d octets, %q, %v", len(got), fault, err)
			}
		})
	}
	all.Wait()
	if n := count.of("get"); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

// One whose time is up does not take the others with it.
func TestBlobCache_abandonedFlight(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	content := brochure(1, 100_000)
	h.send(1, with(content))
	b := wire.Blob{Hash: hashOf(content), Size: len(content)}
	cache := newBlobCache(h.Client(t), 1<<20)
	f, mine, _ := cache.join(b)
	if !mine {
		t.Fatal("somebody else fetches")
	}
	got := make(chan error)
	go func() {
		_, _, err := cache.get(t.Context(), b)
		got <- err
	}()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	cache.fetch(over, b, f)
	if !errors.Is(f.err, context.Canceled) {
		t.Errorf("the one that was cancelled: %v", f.err)
	}
	if err := <-got; err != nil {
		t.Errorf("the other: %v", err)
	}
}

func TestBlobCache_limit(t *testing.T) {
	t.Parallel()
	c := newBlobCache(nil, 100)
	c.keep("a", make([]byte, 40))
	c.keep("b", make([]byte, 40))
	if _, _, content := c.join(wire.Blob{Hash: "a", Size: 40}); content == nil {
		t.Fatal("a is not there")
	}
	c.keep("c", make([]byte, 40))
	for hash, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if _, there := c.entries[hash]; there != want {
			t.Errorf("%s there: %v, want the one that was used longest ago to go", hash, there)
		}
	}
	if c.size != 80 || c.recent.Len() != 2 {
		t.Errorf("%d octets in %d entries, want 80 in 2", c.size, c.recent.Len())
	}
}
