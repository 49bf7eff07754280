package blobstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// enqueue makes records of n tasks of a queue, as asynq does, that hold contents. It returns
// their keys.
func enqueue(t *testing.T, s *Store, n int, queue string, contents ...[]byte) []string {
	t.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("asynq:{%s}:t:%d", queue, i)
		hold(t, s, Ref(keys[i], "token"), contents...)
		s.redis.HSet(t.Context(), keys[i], "state", "pending")
	}
	return keys
}

func newStore(t *testing.T) (*Store, *redis.Client) {
	t.Helper()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	return New(client, 1<<20, zerolog.Nop()), client
}

// The sweep finds what was deleted by hand, leaves what is needed or young, and
// forgets blobs that are gone.
func TestStore_sweep(t *testing.T) {
	t.Parallel()
	s, client := newStore(t)
	waiting, deleted := brochure(1), brochure(2)
	enqueue(t, s, 3, "default", waiting)
	client.Del(t.Context(), enqueue(t, s, 450, "bulk", waiting, deleted)...)
	if err := s.Sweep(t.Context(), time.Now().Add(-sweepGrace)); err != nil {
		t.Fatal(err)
	}
	wantRefs(t, client, deleted, 450) // too young to tell
	if err := s.Sweep(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	wantRefs(t, client, waiting, 3)
	wantRefs(t, client, deleted, 0)

	if err := client.Del(t.Context(), blobKey(Hash(deleted))).Err(); err != nil { // as if an hour had passed
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if left := client.ZRange(t.Context(), index, 0, -1).Val(); len(left) != 1 || left[0] != Hash(waiting) {
		t.Errorf("index %v, want the blob that is needed alone", left)
	}
}

// One worker sweeps at a time.
func TestStore_trySweep(t *testing.T) {
	t.Parallel()
	s, client := newStore(t)
	content := brochure(1)
	client.Del(t.Context(), enqueue(t, s, 1, "default", content)...)
	client.ZAdd(t.Context(), refsKey(Hash(content)), redis.Z{Member: Ref("asynq:{default}:t:0", "token")}) // long ago
	s.trySweep(t.Context())
	wantRefs(t, client, content, 0)
	client.ZAdd(t.Context(), refsKey(Hash(content)), redis.Z{Member: Ref("asynq:{default}:t:0", "token")})
	s.trySweep(t.Context())
	if n := client.ZCard(t.Context(), refsKey(Hash(content))).Val(); n != 1 {
		t.Error("swept twice, want once")
	}
}

// References of tasks that asynq has not ended yet stay.
func TestStore_waitsForTheTasksEnd(t *testing.T) {
	t.Parallel()
	s, client := newStore(t)
	content := brochure(1)
	key := enqueue(t, s, 1, "default", content)[0]
	s.Ended(Ref(key, "token"), []string{Hash(content)})
	s.dropEnded(t.Context())
	wantRefs(t, client, content, 1)
	client.Del(t.Context(), key)
	s.dropEnded(t.Context())
	wantRefs(t, client, content, 0)
	if len(s.ended) > 0 {
		t.Errorf("%d still to be dropped", len(s.ended))
	}
}
