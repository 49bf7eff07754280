// Package blobstore keeps big contents in Redis beside the queue, each once, for as long as a
// task refers to it.
//
// The content of a big attachment, body or alternative does not ride in the payload:
// asynq reads the payload of every task that it gives out, and writes those of the active
// ones to Redis anew every five seconds; and the same file often goes to thousands. It
// is a blob: stored once, under the hash of its content, and read when it is its turn.
//
//	mailpouch:{<sha256>}:blob   the content
//	mailpouch:{<sha256>}:refs   a sorted set: who needs it, and since when (ms)
//	mailpouch:blobs             a sorted set: the hashes, and when each was last handed over (ms)
//
// A blob is there before the task that needs it, and stays while anything refers to
// it. Each hand-over makes a reference of its own (see [Ref]), so that what ends one task can
// never drop what another one holds. With the last reference gone the blob expires:
//
//	Hold -> task enqueued -> Get -> task ended -> Ended -> reference dropped -> an hour -> gone
//
// A process that dies in between, or whose task Redis did not take, leaves a reference too
// many; the worker's sweep drops those whose task is not there. That is not done at once:
// asynq does not report whether Redis refused a task or only its answer was lost, and a blob
// may live too long, never too short.
//
// The package knows hashes and references, and nothing of messages.
package blobstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// Store is the contents in one Redis. It may be used by several goroutines.
type Store struct {
	redis redis.UniversalClient
	cache *cache
	log   zerolog.Logger
	away  atomic.Bool // Redis did not answer; logged once

	mu    sync.Mutex
	ended []endedTask
}

const (
	linger     = time.Hour   // how long a blob stays that nothing refers to
	retryPause = time.Second // between two questions to a Redis that is away
)

// New returns the store in a Redis. Get keeps so many bytes of the contents that it has read
// last in memory.
func New(client redis.UniversalClient, cacheSize int, log zerolog.Logger) *Store {
	s := &Store{redis: client, log: log}
	s.cache = newCache(cacheSize, s.readOne)
	return s
}

// Content is a blob, and what to store if it is not there.
type Content struct {
	Blob
	Bytes func() []byte // called only if it is not there
}

// claimScript refers to a blob, if it is there with its whole length.
const claimScript = `
if redis.call("STRLEN", KEYS[1]) ~= tonumber(ARGV[3]) then return 0 end
redis.call("ZADD", KEYS[2], ARGV[2], ARGV[1])
redis.call("PERSIST", KEYS[1])
return 1`

// Hold refers to contents, and stores those that are not there. Redis is first asked for
// them, so that the same file for many recipients is sent to it once. It is a FaultError if one
// is not there and its bytes are not the whole content.
func (s *Store) Hold(ctx context.Context, ref string, contents []Content) error {
	now := time.Now().UnixMilli()
	claims := map[string]*redis.Cmd{}
	_, err := s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, c := range contents {
			if claims[c.Hash] == nil {
				pipe.ZAdd(ctx, index, redis.Z{Score: float64(now), Member: c.Hash})
				claims[c.Hash] = pipe.Eval(ctx, claimScript, []string{blobKey(c.Hash), refsKey(c.Hash)}, ref, now, c.Size)
			}
		}
		return nil
	})
	if err != nil {
		return redisconn.Unavailable(err)
	}
	for _, c := range contents {
		if there, _ := claims[c.Hash].Int(); there == 1 {
			continue
		}
		content := c.Bytes()
		if len(content) != c.Size {
			return &FaultError{c.Blob, missing}
		}
		if err := s.store(ctx, c.Hash, content, ref, now); err != nil {
			return err
		}
	}
	return nil
}

// storeScript writes a blob together with its reference, so that neither is ever alone.
const storeScript = `
redis.call("SET", KEYS[1], ARGV[3])
redis.call("ZADD", KEYS[2], ARGV[2], ARGV[1])
return 1`

func (s *Store) store(ctx context.Context, hash string, content []byte, ref string, now int64) error {
	err := s.redis.Eval(ctx, storeScript, []string{blobKey(hash), refsKey(hash)}, ref, now, content).Err()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

// Get returns a content, which is shared: nobody may change it. That it is lost is a
// FaultError. While Redis is away it waits until ctx ends.
func (s *Store) Get(ctx context.Context, b Blob) ([]byte, error) {
	for {
		content, err := s.cache.get(ctx, b)
		var fault *FaultError
		switch {
		case errors.As(err, &fault):
			return nil, err
		case err == nil:
			s.away.Store(false)
			return content, nil
		case ctx.Err() != nil:
			return nil, err
		}
		if !s.away.Swap(true) {
			s.log.Error().Err(err).Msg("big attachments and bodies cannot be fetched: their mail waits until Redis answers")
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(retryPause):
		}
	}
}

// Read reads contents and checks them, in one round trip. What is lost is nil, and its entry
// in faults is a FaultError.
func (s *Store) Read(ctx context.Context, blobs []Blob) (contents [][]byte, faults []error, err error) {
	answers := make([]*redis.StringCmd, len(blobs))
	_, err = s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, b := range blobs {
			answers[i] = pipe.Get(ctx, blobKey(b.Hash))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, nil, redisconn.Unavailable(err)
	}
	contents, faults = make([][]byte, len(blobs)), make([]error, len(blobs))
	for i, b := range blobs {
		content, err := answers[i].Bytes()
		switch {
		case errors.Is(err, redis.Nil):
			faults[i] = &FaultError{b, missing}
		case err != nil:
			return nil, nil, redisconn.Unavailable(err)
		case len(content) != b.Size || Hash(content) != b.Hash:
			faults[i] = &FaultError{b, damaged}
		default:
			contents[i] = content
		}
	}
	return contents, faults, nil
}

// readOne is Read for one blob.
func (s *Store) readOne(ctx context.Context, b Blob) ([]byte, error) {
	contents, faults, err := s.Read(ctx, []Blob{b})
	if err != nil {
		return nil, err
	}
	return contents[0], faults[0]
}

// Head returns the first bytes of a content, at most n, unchecked: none if it is not there.
func (s *Store) Head(ctx context.Context, hash string, n int) ([]byte, error) {
	head, err := s.redis.GetRange(ctx, blobKey(hash), 0, int64(n)-1).Bytes()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	return head, nil
}

// dropScript removes references. With the last one gone the blob expires after ARGV[1]
// seconds. It returns 1 if neither blob nor references are left.
const dropScript = `
for i = 2, #ARGV do redis.call("ZREM", KEYS[2], ARGV[i]) end
if redis.call("EXISTS", KEYS[2]) == 1 then return 0 end
local ttl = redis.call("TTL", KEYS[1])
if ttl == -1 then redis.call("EXPIRE", KEYS[1], ARGV[1]) end
if ttl == -2 then return 1 end
return 0`

// Drop removes the reference to contents.
func (s *Store) Drop(ctx context.Context, ref string, hashes []string) error {
	refs := map[string][]string{}
	for _, hash := range hashes {
		refs[hash] = []string{ref}
	}
	return s.drop(ctx, refs)
}

// drop removes references, by the hashes of their blobs.
func (s *Store) drop(ctx context.Context, refs map[string][]string) error {
	if len(refs) == 0 {
		return nil
	}
	_, err := s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for hash, list := range refs {
			evalDrop(ctx, pipe, hash, list)
		}
		return nil
	})
	if err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

func evalDrop(ctx context.Context, pipe redis.Pipeliner, hash string, refs []string) *redis.Cmd {
	args := make([]any, 0, 1+len(refs))
	args = append(args, int(linger/time.Second))
	for _, r := range refs {
		args = append(args, r)
	}
	return pipe.Eval(ctx, dropScript, []string{blobKey(hash), refsKey(hash)}, args...)
}
