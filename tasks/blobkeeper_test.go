package tasks

import (
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/rs/zerolog"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// The sweep finds what was deleted by hand, leaves what is needed or young, and
// forgets blobs that are gone.
func TestBlobKeeper_sweep(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	c := h.Client(t)
	waiting, deleted := brochure(1, 100_000), brochure(2, 100_000)
	h.send(3, with(waiting))
	h.queue = h.queue.With(Options{Queue: "bulk"})
	h.send(450, with(waiting, deleted))
	if _, err := inspect(t, h.Server).DeleteAllPendingTasks("bulk"); err != nil {
		t.Fatal(err)
	}
	k := h.keeper()
	if err := k.sweep(t.Context(), time.Now().Add(-sweepGrace)); err != nil {
		t.Fatal(err)
	}
	h.wantBlob(deleted, 450) // too young to tell
	if err := k.sweep(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	h.wantBlob(waiting, 3)
	h.wantBlob(deleted, 0)

	if err := c.Del(t.Context(), blobKey(hashOf(deleted))).Err(); err != nil { // as if an hour had passed
		t.Fatal(err)
	}
	if err := k.sweep(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if left := c.ZRange(t.Context(), blobIndex, 0, -1).Val(); len(left) != 1 || left[0] != hashOf(waiting) {
		t.Errorf("index %v, want the blob that is needed alone", left)
	}
}

// One worker sweeps at a time.
func TestBlobKeeper_trySweep(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	count := &tally{}
	k := newBlobKeeper(count.watch(h.Client(t)), 1<<20, zerolog.Nop())
	k.trySweep(t.Context())
	k.trySweep(t.Context())
	if n := count.of("zscan"); n != 1 {
		t.Errorf("swept %d times, want once", n)
	}
}

// References of tasks that asynq has not ended yet stay.
func TestBlobKeeper_waitsForTheTasksEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	content := brochure(1, 100_000)
	h.send(1, with(content))
	info := pending(t, h.Server, "default")[0]
	p, err := wire.Decode(info.Payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	k := h.keeper()
	k.done(&ticket{key: taskKey("default", info.ID), payload: p})
	k.dropEnded(t.Context())
	h.wantBlob(content, 1)
	if err := inspect(t, h.Server).DeleteTask("default", info.ID); err != nil {
		t.Fatal(err)
	}
	k.dropEnded(t.Context())
	h.wantBlob(content, 0)
	if len(k.ended) > 0 {
		t.Errorf("%d still to be dropped", len(k.ended))
	}
}

func pending(t *testing.T, s *redistest.Server, queue string) []*asynq.TaskInfo {
	t.Helper()
	list, err := inspect(t, s).ListPendingTasks(queue)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
