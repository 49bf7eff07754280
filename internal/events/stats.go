package events

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// Stats is what is known of the events of a queue.
type Stats struct {
	Queue  string // as asynq has it
	Bytes  int64  // that they take in Redis, about
	Unread int64  // events that went before all groups had acknowledged them, since the stream began

	// Oldest is by group the time of the oldest event that it has not acknowledged. A group that has acknowledged all has the zero time.
	Oldest map[string]time.Time
}

// ReadStats returns what is known of the events of queues that have some, or had, in two round trips.
func ReadStats(ctx context.Context, client redis.UniversalClient, queues []string) ([]Stats, error) {
	states, groups := make([]*redis.SliceCmd, len(queues)), make([]*redis.XInfoGroupsCmd, len(queues))
	pipe := client.Pipeline()
	for i, queue := range queues {
		states[i] = pipe.HMGet(ctx, stateKey(queue), fieldBytes, fieldUnread)
		groups[i] = pipe.XInfoGroups(ctx, Key(queue))
	}
	if _, err := pipe.Exec(ctx); err != nil && !noStream(err) {
		return nil, redisconn.Unavailable(err)
	}
	var all []Stats
	oldest := map[*redis.XMessageSliceCmd]func(time.Time){}
	pending := map[*redis.XPendingCmd]func(time.Time){}
	pipe = client.Pipeline()
	for i, queue := range queues {
		fields := states[i].Val()
		if len(fields) != 2 || fields[0] == nil {
			continue
		}
		s := Stats{Queue: queue, Oldest: map[string]time.Time{}}
		s.Bytes, s.Unread = number(fields[0]), number(fields[1])
		all = append(all, s)
		for _, g := range groups[i].Val() {
			s.Oldest[g.Name] = time.Time{}
			note := func(at time.Time) {
				if was := s.Oldest[g.Name]; was.IsZero() || at.Before(was) {
					s.Oldest[g.Name] = at
				}
			}
			oldest[pipe.XRangeN(ctx, Key(queue), "("+g.LastDeliveredID, "+", 1)] = note
			pending[pipe.XPending(ctx, Key(queue), g.Name)] = note
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !noStream(err) {
		return nil, redisconn.Unavailable(err)
	}
	for answer, note := range oldest {
		for _, m := range answer.Val() {
			note(timeOf(m.ID))
		}
	}
	for answer, note := range pending {
		if p := answer.Val(); p != nil && p.Count > 0 {
			note(timeOf(p.Lower))
		}
	}
	return all, nil
}

// noStream reports whether Redis has answered, and one of the queues has no events.
func noStream(err error) bool {
	return errors.Is(err, redis.Nil) || strings.HasPrefix(err.Error(), "ERR no such key") || strings.HasPrefix(err.Error(), "NOGROUP")
}

func number(value any) int64 {
	text, _ := value.(string)
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// timeOf is when the entry with an ID was written.
func timeOf(id string) time.Time {
	ms, _, _ := strings.Cut(id, "-")
	n, _ := strconv.ParseInt(ms, 10, 64)
	return time.UnixMilli(n).UTC()
}
