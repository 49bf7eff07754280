package tasks

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

const (
	defaultMemory = 256_000_000

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

	smallToRead  = 64_000
	smallMessage = smallToRead * textCost
	smallBulk    = maxBulkBytes * textCost // is what most bulk tasks have together
)

// cacheSize is how many bytes of blobs a worker keeps in memory.
func cacheSize(memory int) int {
	if memory < 0 {
		return defaultMemory / cacheShare
	}
	return memory / cacheShare
}

// newBudgets divides the memory, first among all mailers, and then of each by the
// connections that its two channels have for themselves.
func newBudgets(memory, mailers, connections int, hasPriority bool) (normal, priority *budget) {
	if memory < 0 {
		return nil, nil
	}
	all := (memory - cacheSize(memory)) / mailers
	if !hasPriority {
		return newBudget(all), nil
	}
	part := all / (connections + 1)
	return newBudget(all - part), newBudget(part)
}

// budget is so many bytes of memory, a semaphore. Nil has no limit.
type budget struct {
	size int64
	left *semaphore.Weighted
}

func newBudget(octets int) *budget {
	size := int64(max(octets, 1))
	return &budget{size: size, left: semaphore.NewWeighted(size)}
}

// take waits until there is memory for so many bytes: in their order, so that many
// small messages cannot keep a big one waiting. One that is bigger than the
// budget takes all of it. It is false if ctx ended first; otherwise release must be called.
func (b *budget) take(ctx context.Context, octets int) (release func(), ok bool) {
	if b == nil || octets == 0 {
		return func() {}, true
	}
	n := min(int64(octets), b.size)
	if b.left.Acquire(ctx, n) != nil {
		return nil, false
	}
	return func() { b.left.Release(n) }, true
}

// reservation is memory that was taken for a task before it was read. None is the zero value.
type reservation struct {
	bytes   int
	release func()
}

// covers reports whether it is enough for what the task needs.
func (r reservation) covers(need int) bool { return r.release != nil && need <= r.bytes }

// toRead is the memory that a task needs before it is read: none, but of one that is compressed and big without that.
func (t *taskMessage) toRead() int {
	payload := t.task.Payload()
	size, most := wire.Size(payload), smallToRead
	if t.name.Bulk {
		most = 2 * maxBulkBytes // with what JSON adds to it
	}
	if size == len(payload) || size <= most {
		return 0
	}
	return int(float64(size) * textCost)
}

// unread gives back what was taken to read the task.
func (t *taskMessage) unread() {
	if t.read.release != nil {
		t.read.release()
		t.read = reservation{}
	}
}

// memory is what a message takes until it is through.
func (w weight) memory() float64 {
	raw := w.fields[inRaw]
	texts := w.sum() - w.files - w.parts*partHeader
	return float64(raw)*rawCost + float64(w.files-raw)*fileCost + float64(texts)*textCost + float64(w.entries)*entryCost
}

// costOf is what a byte of a blob takes.
func costOf(b wire.Blob) float64 {
	switch {
	case b.Part == wire.PartRaw:
		return rawCost
	case b.IsText():
		return textCost
	}
	return fileCost
}
