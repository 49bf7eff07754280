package events

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/name"
	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// A Source is for who handles events one by one, each for as long as it takes. The sources of a group share each stream: every one is a
// consumer of its own, and Redis gives an entry to one of them. A source says of what it has that it still has it. What one has not said that
// of for pace.readFor, for it has died, another one claims.

// leftConsumer is whom entries are given that a source leaves to others.
const leftConsumer = "left"

// consumerFor is how long Redis keeps the name of a source that is there no more.
const consumerFor = time.Hour

// Source hands out the events of a group, each to one of several sources, until it is acknowledged. They come in no order that could be
// relied on. Next and Ack may be called at the same time.
type Source struct {
	client redis.UniversalClient
	group  string
	me     string
	pace   readPace
	stop   func() // ends what keeps the entries
	queues *Reader
	log    *zerolog.Logger

	reading sync.Mutex // held by Next
	pause   time.Duration
	looks   map[string]*look // by queue

	mu    sync.Mutex
	ready []Event                  // to be handed out
	held  map[held]map[string]bool // the entries that this source has, with the IDs of their events that were not acknowledged
	of    map[string][]held        // those that an event is in, by its ID: it may have been written twice
}

// look is when a stream was looked at for what, and is again.
type look struct {
	next    time.Time // not before then
	some    time.Time // when there was an entry; at first when the stream was found
	from    string    // the entry from which to claim on; "0-0" if all were looked at
	claimed time.Time // when that was begun
	swept   time.Time // when names of sources that are there no more were looked for
}

// lookTime is the share of a stream in the time between two looks at one in which nothing happens, if that is more than pace.most.
// So thousands of them, of mailers without mail, cost Redis no more than some hundred.
const lookTime = 2 * time.Millisecond

// again sets when the stream is looked at next: the longer nothing has happened the later.
func (l *look) again(now time.Time, some bool, longest time.Duration) {
	if some {
		l.some = now
	}
	l.next = now.Add(min(now.Sub(l.some)/10, longest))
}

// held is an entry of a stream.
type held struct{ queue, id string }

// NewSource returns a source of the group of the configuration, which it may share with other sources, not with a Reader. It has to be closed.
func NewSource(client redis.UniversalClient, cfg ReaderConfig) *Source {
	r := NewReader(client, cfg)
	s := &Source{
		client: client, group: r.cfg.Group, me: r.me, pace: r.cfg.pace, queues: r, log: r.cfg.Logger, pause: r.cfg.pace.least,
		held: map[held]map[string]bool{}, of: map[string][]held{}, looks: map[string]*look{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() {
		for used := (time.Time{}); ctx.Err() == nil; wait(ctx, s.pace.readFor/3) {
			if time.Since(used) >= consumerFor && s.use(ctx) == nil {
				used = time.Now()
			}
			_ = s.give(ctx, s.me, 0) // if it fails, the next time may not
		}
	})
	s.stop = func() {
		cancel()
		keeping.Wait()
	}
	return s
}

// Next returns events that no other source of the group has, most at most. It waits until there is one. The error is that of Redis, or of ctx.
func (s *Source) Next(ctx context.Context, most int) ([]Event, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if !name.Is(s.group) {
		return nil, fmt.Errorf("events: %q is no name of a group: up to 64 letters, digits, - and _", s.group)
	}
	for {
		if events := s.take(most); len(events) > 0 {
			s.pause = s.pace.least
			return events, nil
		}
		if err := s.read(ctx, most); err != nil {
			return nil, err
		}
		if s.nothing() {
			if !wait(ctx, s.pause) {
				return nil, ctx.Err()
			}
			s.pause = min(2*s.pause, s.pace.most)
		}
	}
}

func (s *Source) nothing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ready) == 0
}

// take hands out what was read.
func (s *Source) take(most int) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(most, len(s.ready))
	events := slices.Clone(s.ready[:n])
	s.ready = s.ready[n:]
	return events
}

// sourceScript reads up to ARGV[3] entries of the stream KEYS[1] for the source ARGV[2] of the group ARGV[1], which begins after the entry ARGV[4]. If
// ARGV[5] is not empty it claims those from the entry ARGV[6] on that were not kept for so many milliseconds, and if ARGV[7] is not it forgets the
// sources that have had nothing and asked for nothing for so long. It answers with the entries and with the one from which to claim on.
var sourceScript = redis.NewScript(`
if redis.call("EXISTS", KEYS[1]) == 0 then return {{}, "0-0"} end
local function read() return redis.pcall("XREADGROUP", "GROUP", ARGV[1], ARGV[2], "COUNT", ARGV[3], "STREAMS", KEYS[1], ">") end
local answer, entries, from = read(), {}, ARGV[6]
if type(answer) == "table" and answer.err and string.find(answer.err, "NOGROUP", 1, true) then
  redis.call("XGROUP", "CREATE", KEYS[1], ARGV[1], ARGV[4])
  answer = read()
end
if type(answer) == "table" and answer.err then return redis.error_reply(answer.err) end
if ARGV[5] ~= "" then
  local claimed = redis.call("XAUTOCLAIM", KEYS[1], ARGV[1], ARGV[2], ARGV[5], from, "COUNT", ` + strconv.Itoa(entriesAtOnce) + `)
  from = claimed[1]
  for _, entry in ipairs(claimed[2]) do
    if entry and entry[2] then entries[#entries + 1] = entry end
  end
end
if type(answer) == "table" and answer[1] then
  for _, entry in ipairs(answer[1][2]) do entries[#entries + 1] = entry end
end
if ARGV[7] ~= "" then
  for _, one in ipairs(redis.call("XINFO", "CONSUMERS", KEYS[1], ARGV[1])) do
    local fields = {}
    for i = 1, #one, 2 do fields[one[i]] = one[i + 1] end
    if fields.pending == 0 and fields.idle >= tonumber(ARGV[7]) then redis.call("XGROUP", "DELCONSUMER", KEYS[1], ARGV[1], fields.name) end
  end
end
return {entries, from}`)

// streamsAtOnce is how many streams are read in one round trip, at most.
const streamsAtOnce = 64

// read reads the streams whose turn it is, some at a time, until there is something: an entry may have the events of a whole mailing, so that a few of each of
// thousands of streams would be more than fits into memory.
func (s *Source) read(ctx context.Context, most int) error {
	if err := s.queues.find(ctx); err != nil {
		return err
	}
	now := time.Now()
	var streams []*stream
	for queue, one := range s.queues.streams {
		if s.looks[queue] == nil {
			s.looks[queue] = &look{some: now, from: "0-0"}
		}
		if !now.Before(s.looks[queue].next) {
			streams = append(streams, one)
		}
	}
	for some := range slices.Chunk(streams, streamsAtOnce) {
		if err := s.readSome(ctx, some, now, most); err != nil || !s.nothing() {
			return err
		}
	}
	return nil
}

// readSome reads up to most entries of each of these streams, and not many of all together, in one round trip, and now and then what sources had that are
// there no more.
func (s *Source) readSome(ctx context.Context, streams []*stream, now time.Time, most int) error {
	most = max(min(most, entriesAtOnce/len(streams)), 1)
	answers, err := s.queues.eachScript(ctx, streams, func(one *stream) (*redis.Script, []string, []any) {
		at, claim, sweep := s.looks[one.queue], "", ""
		if at.from != "0-0" || now.Sub(at.claimed) >= s.pace.others {
			claim = strconv.FormatInt(s.pace.readFor.Milliseconds(), 10)
		}
		if now.Sub(at.swept) >= consumerFor {
			sweep = strconv.FormatInt(consumerFor.Milliseconds(), 10)
		}
		return sourceScript, []string{Key(one.queue)}, []any{s.group, s.me, most, s.queues.since, claim, at.from, sweep}
	})
	longest := max(s.pace.most, time.Duration(len(s.looks))*lookTime)
	var empty []held
	for i, answer := range answers { // some have one where others have failed
		parts, _ := answer.Slice()
		if len(parts) != 2 {
			continue
		}
		at, list := s.looks[streams[i].queue], entriesOf(parts[0])
		if at.from == "0-0" && now.Sub(at.claimed) >= s.pace.others {
			at.claimed = now
		}
		if now.Sub(at.swept) >= consumerFor {
			at.swept = now
		}
		at.from, _ = parts[1].(string)
		at.again(now, len(list) > 0, longest)
		empty = append(empty, s.took(streams[i], list)...)
	}
	if err != nil {
		return err
	}
	return s.acknowledge(ctx, empty)
}

func entriesOf(answer any) []any {
	list, _ := answer.([]any)
	return list
}

// took takes entries as a script returns them, and returns those that have nothing to be handed out.
func (s *Source) took(of *stream, list []any) (empty []held) {
	for _, one := range list {
		e, ok := readEntry(of, one)
		if !ok {
			s.log.Error().Str("queue", of.queue).Str("entry", e.id).Msg("events: an entry that cannot be read is left out")
		}
		if !s.hold(e) {
			empty = append(empty, held{of.queue, e.id})
		}
	}
	return empty
}

// hold notes an entry that this source has. It is false for one without events to be handed out.
func (s *Source) hold(e entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := held{e.stream.queue, e.id}
	if s.held[at] != nil {
		return true // it was claimed from this source, which stood still, and back
	}
	left := map[string]bool{}
	for _, event := range e.events {
		if left[event.ID] {
			continue
		}
		left[event.ID] = true
		if s.of[event.ID] = append(s.of[event.ID], at); len(s.of[event.ID]) == 1 {
			s.ready = append(s.ready, event)
		}
	}
	if len(left) > 0 {
		s.held[at] = left
	}
	return len(left) > 0
}

// Ack says that an event needs no more care. An entry is acknowledged with the last of its events. After an error it may be called again.
func (s *Source) Ack(ctx context.Context, event Event) error {
	for {
		s.mu.Lock()
		entries := s.of[event.ID]
		var done []held
		for _, at := range entries {
			if delete(s.held[at], event.ID); len(s.held[at]) == 0 {
				done = append(done, at)
			}
		}
		s.mu.Unlock()
		if len(entries) == 0 {
			return nil
		}
		err := s.acknowledge(ctx, done)
		s.mu.Lock()
		for _, at := range done {
			if err == nil {
				delete(s.held, at)
			} else {
				s.held[at][event.ID] = true
			}
		}
		if err == nil {
			if s.of[event.ID] = s.of[event.ID][len(entries):]; len(s.of[event.ID]) == 0 { // else it was found in another entry meanwhile
				delete(s.of, event.ID)
			}
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (s *Source) acknowledge(ctx context.Context, done []held) error {
	return s.each(ctx, done, func(p redis.Pipeliner, queue string, ids []string) { p.XAck(ctx, Key(queue), s.group, ids...) })
}

// give has the entries that this source has be a consumer's: its own, which says that it still has them, or another one's.
func (s *Source) give(ctx context.Context, consumer string, idle time.Duration) error {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.held))
	s.mu.Unlock()
	return s.each(ctx, all, func(p redis.Pipeliner, queue string, ids []string) {
		args := make([]any, 0, idsAtOnce+8)
		args = append(args, "XCLAIM", Key(queue), s.group, consumer, 0)
		for _, id := range ids {
			args = append(args, id)
		}
		p.Do(ctx, append(args, "IDLE", idle.Milliseconds(), "JUSTID")...)
	})
}

// each adds a command for each queue of entries to a round trip, or several.
func (s *Source) each(ctx context.Context, entries []held, add func(p redis.Pipeliner, queue string, ids []string)) error {
	byQueue := map[string][]string{}
	for _, at := range entries {
		byQueue[at.queue] = append(byQueue[at.queue], at.id)
	}
	if len(byQueue) == 0 {
		return nil
	}
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for queue, ids := range byQueue {
			for these := range slices.Chunk(ids, idsAtOnce) {
				add(p, queue, these)
			}
		}
		return nil
	})
	return err
}

// idsAtOnce is how many entries a command names at most: Redis does nothing else meanwhile.
const idsAtOnce = 100

// Close leaves what was not acknowledged to the other sources, which need not wait until it is plain that this one is gone.
func (s *Source) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), releaseFor)
	defer cancel()
	return s.give(ctx, leftConsumer, s.pace.readFor)
}

// useScript notes that the group ARGV[1] is read.
var useScript = redis.NewScript(`return redis.call("HSET", KEYS[1], "used:" .. ARGV[1], redis.call("TIME")[1])`)

func (s *Source) use(ctx context.Context) error {
	return useScript.Run(ctx, s.client, []string{groupsKey}, s.group).Err()
}

// forgetUnused forgets groups of sources that have had no source for so long: whoever read them is not coming back, and what
// they have not read would count as unread. A source notes once an hour that it is there.
func forgetUnused(ctx context.Context, client redis.UniversalClient, unused time.Duration) error {
	fields, err := client.HGetAll(ctx, groupsKey).Result()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	now, err := client.Time(ctx).Result()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	for field, at := range fields {
		group, ok := strings.CutPrefix(field, "used:")
		seconds, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil || now.Sub(time.Unix(seconds, 0)) < unused {
			continue
		}
		if err := Forget(ctx, client, group); err != nil {
			return err
		}
		if err := client.HDel(ctx, groupsKey, field).Err(); err != nil {
			return redisconn.Unavailable(err)
		}
	}
	return nil
}
