package blobstore

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// endedTask is a task whose handler is done with it, and which asynq is about to end.
type endedTask struct {
	ref    string
	hashes []string
	looks  int
}

const (
	// dropInterval is how often references are dropped: together, after asynq has ended
	// their tasks. A task that asynq has not ended yet may come back and need its blobs.
	dropInterval = 2 * time.Second
	maxLooks     = 30 // then the sweep has to do it

	lastDrop = time.Second // how long dropping may take when the worker ends

	sweepInterval = 5 * time.Minute
	sweepLock     = "mailpouch:blobs:sweep" // one worker sweeps at a time
	// sweepGrace is the age before which a reference is not looked at: its task may
	// not be there yet.
	sweepGrace = 10 * time.Minute
)

// Ended notes that the task of a reference needs these contents no more, once asynq has ended
// it. Run drops the reference then.
func (s *Store) Ended(ref string, hashes []string) {
	if len(hashes) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, endedTask{ref: ref, hashes: hashes})
}

// Run is the worker's part in the life of blobs: it drops the references of tasks that have
// ended, and sweeps up what others have left behind. It does so until ctx ends, and drops once
// more then.
func (s *Store) Run(ctx context.Context) {
	drop, sweep := time.NewTicker(dropInterval), time.NewTicker(sweepInterval)
	defer drop.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastDrop)
			s.dropEnded(last)
			cancel()
			return
		case <-drop.C:
			s.dropEnded(ctx)
		case <-sweep.C:
			s.trySweep(ctx)
		}
	}
}

// dropEnded drops the references of the tasks that asynq has ended meanwhile.
func (s *Store) dropEnded(ctx context.Context) {
	s.mu.Lock()
	tasks := s.ended
	s.ended = nil
	s.mu.Unlock()
	var waiting []endedTask
	for len(tasks) > 0 {
		some := tasks[:min(len(tasks), 1000)]
		tasks = tasks[len(some):]
		waiting = append(waiting, s.dropSome(ctx, some)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, waiting...)
}

// dropSome returns the tasks to be looked at again.
func (s *Store) dropSome(ctx context.Context, tasks []endedTask) (waiting []endedTask) {
	states := make([]*redis.StringCmd, len(tasks))
	_, err := s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, t := range tasks {
			states[i] = pipe.HGet(ctx, taskOf(t.ref), "state")
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
		for _, hash := range t.hashes {
			over[hash] = append(over[hash], t.ref)
		}
	}
	waiting = again(waiting)
	if s.drop(ctx, over) != nil {
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
func (s *Store) trySweep(ctx context.Context) {
	mine, err := s.redis.SetNX(ctx, sweepLock, "1", sweepInterval-dropInterval).Result()
	if err != nil || !mine {
		return
	}
	if err := s.Sweep(ctx, time.Now().Add(-sweepGrace)); err != nil && ctx.Err() == nil {
		s.log.Warn().Err(err).Msg("references to attachments: tried again later")
	}
}

// Sweep drops the references from before a time whose tasks have ended or are gone:
// deleted by hand, or never enqueued because their producer died.
func (s *Store) Sweep(ctx context.Context, before time.Time) error {
	var cursor uint64
	for {
		list, next, err := s.redis.ZScan(ctx, index, cursor, "", 200).Result()
		if err != nil {
			return redisconn.Unavailable(err)
		}
		var pages []refPage
		for i := 0; i < len(list); i += 2 { // members and scores in turn
			pages = append(pages, refPage{hash: list[i]})
		}
		for len(pages) > 0 {
			if pages, err = s.sweepPages(ctx, pages, before.UnixMilli()); err != nil {
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
func (s *Store) sweepPages(ctx context.Context, pages []refPage, before int64) (more []refPage, err error) {
	if err := s.readPages(ctx, pages, before); err != nil {
		return nil, err
	}
	_, err = s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range pages {
			for _, ref := range pages[i].refs {
				pages[i].states = append(pages[i].states, pipe.HGet(ctx, taskOf(ref), "state"))
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, redisconn.Unavailable(err)
	}
	_, err = s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
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
		return nil, redisconn.Unavailable(err)
	}
	return more, s.forget(ctx, pages, before)
}

func (s *Store) readPages(ctx context.Context, pages []refPage, before int64) error {
	lists := make([]*redis.StringSliceCmd, len(pages))
	_, err := s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, p := range pages {
			lists[i] = pipe.ZRangeByScore(ctx, refsKey(p.hash), &redis.ZRangeBy{
				Min: "-inf", Max: strconv.FormatInt(before, 10), Offset: p.offset, Count: refPageSize,
			})
		}
		return nil
	})
	if err != nil {
		return redisconn.Unavailable(err)
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
func (s *Store) forget(ctx context.Context, pages []refPage, before int64) error {
	_, err := s.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, p := range pages {
			if gone, _ := p.drop.Int(); gone == 1 {
				pipe.Eval(ctx, forgetScript, []string{index}, p.hash, before)
			}
		}
		return nil
	})
	if err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}
