package weight

import (
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// A worker has hundreds of messages in flight, which is nothing as long as they are small.
// Big ones wait, without their contents, until there is memory for them: each takes of
// a budget what it will need before its contents are fetched, and gives that back when it is
// through. What is small takes nothing and never waits behind what is big: it is bounded
// by the number of tasks.
//
// Each channel of a mailer has a budget of its own. A relay that takes nothing cannot use
// up the memory for the mail of another one, nor bulk mail that for priority mail.

// DefaultMemory is how many bytes of messages a worker has in memory, if it is not told otherwise.
const DefaultMemory = 256_000_000

// MaxBulk bounds a bulk task: asynq writes the payload of an active task to Redis
// every few seconds, and a worker holds all its messages in memory.
const MaxBulk = 1 << 20

// What takes no more than this waits for no memory: a message whose contents ride in its task, and what most bulk tasks have
// together.
const (
	SmallMessage = smallPayload * textCost
	SmallBulk    = MaxBulk * textCost
)

const (
	smallPayload = 64_000

	// cacheShare is the part of the memory that blobs may stay in after their use.
	cacheShare = 8

	// What a byte of content takes until its message is through. Of a file: itself, and
	// base64. Of a text: itself as it was fetched and as it is in the message, once more
	// while that is rendered, and what becomes of it. Of a raw message: itself and as it is
	// sent, which is up to three times as much if it has to be encoded anew.
	fileCost = 2.5
	textCost = 4.5
	rawCost  = 4.0

	// What an address or a header field takes beside its bytes, which are a text: its places
	// in the lists of the message, of the envelope and of what is written, and in the sets that
	// find those that are there twice.
	entryCost = 150
)

// CacheSize is how many bytes of blobs a worker keeps in memory.
func CacheSize(memory int) int {
	if memory < 0 {
		return DefaultMemory / cacheShare
	}
	return memory / cacheShare
}

// NewBudgets divides the memory, first among all mailers, and then of each by the
// connections that its two channels have for themselves.
func NewBudgets(memory, mailers, connections int, hasPriority bool) (normal, priority *Budget) {
	if memory < 0 {
		return nil, nil
	}
	all := (memory - CacheSize(memory)) / mailers
	if !hasPriority {
		return newBudget(all), nil
	}
	part := all / (connections + 1)
	return newBudget(all - part), newBudget(part)
}

// Budget is so many bytes of memory, a semaphore. Nil has no limit.
type Budget struct {
	size int64
	left *semaphore.Weighted
}

func newBudget(octets int) *Budget {
	size := int64(max(octets, 1))
	return &Budget{size: size, left: semaphore.NewWeighted(size)}
}

// Take waits until there is memory for so many bytes: in their order, so that many
// small messages cannot keep a big one waiting. One that is bigger than the
// budget takes all of it. It is false if ctx ended first; otherwise release must be called.
func (b *Budget) Take(ctx context.Context, octets int) (release func(), ok bool) {
	if b == nil || octets == 0 {
		return func() {}, true
	}
	n := min(int64(octets), b.size)
	if b.left.Acquire(ctx, n) != nil {
		return nil, false
	}
	return func() { b.left.Release(n) }, true
}

// ToRead is the memory that a task takes before it is read: none, but one that is compressed, and big without that. Of that it cannot be
// told yet what is a message.
func ToRead(payload []byte, bulk bool) int {
	size, most := wire.Size(payload), smallPayload
	if bulk {
		most = 2 * MaxBulk // with what JSON adds to it
	}
	if size == len(payload) || size <= most {
		return 0
	}
	return int(float64(size) * textCost)
}

// Reservation is memory that was taken for a task before it was read. None is the zero value.
type Reservation struct {
	bytes   int
	release func()
}

// Reserve takes so many bytes as Take does.
func (b *Budget) Reserve(ctx context.Context, bytes int) (r Reservation, ok bool) {
	release, ok := b.Take(ctx, bytes)
	return Reservation{bytes, release}, ok
}

// Covers reports whether it is enough for what the task takes.
func (r Reservation) Covers(need int) bool { return r.release != nil && need <= r.bytes }

// Release gives it back. Doing it twice does it once.
func (r *Reservation) Release() {
	if r.release != nil {
		r.release()
		*r = Reservation{}
	}
}

// Memory is what a message takes until it is through, in bytes. What is in blobs is not in it: see CostOf.
func (w *Weight) Memory() float64 {
	raw := w.fields[inRaw]
	texts := w.Fields() - w.files
	return float64(raw)*rawCost + float64(w.files-raw)*fileCost + float64(texts)*textCost + float64(w.entries)*entryCost
}

// CostOf is what a byte of a blob takes.
func CostOf(b wire.Blob) float64 {
	switch {
	case b.Part == wire.PartRaw:
		return rawCost
	case b.IsText():
		return textCost
	}
	return fileCost
}
