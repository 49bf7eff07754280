package tasks

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// blobKeeper is the worker's part in the life of blobs: it fetches them, drops the
// references of tasks that have ended, and sweeps up what others have left behind.
type blobKeeper struct {
	redis redis.UniversalClient
	cache *blobCache
	log   zerolog.Logger
	away  atomic.Bool // Redis did not answer; said once

	mu    sync.Mutex
	ended []endedTask
}

// endedTask is a task whose handler is done with it, and which asynq is about to end.
type endedTask struct {
	key   string
	refs  map[string][]string
	looks int
}

const (
	// dropInterval is how often references are dropped: together, after asynq has ended
	// their tasks. A task that asynq has not ended yet may come back and need its blobs.
	dropInterval = 2 * time.Second
	maxLooks     = 30 // then the sweep has to do it

	sweepInterval = 5 * time.Minute
	sweepLock     = "mailpouch:blobs:sweep" // one worker sweeps at a time
	// sweepGrace is the age before which a reference is not looked at: its task may
	// not be there yet.
	sweepGrace = 10 * time.Minute
)

func newBlobKeeper(client redis.UniversalClient, cacheSize int, log zerolog.Logger) *blobKeeper {
	return &blobKeeper{redis: client, cache: newBlobCache(client, cacheSize), log: log}
}

// fill puts the contents of its blobs into a payload's message. A fault of a blob is an
// error of class Permanent. While Redis is away it waits until ctx ends, and then the
// class is Unavailable.
func (k *blobKeeper) fill(ctx context.Context, p *wire.Payload) error {
	if len(p.Blobs) == 0 {
		return nil
	}
	contents := map[wire.Blob][]byte{}
	for _, b := range p.Blobs {
		content, err := k.content(ctx, p, b)
		if err != nil {
			return err
		}
		contents[b] = content
	}
	p.Message = p.WithContents(func(b wire.Blob) []byte { return contents[b] })
	return nil
}

func (k *blobKeeper) content(ctx context.Context, p *wire.Payload, b wire.Blob) ([]byte, error) {
	for {
		content, fault, err := k.cache.get(ctx, b)
		switch {
		case fault != "":
			return nil, &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: lost(p, b, fault)}
		case err == nil:
			k.away.Store(false)
			return content, nil
		case ctx.Err() != nil:
			return nil, err
		}
		if !k.away.Swap(true) {
			k.log.Error().Err(err).Msg("big attachments and bodies cannot be fetched: their mail waits until Redis answers")
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(probeMin):
		}
	}
}

// done notes that a task needs its blobs no more, once asynq has ended it.
func (k *blobKeeper) done(t *ticket) {
	if t.payload == nil || len(t.payload.Blobs) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = append(k.ended, endedTask{key: t.key, refs: refsOf(t.payload.Meta, t.key)})
}

// run drops and sweeps until ctx ends, and drops once more then.
func (k *blobKeeper) run(ctx context.Context) {
	drop, sweep := time.NewTicker(dropInterval), time.NewTicker(sweepInterval)
	defer drop.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), givingBack)
			k.dropEnded(last)
			cancel()
			return
		case <-drop.C:
			k.dropEnded(ctx)
		case <-sweep.C:
			k.trySweep(ctx)
		}
	}
}

// dropEnded drops the references of the tasks that asynq has ended meanwhile.
func (k *blobKeeper) dropEnded(ctx context.Context) {
	k.mu.Lock()
	tasks := k.ended
	k.ended = nil
	k.mu.Unlock()
	var waiting []endedTask
	for len(tasks) > 0 {
		some := tasks[:min(len(tasks), 1000)]
		tasks = tasks[len(some):]
		waiting = append(waiting, k.dropSome(ctx, some)...)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = append(k.ended, waiting...)
}

// dropSome returns the tasks to be looked at again.
func (k *blobKeeper) dropSome(ctx context.Context, tasks []endedTask) (waiting []endedTask) {
	states := make([]*redis.StringCmd, len(tasks))
	_, err := k.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, t := range tasks {
			states[i] = pipe.HGet(ctx, t.key, "state")
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return again(tasks)
	}
	over := map[string][]string{}
	var ended []endedTask
	for i, t := range tasks {
		if !hasEnded(states[i]) {
			waiting = append(waiting, t)
			continue
		}
		ended = append(ended, t)
		for hash, refs := range t.refs {
			over[hash] = append(over[hash], refs...)
		}
	}
	waiting = again(waiting)
	if dropRefs(ctx, k.redis, over) != nil {
		waiting = append(waiting, again(ended)...)
	}
	return waiting
}

// hasEnded reads the answer about a task's state: it is gone, or kept to be looked at.
func hasEnded(answer *redis.StringCmd) bool {
	state, err := answer.Result()
	return errors.Is(err, redis.Nil) || err == nil && state == "completed"
}

// again leaves out what was looked at too often.
func again(tasks []endedTask) []endedTask {
	var rest []endedTask
	for _, t := range tasks {
		if t.looks++; t.looks < maxLooks {
			rest = append(rest, t)
		}
	}
	return rest
}

// trySweep sweeps, unless another worker does.
func (k *blobKeeper) trySweep(ctx context.Context) {
	mine, err := k.redis.SetNX(ctx, sweepLock, "1", sweepInterval-dropInterval).Result()
	if err != nil || !mine {
		return
	}
	if err := k.sweep(ctx, time.Now().Add(-sweepGrace)); err != nil && ctx.Err() == nil {
		k.log.Warn().Err(err).Msg("references to attachments: tried again later")
	}
}

// sweep drops the references from before a time whose tasks have ended or are gone:
// deleted by hand, or never enqueued because their producer died.
func (k *blobKeeper) sweep(ctx context.Context, before time.Time) error {
	var cursor uint64
	for {
		list, next, err := k.redis.ZScan(ctx, blobIndex, cursor, "", 200).Result()
		if err != nil {
			return unavailable(err)
		}
		var pages []refPage
		for i := 0; i < len(list); i += 2 { // members and scores in turn
			pages = append(pages, refPage{hash: list[i]})
		}
		for len(pages) > 0 {
			if pages, err = k.sweepPages(ctx, pages, before.UnixMilli()); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// refPage is some of the references to a blob, from an offset on.
type refPage struct {
	hash   string
	offset int64
	refs   []string
	states []*redis.StringCmd // of the task of each
	drop   *redis.Cmd
}

const refPageSize = 200

// sweepPages returns the pages that follow.
func (k *blobKeeper) sweepPages(ctx context.Context, pages []refPage, before int64) (more []refPage, err error) {
	if err := k.readPages(ctx, pages, before); err != nil {
		return nil, err
	}
	_, err = k.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range pages {
			for _, ref := range pages[i].refs {
				pages[i].states = append(pages[i].states, pipe.HGet(ctx, refTask(ref), "state"))
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, unavailable(err)
	}
	_, err = k.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range pages {
			p := &pages[i]
			dead := p.dead()
			p.drop = evalDrop(ctx, pipe, p.hash, dead)
			if len(p.refs) == refPageSize {
				more = append(more, refPage{hash: p.hash, offset: p.offset + int64(len(p.refs)-len(dead))})
			}
		}
		return nil
	})
	if err != nil {
		return nil, unavailable(err)
	}
	return more, k.forget(ctx, pages, before)
}

func (k *blobKeeper) readPages(ctx context.Context, pages []refPage, before int64) error {
	lists := make([]*redis.StringSliceCmd, len(pages))
	_, err := k.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, p := range pages {
			lists[i] = pipe.ZRangeByScore(ctx, refsKey(p.hash), &redis.ZRangeBy{
				Min: "-inf", Max: strconv.FormatInt(before, 10), Offset: p.offset, Count: refPageSize,
			})
		}
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	for i := range pages {
		pages[i].refs = lists[i].Val()
	}
	return nil
}

// dead is the references whose tasks have ended.
func (p *refPage) dead() []string {
	var dead []string
	for i, ref := range p.refs {
		if hasEnded(p.states[i]) {
			dead = append(dead, ref)
		}
	}
	return dead
}

// forgetScript takes a hash out of the index unless it was handed over again meanwhile.
const forgetScript = `
local score = redis.call("ZSCORE", KEYS[1], ARGV[1])
if score and tonumber(score) <= tonumber(ARGV[2]) then redis.call("ZREM", KEYS[1], ARGV[1]) end
return 0`

// forget takes the blobs that have expired out of the index.
func (k *blobKeeper) forget(ctx context.Context, pages []refPage, before int64) error {
	_, err := k.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, p := range pages {
			if gone, _ := p.drop.Int(); gone == 1 {
				pipe.Eval(ctx, forgetScript, []string{blobIndex}, p.hash, before)
			}
		}
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	return nil
}
