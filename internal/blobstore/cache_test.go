package blobstore

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

func TestCache_singleFlight(t *testing.T) {
	t.Parallel()
	s := New(redistest.Start(t, redistest.Options{}).Client(t), 1<<20, zerolog.Nop())
	content := brochure(1)
	hold(t, s, "task#1", content)
	var count atomic.Int32
	cache := newCache(1<<20, func(ctx context.Context, b Blob) ([]byte, error) {
		count.Add(1)
		return s.readOne(ctx, b)
	})
	var all sync.WaitGroup
	for range 400 {
		all.Go(func() {
			got, err := cache.get(t.Context(), blobOf(content))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	if n := count.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

// One whose time is up does not take the others with it.
func TestCache_abandonedFlight(t *testing.T) {
	t.Parallel()
	s := New(redistest.Start(t, redistest.Options{}).Client(t), 1<<20, zerolog.Nop())
	content := brochure(1)
	hold(t, s, "task#1", content)
	b, cache := blobOf(content), s.cache
	f, mine, _ := cache.join(b)
	if !mine {
		t.Fatal("somebody else fetches")
	}
	got := make(chan error)
	go func() {
		_, err := cache.get(t.Context(), b)
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

func TestCache_limit(t *testing.T) {
	t.Parallel()
	c := newCache(100, nil)
	c.keep("a", make([]byte, 40))
	c.keep("b", make([]byte, 40))
	if _, _, content := c.join(Blob{Hash: "a", Size: 40}); content == nil {
		t.Fatal("a is not there")
	}
	c.keep("c", make([]byte, 40))
	for hash, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if _, there := c.entries[hash]; there != want {
			t.Errorf("%s there: %v, want the one that was used longest ago to go", hash, there)
		}
	}
	if c.size != 80 || c.recent.Len() != 2 {
		t.Errorf("%d bytes in %d entries, want 80 in 2", c.size, c.recent.Len())
	}
}
