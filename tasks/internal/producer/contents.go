package producer

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/blobstore"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Contents are the big contents of messages: those that wait beside the queue, and are named
// by the blobs of a payload.
type Contents struct{ store *blobstore.Store }

// NewContents returns the contents in a Redis, of which so many bytes stay in memory after
// their use.
func NewContents(client redis.UniversalClient, cacheSize int, log zerolog.Logger) Contents {
	return Contents{blobstore.New(client, cacheSize, log)}
}

// Run keeps the store until ctx ends: see blobstore.Store.Run.
func (c Contents) Run(ctx context.Context) { c.store.Run(ctx) }

// Hold makes sure of the contents of a payload for the task at taskKey, and returns the
// payload with the reference in it.
func (c Contents) Hold(ctx context.Context, p *wire.Payload, taskKey string) (*wire.Payload, error) {
	if len(p.Blobs) == 0 {
		return p, nil
	}
	held := *p
	held.BlobRef = rand.Text()[:10]
	// The caller gets its message back when ctx ends, though Redis may not have all of it yet: so what is written is a
	// copy, and none is made after that.
	var mu sync.Mutex
	over := false
	list := make([]blobstore.Content, len(p.Blobs))
	for i, b := range p.Blobs {
		list[i] = blobstore.Content{Blob: blobOf(b), Bytes: func() []byte {
			mu.Lock()
			defer mu.Unlock()
			if over {
				return nil // which is not stored: ctx has ended
			}
			return bytes.Clone(b.Of(p.Message))
		}}
	}
	_, err := redisconn.Within(ctx, func() (struct{}, error) {
		return struct{}{}, c.store.Hold(ctx, blobstore.Ref(taskKey, held.BlobRef), list)
	})
	mu.Lock()
	over = true
	mu.Unlock()
	var fault *blobstore.FaultError
	if errors.As(err, &fault) {
		return nil, lostPart(p, fault)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = redisconn.Unavailable(err)
	}
	if err != nil {
		return nil, err
	}
	return &held, nil
}

// Fill puts the contents of its blobs into a payload's message. That one is lost is an
// error of class Permanent. While Redis is away it waits until ctx ends, and then the
// class is Unavailable.
func (c Contents) Fill(ctx context.Context, p *wire.Payload) error {
	if len(p.Blobs) == 0 {
		return nil
	}
	found := map[wire.Blob][]byte{}
	for _, b := range p.Blobs {
		content, err := c.store.Get(ctx, blobOf(b))
		var fault *blobstore.FaultError
		if errors.As(err, &fault) {
			return lostPart(p, fault)
		}
		if err != nil {
			return err
		}
		found[b] = content
	}
	p.Message = p.WithContents(func(b wire.Blob) []byte { return found[b] })
	return nil
}

// Ended notes that the task at taskKey needs its contents no more, once asynq has ended it.
func (c Contents) Ended(taskKey string, p *wire.Payload) {
	if p != nil {
		c.store.Ended(blobstore.Ref(taskKey, p.BlobRef), p.Hashes())
	}
}

// Drop drops the references of the task at taskKey to its contents at once. Where that fails a worker's sweep does it.
func (c Contents) Drop(ctx context.Context, taskKey string, p *wire.Payload) {
	if len(p.Blobs) > 0 {
		_ = c.store.Drop(ctx, blobstore.Ref(taskKey, p.BlobRef), p.Hashes())
	}
}

// FillFound is Fill for people: it puts in what there is, and names what is missing.
func (c Contents) FillFound(ctx context.Context, p *wire.Payload) (missing []string, err error) {
	list := make([]blobstore.Blob, len(p.Blobs))
	for i, b := range p.Blobs {
		list[i] = blobOf(b)
	}
	found, faults, err := c.store.Read(ctx, list)
	if err != nil {
		return nil, err
	}
	for i, b := range p.Blobs {
		b.Put(p.Message, found[i])
		if faults[i] != nil {
			missing = append(missing, lost(p, b, faults[i]).Error())
		}
	}
	return missing, nil
}

// rawBeginning is enough for most headers.
const rawBeginning = 16 << 10

// BeginRaw puts in the beginning of a raw message, if it is there.
func (c Contents) BeginRaw(ctx context.Context, p *wire.Payload) {
	for _, b := range p.Blobs {
		if b.Part != wire.PartRaw {
			continue
		}
		if head, err := c.store.Head(ctx, b.Hash, rawBeginning); err == nil {
			b.Put(p.Message, head)
		}
	}
}

// blobOf is a blob as the store has it.
func blobOf(b wire.Blob) blobstore.Blob { return blobstore.Blob{Hash: b.Hash, Size: b.Size} }

// lostPart is the error of a message of which a content is lost.
func lostPart(p *wire.Payload, fault *blobstore.FaultError) error {
	for _, b := range p.Blobs {
		if blobOf(b) == fault.Blob {
			return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: lost(p, b, fault)}
		}
	}
	return fault
}

// lost says of which part of a message the content is lost.
func lost(p *wire.Payload, b wire.Blob, fault error) error {
	return fmt.Errorf("%s: %w", b.Name(p.Message), fault)
}
