// Package lookup finds messages, wherever they are in all queues of a Redis: in tasks, or in the history of those that have ended.
package lookup

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/pauses"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Lookup finds messages, wherever they are, in all queues of a Redis.
type Lookup struct{ redis redis.UniversalClient }

// New returns a Lookup in the given Redis, which it does not close.
func New(client redis.UniversalClient) *Lookup { return &Lookup{client} }

// Status returns what is known of a message by the ID of its task, its own ID in a task of many, or its Message-ID.
func (l *Lookup) Status(ctx context.Context, id string) (Status, error) {
	id = strings.TrimSpace(id)
	places, err := find.Queues(ctx, l.redis)
	if err != nil {
		return Status{}, err
	}
	if strings.Contains(id, "@") {
		return l.byMessageID(ctx, places, id)
	}
	return l.byID(ctx, places, id)
}

// byMessageID finds out the ID of a message, and what is known of that.
func (l *Lookup) byMessageID(ctx context.Context, places []wire.QueueName, messageID string) (Status, error) {
	want := strings.Trim(messageID, "<>")
	ids, err := l.waiting(ctx, places, want, func(p *wire.Payload) bool { return strings.Trim(p.Message.MessageID, "<>") == want })
	if err != nil {
		return Status{}, err
	}
	records, window, err := history.Search(ctx, l.redis, asynqNames(places), history.Query{MessageID: messageID, Limit: mostParts})
	if err != nil {
		return Status{}, err
	}
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	if len(ids) == 0 {
		return Status{State: StateUnknown, MessageID: messageID, Kept: window.For, Since: window.Since}, nil
	}
	// What has come of a message has an ID that begins with the message's.
	slices.SortStableFunc(ids, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
	return l.byID(ctx, places, ids[0])
}

// mostParts is how many messages are shown of a task, or found at once if the caller does not say.
const mostParts = 1000

// byID finds a message by its ID. What had no recipients has none, and is not looked for: every record's ID begins with it.
func (l *Lookup) byID(ctx context.Context, places []wire.QueueName, id string) (Status, error) {
	if id == "" {
		_, window, err := history.Search(ctx, l.redis, nil, history.Query{})
		return Status{State: StateUnknown, Kept: window.For, Since: window.Since}, err
	}
	live, err := l.live(ctx, places, id)
	if err != nil {
		return Status{}, err
	}
	records, window, err := history.Search(ctx, l.redis, asynqNames(places), history.Query{ID: id, Limit: mostParts})
	if err != nil {
		return Status{}, err
	}
	s := Status{State: StateUnknown, ID: id}
	known := map[string]bool{}
	add := func(other Status) {
		switch {
		case known[other.ID]:
		case other.ID == id:
			s = other
		default:
			s.Parts = append(s.Parts, other)
		}
		known[other.ID] = true
	}
	var last []Status // tasks that have ended, and are kept: the history says more
	for _, other := range live {
		if other.State.Ended() && other.State != StateDead {
			last = append(last, other)
		} else {
			add(other)
		}
	}
	parts := s.Parts
	for _, r := range records {
		s.Parts = nil
		add(statusOf(r))
		parts = append(parts, s.Parts...)
	}
	s.Parts = nil
	for _, other := range last {
		s.Parts = nil
		add(other)
		parts = append(parts, s.Parts...)
	}
	slices.SortStableFunc(parts, func(a, b Status) int { return compareIDs(a.ID, b.ID) })
	if s.Parts = parts; s.State == StateUnknown && len(parts) > 0 {
		s.ofParts()
	}
	s.Kept, s.Since = window.For, window.Since
	return s, nil
}

// live returns what there is of an ID among the tasks: the message's own, and what has come of it.
func (l *Lookup) live(ctx context.Context, places []wire.QueueName, id string) ([]Status, error) {
	type candidate struct {
		place wire.QueueName
		id    string
		index int // of the message in a task of many; -1: of all
	}
	var candidates []candidate
	task, index, inBulk := wire.SplitID(id)
	for _, place := range places {
		switch {
		case !place.Bulk:
			for _, suffix := range []string{"", "-later", "-refused", "-again"} {
				candidates = append(candidates, candidate{place, id + suffix, -1})
			}
		case inBulk:
			candidates = append(candidates, candidate{place, task, index})
		default:
			candidates = append(candidates, candidate{place, id, -1})
		}
	}
	var found []Status
	for some := range slices.Chunk(candidates, 1000) {
		exist := make([]*redis.IntCmd, len(some))
		_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, c := range some {
				exist[i] = p.Exists(ctx, asynqbatch.TaskKey(c.place.String(), c.id))
			}
			return nil
		})
		if err != nil {
			return nil, redisconn.Unavailable(err)
		}
		for i, c := range some {
			if exist[i].Val() == 0 {
				continue
			}
			these, err := l.task(ctx, c.place, c.id, c.index)
			if err != nil {
				return nil, err
			}
			found = append(found, these...)
		}
	}
	return found, nil
}

// task returns what there is of a task's messages: of the one with that index, or of all if that is negative.
func (l *Lookup) task(ctx context.Context, place wire.QueueName, id string, index int) ([]Status, error) {
	fields, err := l.redis.HGetAll(ctx, asynqbatch.TaskKey(place.String(), id)).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	if next := fields[wire.FieldReplayed]; next != "" { // a mark in the task's place
		s := Status{State: StateReplayed, ID: id, Queue: place.Queue, Mailer: place.Mailer, Reply: next}
		if fields[wire.FieldCancelled] != "" {
			s.State, s.Reply = StateCancelled, ""
		}
		return []Status{s}, nil
	}
	info, err := asynq.NewInspectorFromRedisClient(l.redis).GetTaskInfo(place.String(), id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return nil, nil // it has just ended
	case err != nil:
		return nil, redisconn.Unavailable(err)
	case info.Type == wire.TaskType:
		return l.whetherPaused(ctx, place, []Status{taskStatus(place, info, fields, id, "", info.Payload)})
	case info.Type != wire.TaskTypeBulk:
		return nil, nil // another program's
	}
	var all []Status
	n := 0
	for line := range wire.Lines(info.Payload) {
		if index < 0 || n == index {
			message := wire.MessageID(id, n)
			if s := taskStatus(place, info, fields, message, message[len(id):], line); s.State != "" {
				all = append(all, s)
			}
		}
		n++
	}
	return l.whetherPaused(ctx, place, all)
}

// whetherPaused tells messages that wait for their turn from those that wait until a person resumes them, whether a worker has seen that or not.
func (l *Lookup) whetherPaused(ctx context.Context, place wire.QueueName, all []Status) ([]Status, error) {
	if !slices.ContainsFunc(all, func(s Status) bool { return s.State == StateWaiting }) {
		return all, nil
	}
	paused, err := pauses.List(ctx, l.redis)
	if err != nil {
		return nil, err
	}
	for i, s := range all {
		if s.State == StateWaiting && slices.ContainsFunc(paused, func(p pauses.Pause) bool { return pauses.Covers(p.Target, place, s.Mailing) }) {
			all[i].State = StatePaused
		}
	}
	return all, nil
}

func asynqNames(places []wire.QueueName) []string {
	list := make([]string, len(places))
	for i, place := range places {
		list[i] = place.String()
	}
	return list
}

// waiting returns the IDs of messages that are in tasks, have a text in their payload, and fit.
func (l *Lookup) waiting(ctx context.Context, places []wire.QueueName, text string, fits func(*wire.Payload) bool) ([]string, error) {
	var ids []string
	for _, place := range places {
		err := find.Tasks(ctx, l.redis, place.String(), text, func(id string) error {
			more, err := l.fitting(ctx, place, id, fits)
			ids = append(ids, more...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// fitting returns the IDs of the messages of a task that fit.
func (l *Lookup) fitting(ctx context.Context, place wire.QueueName, id string, fits func(*wire.Payload) bool) ([]string, error) {
	records, err := find.Records(ctx, l.redis, id, place)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	r := records[0]
	var ids []string
	index := 0
	for line := range wire.Lines(r.Payload) {
		if p, err := wire.Decode(line, nil); err == nil && fits(p) {
			if r.Type == wire.TaskTypeBulk {
				ids = append(ids, wire.MessageID(id, index))
			} else {
				ids = append(ids, id)
			}
		}
		index++
	}
	return ids, nil
}
