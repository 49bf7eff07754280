package events

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/name"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A group of readers has a consumer group of Redis on each stream. One reader of the group reads a stream at a time, whoever has
// its key, so that events of a message come in their order: two that share a stream would overtake each other. If that reader
// dies, its key is gone after readFor, and another one begins with what it had not acknowledged. To Redis all readers of a group
// are one consumer, which therefore needs nothing to be claimed.

// Reader reads the events of all queues of a Redis for a group.
type Reader struct {
	redis   redis.UniversalClient
	cfg     ReaderConfig
	me      string
	since   int64 // when the group began to read, in milliseconds; 0: not known
	streams map[string]*stream
	looked  time.Time // for new queues
	counted time.Time // the queues
	queues  int64     // that there were
}

// ReaderConfig configures a Reader.
type ReaderConfig struct {
	// Group is whom the events are for: of all readers of a group one gets an event, and each group gets all of them, from when its first
	// reader began. It is a name as those of queues are.
	Group string

	Batch  int             // events that are handled together, at most: 100 if zero
	Logger *zerolog.Logger // no logs if nil

	pace readPace
}

// readPace is how often a Reader looks at what.
type readPace struct {
	readFor time.Duration // how long a reader has a stream
	least   time.Duration // between two looks while there are events
	most    time.Duration // and while there are none
	others  time.Duration // how often it looks at the streams of others
	queues  time.Duration // and for new queues
	again   time.Duration // between two tries of what could not be handled, at first
	longest time.Duration // and at last
}

func defaultPace() readPace {
	return readPace{
		readFor: 30 * time.Second, least: 20 * time.Millisecond, most: time.Second, others: 5 * time.Second,
		queues: 10 * time.Second, again: time.Second, longest: time.Minute,
	}
}

// consumer is the name of all readers of a group.
const consumer = "reader"

// entriesAtOnce is how many entries are read of a stream at once, at most.
const entriesAtOnce = 50

// NewReader returns a Reader in the given Redis, which it does not close.
func NewReader(client redis.UniversalClient, cfg ReaderConfig) *Reader {
	cfg.Batch = cmp.Or(cfg.Batch, 100)
	if cfg.Logger == nil {
		cfg.Logger = new(zerolog.Nop())
	}
	if cfg.pace == (readPace{}) {
		cfg.pace = defaultPace()
	}
	return &Reader{redis: client, cfg: cfg, me: rand.Text(), streams: map[string]*stream{}}
}

// stream is what a Reader knows of a queue's stream.
type stream struct {
	queue string
	mine  bool
	after string    // where its own reading goes on: the ID of the last entry that was not acknowledged before, or ">"
	next  time.Time // when it is looked at next
}

// entry is an entry of a stream with the events that are left of it.
type entry struct {
	stream *stream
	id     string
	at     int64 // in milliseconds
	events []Event
}

// Begin makes the group known to Redis, if it is not: it gets what happens from then on. Run does so too.
func (r *Reader) Begin(ctx context.Context) error {
	if !name.Is(r.cfg.Group) {
		return fmt.Errorf("events: %q is no name of a group: %s", r.cfg.Group, name.Rule)
	}
	since, err := groupScript.Run(ctx, r.redis, []string{groupsKey}, "group:"+r.cfg.Group, r.since).Int64()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	r.since = since
	return nil
}

// Run calls handle with what has happened until ctx ends, a batch at a time.
func (r *Reader) Run(ctx context.Context, handle func(ctx context.Context, events []Event) error) error {
	if !name.Is(r.cfg.Group) {
		return r.Begin(ctx)
	}
	defer r.release(context.WithoutCancel(ctx))
	away, pause := false, r.cfg.pace.least
	for ctx.Err() == nil {
		entries, err := r.read(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && !away:
			away = true
			r.cfg.Logger.Warn().Err(redisconn.Unavailable(err)).Str("group", r.cfg.Group).Msg("events cannot be read: tried again until they can")
		case err == nil && away:
			away = false
			r.cfg.Logger.Info().Str("group", r.cfg.Group).Msg("events can be read again")
		}
		if len(entries) > 0 {
			pause = r.cfg.pace.least
			r.handle(ctx, entries, handle)
			continue
		}
		wait(ctx, pause)
		pause = min(2*pause, r.cfg.pace.most)
	}
	return nil
}

func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// groupScript returns since when the group ARGV[1] reads, in milliseconds: from now on if it has not, or from ARGV[2] on if Redis has lost
// what it knew.
var groupScript = redis.NewScript(`
local now = redis.call("TIME")
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call("HSETNX", KEYS[1], ARGV[1], ARGV[2] ~= "0" and ARGV[2] or string.format("%d", ms))
return redis.call("HGET", KEYS[1], ARGV[1])`)

const groupsKey = "mailpouch:events"

// find looks for queues that it does not know yet: now and then, and at once when their number is another one. To count them costs as good as
// nothing, however many there are.
func (r *Reader) find(ctx context.Context) error {
	if now := time.Now(); !r.looked.IsZero() && now.Sub(r.looked) < r.cfg.pace.queues {
		if now.Sub(r.counted) < r.cfg.pace.most {
			return nil
		}
		r.counted = now
		if n, err := r.redis.SCard(ctx, wire.QueuesKey).Result(); err != nil || n == r.queues {
			return err
		}
	}
	if err := r.Begin(ctx); err != nil {
		return err
	}
	queues, err := r.redis.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return err
	}
	for _, queue := range queues {
		if r.streams[queue] == nil {
			r.streams[queue] = &stream{queue: queue}
		}
	}
	r.looked, r.queues = time.Now(), int64(len(queues))
	return nil
}

// readScript reads up to ARGV[4] entries of the stream KEYS[1] for the group ARGV[1], if nobody else reads it: KEYS[2] has the ID of
// who does, and is ARGV[2] for ARGV[3] milliseconds. ARGV[5] is the entry after which those begin that were read before, ">" for those
// that were not, and ARGV[6] the one after which the group begins. It answers whether the stream was this reader's before, is now, or
// is another one's, and the entries. It is as new if there are some that were read and not acknowledged: of those an answer was lost.
var readScript = redis.NewScript(`
if redis.call("EXISTS", KEYS[1]) == 0 then return {"none"} end
local owner, after = redis.call("GET", KEYS[2]), ARGV[5]
if owner and owner ~= ARGV[2] then return {"other"} end
redis.call("SET", KEYS[2], ARGV[2], "PX", ARGV[3])
if owner and after == ">" then
  local unknown = redis.pcall("XPENDING", KEYS[1], ARGV[1])
  if not unknown.err and unknown[1] > 0 then owner = false end
end
if not owner then after = "0-0" end
local function read() return redis.pcall("XREADGROUP", "GROUP", ARGV[1], "` + consumer + `", "COUNT", ARGV[4], "STREAMS", KEYS[1], after) end
local answer = read()
if type(answer) == "table" and answer.err and string.find(answer.err, "NOGROUP", 1, true) then
  redis.call("XGROUP", "CREATE", KEYS[1], ARGV[1], ARGV[6])
  answer = read()
end
if type(answer) == "table" and answer.err then return redis.error_reply(answer.err) end
local entries = {}
if type(answer) == "table" and answer[1] then entries = answer[1][2] end
return {owner and "mine" or "new", entries}`)

// read reads what there is in all streams.
func (r *Reader) read(ctx context.Context) ([]entry, error) {
	if err := r.find(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	var due []*stream
	for _, s := range r.streams {
		if s.mine || !now.Before(s.next) {
			due = append(due, s)
		}
	}
	answers, err := r.eachScript(ctx, due, func(s *stream) (*redis.Script, []string, []any) {
		return readScript, []string{Key(s.queue), readerKey(s.queue, r.cfg.Group)},
			[]any{r.cfg.Group, r.me, r.cfg.pace.readFor.Milliseconds(), entriesAtOnce, cmp.Or(s.after, "0-0"), fmt.Sprintf("%d-%d", r.since-1, uint64(math.MaxUint64))}
	})
	var entries []entry
	for i, s := range due {
		if i < len(answers) {
			entries = append(entries, r.took(s, now, answers[i])...)
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.at, b.at) })
	return entries, err
}

// eachScript runs a script for each stream in one round trip.
func (r *Reader) eachScript(ctx context.Context, streams []*stream, of func(*stream) (*redis.Script, []string, []any)) ([]*redis.Cmd, error) {
	if len(streams) == 0 {
		return nil, nil
	}
	answers := make([]*redis.Cmd, len(streams))
	_, err := r.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, s := range streams {
			script, keys, args := of(s)
			answers[i] = script.EvalSha(ctx, p, keys, args...)
		}
		return nil
	})
	if err == nil {
		return answers, nil
	}
	var failed error
	for i, s := range streams {
		if err := answers[i].Err(); err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
			script, keys, args := of(s)
			answers[i] = script.Eval(ctx, r.redis, keys, args...)
		}
		failed = cmp.Or(failed, answers[i].Err())
	}
	return answers, failed
}

// took notes what Redis has answered of a stream, and returns its entries.
func (r *Reader) took(s *stream, now time.Time, answer *redis.Cmd) (entries []entry) {
	parts, err := answer.Slice()
	if err != nil || len(parts) == 0 {
		return nil // it is in the error of all
	}
	s.next = now.Add(r.cfg.pace.others)
	switch parts[0] {
	case "none":
		s.mine, s.next = false, now.Add(r.cfg.pace.most)
		return nil
	case "other":
		s.mine = false
		return nil
	case "new":
		s.after = "0-0"
	}
	s.mine = true
	list, _ := parts[1].([]any)
	if len(list) == 0 && s.after != ">" { // nothing is left of what was not acknowledged
		s.after, s.next = ">", now
	}
	for _, one := range list {
		e, ok := readEntry(s, one)
		if !ok {
			r.cfg.Logger.Error().Str("queue", s.queue).Str("entry", e.id).Msg("events: an entry that cannot be read is left out")
		}
		if s.after != ">" {
			s.after = e.id
		}
		entries = append(entries, e)
	}
	return entries
}

// readEntry reads an entry as a script returns it: its ID, and its field and value. ok is false if its events cannot be read, or if it is
// gone meanwhile.
func readEntry(s *stream, one any) (e entry, ok bool) {
	pair, _ := one.([]any)
	if len(pair) != 2 {
		return entry{stream: s}, false
	}
	e = entry{stream: s}
	e.id, _ = pair[0].(string)
	ms, _, _ := strings.Cut(e.id, "-")
	e.at, _ = strconv.ParseInt(ms, 10, 64)
	fields, _ := pair[1].([]any)
	if len(fields) != 2 {
		return e, false
	}
	data, _ := fields[1].(string)
	var err error
	e.events, err = decode(s.queue, time.UnixMilli(e.at).UTC(), data)
	return e, err == nil
}

// handle has the events of entries handled, and acknowledges each entry when all of its events are.
func (r *Reader) handle(ctx context.Context, entries []entry, handle func(context.Context, []Event) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var keeping sync.WaitGroup
	mine := streamsOf(entries)
	keeping.Go(func() { r.keep(ctx, cancel, mine) })
	defer keeping.Wait()
	defer cancel()
	for len(entries) > 0 {
		batch, n := batchOf(entries, r.cfg.Batch)
		if !r.tried(ctx, batch, handle) {
			return
		}
		done, left := entries[:n], len(batch)
		for i := range done {
			left -= len(done[i].events)
		}
		entries = entries[n:]
		if left > 0 { // the last entry is begun
			entries[0].events = entries[0].events[left:]
		}
		r.acknowledge(ctx, done)
	}
}

// batchOf is the events of the next batch, and how many entries end with it.
func batchOf(entries []entry, most int) (batch []Event, n int) {
	for n < len(entries) {
		room := most - len(batch)
		if len(entries[n].events) > room {
			return append(batch, entries[n].events[:room]...), n
		}
		batch = append(batch, entries[n].events...)
		n++
	}
	return batch, n
}

// tried calls handle until it has handled the events. It is false if ctx has ended before.
func (r *Reader) tried(ctx context.Context, batch []Event, handle func(context.Context, []Event) error) bool {
	if len(batch) == 0 {
		return true
	}
	for pause := r.cfg.pace.again; ; pause = min(2*pause, r.cfg.pace.longest) {
		err := handle(ctx, batch)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.cfg.Logger.Debug().Err(err).Str("group", r.cfg.Group).Int("events", len(batch)).Msg("events could not be handled: tried again")
		if !wait(ctx, pause) {
			return false
		}
	}
}

// acknowledge tells Redis that entries are done. If it does not hear of that they come again, when the stream gets another reader.
func (r *Reader) acknowledge(ctx context.Context, done []entry) {
	ctx = context.WithoutCancel(ctx)
	ids := map[*stream][]string{}
	for _, e := range done {
		ids[e.stream] = append(ids[e.stream], e.id)
	}
	_, err := r.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for s, these := range ids {
			p.XAck(ctx, Key(s.queue), r.cfg.Group, these...)
		}
		return nil
	})
	if err != nil {
		for s := range ids {
			s.after = "0-0" // what is not acknowledged is read again
		}
	}
}

// renewScript makes the key KEYS[1] last for ARGV[2] milliseconds if it has ARGV[1], and reports whether it has.
var renewScript = redis.NewScript(`
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call("PEXPIRE", KEYS[1], ARGV[2])`)

func streamsOf(entries []entry) (all []*stream) {
	for _, e := range entries {
		if !slices.Contains(all, e.stream) {
			all = append(all, e.stream)
		}
	}
	return all
}

// keep keeps streams this reader's until ctx ends. If another one has one of them, lost is called.
func (r *Reader) keep(ctx context.Context, lost context.CancelFunc, mine []*stream) {
	for wait(ctx, r.cfg.pace.readFor/3) {
		answers, err := r.eachScript(ctx, mine, func(s *stream) (*redis.Script, []string, []any) {
			return renewScript, []string{readerKey(s.queue, r.cfg.Group)}, []any{r.me, r.cfg.pace.readFor.Milliseconds()}
		})
		if err != nil {
			continue
		}
		for i, s := range mine {
			if n, _ := answers[i].Int(); n == 0 {
				s.mine = false
				lost()
			}
		}
	}
}

// releaseScript removes the key KEYS[1] if it has ARGV[1].
var releaseScript = redis.NewScript(`
if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end
return 0`)

// release leaves the streams to other readers.
func (r *Reader) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, releaseFor)
	defer cancel()
	var mine []*stream
	for _, s := range r.streams {
		if s.mine {
			mine = append(mine, s)
		}
		s.mine, s.next = false, time.Time{}
	}
	_, _ = r.eachScript(ctx, mine, func(s *stream) (*redis.Script, []string, []any) {
		return releaseScript, []string{readerKey(s.queue, r.cfg.Group)}, []any{r.me}
	})
}

// releaseFor is how long leaving the streams may take.
const releaseFor = 2 * time.Second

// Forget ends a group: it reads no more, and what it has not read counts for nobody. A reader of it begins anew.
func Forget(ctx context.Context, client redis.UniversalClient, group string) error {
	queues, err := client.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	for _, queue := range queues {
		err := client.XGroupDestroy(ctx, Key(queue), group).Err()
		if err != nil && !strings.Contains(err.Error(), "key to exist") && !errors.Is(err, redis.Nil) {
			return redisconn.Unavailable(err)
		}
	}
	if err := client.HDel(ctx, groupsKey, "group:"+group).Err(); err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}
