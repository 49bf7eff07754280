package blobstore

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// cache holds the blobs that were used last, up to a limit. What is on the wire counts
// extra, unless it is the same blob. A blob that many messages want at the
// same time is fetched once. Its contents are shared: nobody may change them.
type cache struct {
	read  func(context.Context, Blob) ([]byte, error) // from Redis
	limit int

	mu      sync.Mutex
	entries map[string]*list.Element // of recent, by hash
	recent  list.List                // of *cached, the last used one in front
	size    int                      // bytes in recent
	flights map[string]*flight       // under way, by hash
}

type cached struct {
	hash    string
	content []byte
}

// flight is one blob on its way from Redis. Its results may be read when done is closed.
type flight struct {
	done    chan struct{}
	content []byte
	err     error // a FaultError, or why Redis could not be asked
}

func newCache(limit int, read func(context.Context, Blob) ([]byte, error)) *cache {
	return &cache{read: read, limit: limit, entries: map[string]*list.Element{}, flights: map[string]*flight{}}
}

// get returns the content of a blob. The error is a FaultError, or that of a Redis that does
// not answer.
func (c *cache) get(ctx context.Context, b Blob) ([]byte, error) {
	for {
		f, mine, content := c.join(b)
		if content != nil {
			return content, nil
		}
		if mine {
			c.fetch(ctx, b, f)
			return f.content, f.err
		}
		select {
		case <-ctx.Done():
			return nil, redisconn.Unavailable(ctx.Err())
		case <-f.done:
		}
		// That another's time was up is no answer for this one.
		if !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) {
			return f.content, f.err
		}
	}
}

// join returns the content if it is here, and else the flight that brings it. mine reports
// whether the caller has to fetch it.
func (c *cache) join(b Blob) (f *flight, mine bool, content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[b.Hash]; ok {
		if content := e.Value.(*cached).content; len(content) == b.Size {
			c.recent.MoveToFront(e)
			return nil, false, content
		}
	}
	if f, ok := c.flights[b.Hash]; ok {
		return f, false, nil
	}
	f = &flight{done: make(chan struct{})}
	c.flights[b.Hash] = f
	return f, true, nil
}

func (c *cache) fetch(ctx context.Context, b Blob, f *flight) {
	f.content, f.err = c.read(ctx, b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.content != nil && len(f.content) <= c.limit {
		c.keep(b.Hash, f.content)
	}
	delete(c.flights, b.Hash)
	close(f.done)
}

// keep adds a content and makes room for it. c.mu is held.
func (c *cache) keep(hash string, content []byte) {
	if _, ok := c.entries[hash]; ok {
		return
	}
	c.entries[hash] = c.recent.PushFront(&cached{hash, content})
	c.size += len(content)
	for c.size > c.limit {
		last := c.recent.Remove(c.recent.Back()).(*cached)
		delete(c.entries, last.hash)
		c.size -= len(last.content)
	}
}
