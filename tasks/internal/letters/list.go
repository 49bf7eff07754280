package letters

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
)

// list is all messages that failed and are in one state of asynq's: dead letters, or those that are tried again.
type list struct {
	redis    redis.UniversalClient
	contents producer.Contents
	state    string
	places   func(ctx context.Context, queue string) iter.Seq2[place, error] // of a queue's, oldest first
}

// Letters are read so many at a time: fewer if those before were big.
const (
	mostRead  = 200
	bytesRead = 256 << 10
)

// queues are those of asynq's queues, sorted, in which there may be letters that a filter means.
func (s list) queues(ctx context.Context, f Filter) ([]string, error) {
	all, err := s.redis.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	slices.Sort(all)
	return slices.DeleteFunc(all, func(q string) bool { return !f.HasQueue(q) }), nil
}

// each yields the letters that a filter means. Messages are decoded if decoded says so, or the filter has to look into
// them and means the letter but for that.
func (s list) each(ctx context.Context, f Filter, decoded bool) iter.Seq2[*DeadLetter, error] {
	return func(yield func(*DeadLetter, error) bool) {
		queues, err := s.queues(ctx, f)
		if err != nil {
			yield(nil, err)
			return
		}
		outside := f.withoutMessage()
		for _, queue := range queues {
			for l, err := range s.read(ctx, queue) {
				if err != nil {
					yield(nil, err)
					return
				}
				if !outside.matches(l) {
					continue
				}
				if f.reads() || decoded {
					l.decode()
					s.beginRaw(ctx, l)
				}
				if f.matches(l) && !yield(l, nil) {
					return
				}
			}
		}
	}
}

// read yields all letters of a queue, not decoded.
func (s list) read(ctx context.Context, queue string) iter.Seq2[*DeadLetter, error] {
	return func(yield func(*DeadLetter, error) bool) {
		most := 10
		var some []place
		flush := func() bool {
			letters, err := readLetters(ctx, s.redis, s.state, some)
			if err != nil {
				yield(nil, err)
				return false
			}
			size := 0
			for i, l := range letters {
				letters[i] = nil // who has it may keep it; this list does not
				if l == nil {    // replayed, deleted or sent meanwhile
					continue
				}
				size += len(l.Payload)
				if !yield(l, nil) {
					return false
				}
			}
			most = min(max(bytesRead/(size/len(some)+1), 1), mostRead)
			some = some[:0]
			return true
		}
		for at, err := range s.places(ctx, queue) {
			if err != nil {
				yield(nil, err)
				return
			}
			if some = append(some, at); len(some) >= most && !flush() {
				return
			}
		}
		if len(some) > 0 {
			flush()
		}
	}
}

// one reads the letter in a place, or returns nil.
func (s list) one(ctx context.Context, at place) (*DeadLetter, error) {
	letters, err := readLetters(ctx, s.redis, s.state, []place{at})
	if err != nil || letters[0] == nil {
		return nil, err
	}
	letters[0].decode()
	s.beginRaw(ctx, letters[0])
	return letters[0], nil
}

// complete reads what lists leave out of a letter.
func (s list) complete(ctx context.Context, l *DeadLetter) error {
	if err := l.readHistory(ctx, s.redis); err != nil || l.blobs == nil {
		return err
	}
	missing, err := s.contents.FillFound(ctx, l.blobs)
	if err != nil {
		return err
	}
	l.Missing, l.blobs = missing, nil
	return nil
}

// beginRaw fills in the beginning of a raw message that is a blob, if it is there.
func (s list) beginRaw(ctx context.Context, l *DeadLetter) {
	if l.blobs != nil {
		s.contents.BeginRaw(ctx, l.blobs)
	}
}

// Survey is how many messages failed for which reason.
type Survey struct {
	Total  int
	Groups []ReasonCount // the most frequent ones first
	Others int           // messages of further groups, of which there are too many

	Newest []*DeadLetter // as DeadLetters.Summary has them, those that failed last first
}

// ReasonCount is the messages of one ReasonGroup.
type ReasonCount struct {
	Group  string         `json:"reason"`
	Count  int            `json:"count"`
	Queues map[string]int `json:"queues"` // how many are in each of asynq's queues
	Newest time.Time      `json:"newest"` // when the newest failed last
}

// maxGroups is how many groups a survey tells apart: each reason may be another one.
const maxGroups = 1000

// survey goes through all letters once. It remembers where the newest ones are, and reads those anew.
func (s list) survey(ctx context.Context, f Filter, newest int) (Survey, error) {
	var found Survey
	type failed struct {
		place
		at time.Time
	}
	var recent []failed
	byTime := func(a, b failed) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.id, b.id)) }
	groups := map[string]*ReasonCount{}
	for l, err := range s.each(ctx, f, false) {
		if err != nil {
			return found, err
		}
		found.Total++
		if recent = append(recent, failed{place{l.Queue, l.ID, l.score}, l.At}); len(recent) > 2*newest+100 {
			slices.SortFunc(recent, byTime)
			recent = recent[:newest]
		}
		name := f.group(l)
		g := groups[name]
		if g == nil && len(groups) == maxGroups {
			found.Others++
			continue
		}
		if g == nil {
			g = &ReasonCount{Group: name, Queues: map[string]int{}}
			groups[name] = g
		}
		g.Count++
		g.Queues[l.Queue]++
		if l.At.After(g.Newest) {
			g.Newest = l.At
		}
	}
	for _, g := range groups {
		found.Groups = append(found.Groups, *g)
	}
	slices.SortFunc(found.Groups, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Group, b.Group))
	})
	slices.SortFunc(recent, byTime)
	for some := range slices.Chunk(recent[:min(newest, len(recent))], 10) {
		places := make([]place, len(some))
		for i, f := range some {
			places[i] = f.place
		}
		letters, err := readLetters(ctx, s.redis, s.state, places)
		if err != nil {
			return found, err
		}
		for _, l := range letters {
			if l != nil {
				l.decode()
				s.beginRaw(ctx, l)
				found.Newest = append(found.Newest, l)
			}
		}
	}
	return found, nil
}

// memberPage is how many members of a set are asked for in a round trip.
const memberPage = 500

// eachMember yields the members of a sorted set in their order, up to what is last in it now. What has its place in the
// set all the while is yielded once, whatever is added and removed: a page begins where the one before has ended by the
// order of the members, and their numbers are only where it is looked for.
func eachMember(ctx context.Context, client redis.UniversalClient, key string) iter.Seq2[redis.Z, error] {
	return func(yield func(redis.Z, error) bool) {
		last, err := client.ZRangeWithScores(ctx, key, -1, -1).Result()
		if err != nil {
			yield(redis.Z{}, redisconn.Unavailable(err))
			return
		}
		if len(last) == 0 {
			return
		}
		var end *redis.Z // of what has been yielded
		for at := int64(0); ; {
			page, err := client.ZRangeWithScores(ctx, key, at, at+memberPage-1).Result()
			if err != nil {
				yield(redis.Z{}, redisconn.Unavailable(err))
				return
			}
			if at > 0 && (len(page) == 0 || compareMembers(*end, page[0]) < 0) { // some before it are gone
				at = max(at-memberPage/2, 0)
				continue
			}
			for i := range page {
				if end != nil && compareMembers(page[i], *end) <= 0 {
					continue
				}
				if compareMembers(page[i], last[0]) > 0 {
					return
				}
				end = &page[i]
				if !yield(page[i], nil) {
					return
				}
			}
			if len(page) < memberPage {
				return
			}
			at += memberPage - 1 // the last one again, to see that the pages meet
		}
	}
}

// compareMembers compares members as Redis orders them.
func compareMembers(a, b redis.Z) int {
	return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(member(a), member(b)))
}

func member(z redis.Z) string {
	id, _ := z.Member.(string)
	return id
}
