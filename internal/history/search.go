package history

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// Query says which records are asked for: all that fit all that is not empty.
type Query struct {
	ID        string // of the task: also what has come of it, and the messages of a task of many
	MessageID string // with or without < and >
	To        string // a recipient's address
	Tag       string
	Mailing   string
	Since     time.Time
	Limit     int // how many, the newest: no limit if zero
}

// Search returns the records that a query asks for, of queues of asynq's, the newest first.
func Search(ctx context.Context, client redis.UniversalClient, queues []string, q Query) ([]Record, Window, error) {
	installed, err := ReadInstallation(ctx, client)
	if err != nil {
		return nil, Window{}, err
	}
	lists, trimmed, err := look(ctx, client, queues)
	window := installed.window(trimmed)
	if err != nil || len(lists) == 0 {
		return nil, window, err
	}
	f := finder{client: client, query: q, seen: map[string]int{}}
	for _, needle := range []string{cut(q.ID, mostID), cut(bare(q.MessageID), mostMessageID-2), q.Tag, q.Mailing} {
		if needle != "" {
			f.needles = append(f.needles, needle)
		}
	}
	if q.To != "" {
		if installed.Secret == nil {
			return nil, window, nil
		}
		f.hash = string(installed.Secret.append(nil, q.To))
		f.needles = append(f.needles, f.hash)
	}
	for i, l := range lists {
		if time.Unix((l.hour+1)*3600, 0).Before(q.Since.Add(-time.Minute)) { // clocks differ
			break
		}
		// What has enough is not looked through further, but the lists of one hour are of one time.
		if q.Limit > 0 && len(f.found) >= q.Limit && i > 0 && lists[i-1].hour != l.hour {
			break
		}
		if err := f.search(ctx, l); err != nil {
			return nil, window, err
		}
	}
	slices.SortStableFunc(f.found, func(a, b Record) int { return b.At.Compare(a.At) })
	if q.Limit > 0 {
		f.found = f.found[:min(len(f.found), q.Limit)]
	}
	return f.found, window, nil
}

func bare(messageID string) string { return strings.Trim(messageID, "<> ") }

func cut(text string, most int) string { return text[:min(len(text), most)] }

// list is a list of a queue.
type list struct {
	queue string
	hour  int64
}

// look returns the lists of queues, the newest first, and until when records have gone before their time.
func look(ctx context.Context, client redis.UniversalClient, queues []string) (lists []list, trimmed time.Time, err error) {
	answers := make([]*redis.MapStringStringCmd, len(queues))
	_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, queue := range queues {
			answers[i] = p.HGetAll(ctx, Key(queue))
		}
		return nil
	})
	if err != nil {
		return nil, trimmed, redisconn.Unavailable(err)
	}
	for i, queue := range queues {
		fields := answers[i].Val()
		for field := range fields {
			if at, err := strconv.ParseInt(field, 10, 64); err == nil {
				lists = append(lists, list{queue, at})
			}
		}
		if at := seconds(fields[fieldTrimmed]); at.After(trimmed) {
			trimmed = at
		}
	}
	slices.SortFunc(lists, func(a, b list) int { return cmp.Or(cmp.Compare(b.hour, a.hour), cmp.Compare(a.queue, b.queue)) })
	return lists, trimmed, nil
}

// finder looks through lists.
type finder struct {
	client  redis.UniversalClient
	query   Query
	needles []string
	hash    string // of the recipient
	found   []Record
	seen    map[string]int // where in found the last record is that says the same: see again
}

// searchScript looks through the list KEYS[1] from the entry ARGV[1] back, until it has seen ARGV[2] bytes. It returns before
// which entry the next one has to begin, and those that have all of the texts ARGV[3] and what follows in them.
var searchScript = redis.NewScript(`
local at, bytes, found = tonumber(ARGV[1]), 0, {0}
while at >= 0 and bytes < tonumber(ARGV[2]) do
  local first = math.max(at - 99, 0)
  local entries = redis.call("LRANGE", KEYS[1], first, at)
  for i = #entries, 1, -1 do
    local entry, has = entries[i], true
    bytes = bytes + #entry
    for n = 3, #ARGV do has = has and string.find(entry, ARGV[n], 1, true) end
    if has then found[#found + 1] = entry end
  end
  at = first - 1
end
found[1] = at
return found`)

// pieceBytes is how much one script looks through: Redis does nothing else meanwhile.
const pieceBytes = 200_000

// search looks through one list.
func (f *finder) search(ctx context.Context, l list) error {
	key := listKey(l.queue, l.hour)
	n, err := f.client.LLen(ctx, key).Result()
	if err != nil {
		return redisconn.Unavailable(err)
	}
	had := len(f.found)
	for at := n - 1; at >= 0 && (f.query.Limit == 0 || len(f.found)-had < f.query.Limit); {
		args := []any{at, pieceBytes}
		for _, needle := range f.needles {
			args = append(args, needle)
		}
		answer, err := searchScript.Run(ctx, f.client, []string{key}, args...).Slice()
		if err != nil {
			return redisconn.Unavailable(err)
		}
		at = f.take(l.queue, answer)
	}
	return nil
}

// take notes what of the answer of searchScript fits, and returns where the next one begins.
func (f *finder) take(queue string, answer []any) (next int64) {
	if len(answer) == 0 {
		return -1
	}
	next, _ = answer[0].(int64)
	for _, a := range answer[1:] {
		entry, _ := a.(string)
		records, err := Decode(queue, entry)
		if err != nil {
			continue // of a newer version: those that can be read count
		}
		slices.Reverse(records)
		for _, r := range records {
			if f.fits(r) && !f.again(r) {
				f.found = append(f.found, r)
			}
		}
	}
	return next
}

// again reports whether the record was found before. One may be written twice where an answer of Redis is lost, and that a message
// was sent is said again by the next run of its task, if the worker has died: then the older one counts.
func (f *finder) again(r Record) bool {
	same := r.raw
	if r.State == Sent {
		same = r.ID + "\x00" + r.MessageID
	}
	i, seen := f.seen[same]
	if seen && f.found[i].Due.Sub(r.Due).Abs() <= 2*time.Second { // else its key was used again
		f.found[i] = r
		return true
	}
	f.seen[same] = len(f.found)
	return false
}

// fits reports whether a record is asked for.
func (f *finder) fits(r Record) bool {
	q := f.query
	return (q.ID == "" || r.ID == q.ID || strings.HasPrefix(r.ID, q.ID+".") || strings.HasPrefix(r.ID, q.ID+"-")) &&
		(q.MessageID == "" || cut(bare(r.MessageID), mostMessageID-2) == cut(bare(q.MessageID), mostMessageID-2)) &&
		(f.hash == "" || r.isFor(f.hash)) && (q.Tag == "" || slices.Contains(r.Tags, q.Tag)) &&
		(q.Mailing == "" || r.Mailing == q.Mailing) && !r.At.Before(q.Since)
}
