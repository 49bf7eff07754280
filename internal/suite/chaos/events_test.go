package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/tasks"
)

// endpoint takes the webhooks, and knows how often it was told of each event.
type endpoint struct {
	server *httptest.Server

	mu    sync.Mutex
	posts int
	last  time.Time                    // post
	taken map[string]int               // how often an event was taken, by its ID
	sums  map[string][sha256.Size]byte // of what was posted of it
	odd   []string                     // what should not have come
}

func startEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{taken: map[string]int{}, sums: map[string][sha256.Size]byte{}}
	e.server = httptest.NewServer(e)
	t.Cleanup(e.server.Close)
	return e
}

// ServeHTTP takes an event. Now and then it refuses one, or takes it and hangs up.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // a worker was killed
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.posts, e.last = e.posts+1, time.Now()
	if e.posts%50 == 25 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	id, sum := r.Header.Get("webhook-id"), sha256.Sum256(body)
	if was, seen := e.sums[id]; seen && was != sum {
		e.odd = append(e.odd, "another event with the ID "+id)
	}
	if !json.Valid(body) {
		e.odd = append(e.odd, fmt.Sprintf("no JSON: %.80q", body))
	}
	e.sums[id] = sum
	e.taken[id]++
	if e.posts%50 == 0 {
		panic(http.ErrAbortHandler)
	}
}

// has reports whether all these events were taken.
func (e *endpoint) has(events []tasks.Event) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !slices.ContainsFunc(events, func(event tasks.Event) bool { return e.taken[event.ID] == 0 })
}

// lacks says which of these events it was not told of, and where they are.
func (e *endpoint) lacks(ctx context.Context, client redis.UniversalClient, events []tasks.Event) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b strings.Builder
	n := 0
	for _, event := range events {
		if e.taken[event.ID] == 0 {
			if n++; n <= 10 {
				fmt.Fprintf(&b, "%s of %s at %s, ", event.Type, event.MessageID, event.At.Format("15:04:05.000"))
			}
		}
	}
	for _, key := range client.Keys(ctx, "mailpouch:{*}:events").Val() {
		fmt.Fprintf(&b, "%s: %+v; ", key, client.XInfoGroups(ctx, key).Val())
	}
	return fmt.Sprintf("%d of %d, the last post came at %s: %s", n, len(events), e.last.Format("15:04:05.000"), b.String())
}

// strangers is what came that is none of these events.
func (e *endpoint) strangers(events []tasks.Event) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	known, odd := map[string]bool{}, slices.Clone(e.odd)
	for _, event := range events {
		known[event.ID] = true
	}
	for id := range e.taken {
		if !known[id] {
			odd = append(odd, "an event that was not written: "+id)
		}
	}
	return odd
}

// eventGroup is the test itself, as a reader of events.
const eventGroup = "books"

// subscribe has the events kept for the test from now on.
func subscribe(ctx context.Context, t *testing.T, client redis.UniversalClient) {
	t.Helper()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { read(reading, t, client, nil) })
	known := func() bool { return client.HLen(ctx, "mailpouch:events").Val() > 0 }
	if !waitFor(ctx, known) {
		t.Error("events are not read")
	}
	stop()
}

func read(ctx context.Context, t *testing.T, client redis.UniversalClient, each func(tasks.Event)) {
	t.Helper()
	err := tasks.NewEvents(client, tasks.EventsConfig{Group: eventGroup}).Run(ctx, func(_ context.Context, events []tasks.Event) error {
		for _, event := range events {
			each(event)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// allEvents reads what was written, when nothing more is. Nothing disturbs that, so an event that comes twice was written twice.
func allEvents(ctx context.Context, t *testing.T, client redis.UniversalClient) []tasks.Event {
	t.Helper()
	reading, stop := context.WithCancel(ctx)
	var all []tasks.Event
	var wg sync.WaitGroup
	wg.Go(func() { read(reading, t, client, func(event tasks.Event) { all = append(all, event) }) })
	if !waitFor(ctx, func() bool { return readToTheEnd(ctx, client) }) {
		t.Error("events are left that were not read")
	}
	stop()
	wg.Wait()
	return all
}

// readToTheEnd reports whether the test has all that is in the streams.
func readToTheEnd(ctx context.Context, client redis.UniversalClient) bool {
	streams, err := client.Keys(ctx, "mailpouch:{*}:events").Result()
	if err != nil || len(streams) == 0 {
		return false
	}
	for _, key := range streams {
		stream, err := client.XInfoStream(ctx, key).Result()
		groups, err2 := client.XInfoGroups(ctx, key).Result()
		if err != nil || err2 != nil {
			return false
		}
		i := slices.IndexFunc(groups, func(g redis.XInfoGroup) bool { return g.Name == eventGroup })
		if i < 0 || groups[i].Pending > 0 || groups[i].LastDeliveredID != stream.LastGeneratedID {
			return false
		}
	}
	return true
}

// story is what the events tell of a message and one of its recipients.
type story struct {
	queued, delayed int
	finals          []tasks.EventType
	emails          []string // IDs of the message, each once
}

// stories sorts events by message and recipient.
func stories(events []tasks.Event) (by map[int]map[string]*story, twice []string) {
	by, seen := map[int]map[string]*story{}, map[string]bool{}
	for _, event := range events {
		if seen[event.ID] {
			twice = append(twice, fmt.Sprintf("%s of %s to %s", event.Type, event.MessageID, event.Recipient))
		}
		seen[event.ID] = true
		number := -1
		_, _ = fmt.Sscanf(event.MessageID, "<%d@chaos.example.com>", &number) // else it is nobody's
		if by[number] == nil {
			by[number] = map[string]*story{}
		}
		s := by[number][event.Recipient]
		if s == nil {
			s = new(story)
			by[number][event.Recipient] = s
		}
		switch {
		case event.Type.Final():
			s.finals = append(s.finals, event.Type)
		case event.Type == tasks.EventQueued:
			s.queued++
		default:
			s.delayed++
		}
		if !slices.Contains(s.emails, event.EmailID) {
			s.emails = append(s.emails, event.EmailID)
		}
	}
	return by, twice
}

// verdicts holds what the events tell against what has happened, and returns what is not so.
func verdicts(l *load, denied map[int]bool, copies map[int][]keptCopy, dead map[int]bool, told map[int]map[string]*story) (wrong []string) {
	say := func(number int, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("message %d (%s): ", number, programs()[programOf(max(number, 0))].name)+fmt.Sprintf(format, args...))
	}
	accepted := l.accepted()
	numbers := slices.Concat(slices.Collect(maps.Keys(accepted)), slices.Collect(maps.Keys(copies)), slices.Collect(maps.Keys(dead)), slices.Collect(maps.Keys(told)))
	slices.Sort(numbers)
	for _, number := range slices.Compact(numbers) {
		if denied[number] {
			say(number, "its program was told that it is not queued, and it was")
		}
		got := maps.Clone(told[number])
		for _, to := range recipients(number) {
			s := got[to]
			delete(got, to)
			if s == nil {
				say(number, "no event for %s", to)
				continue
			}
			final := tasks.EventFailed
			if slices.ContainsFunc(copies[number], func(c keptCopy) bool { return slices.Contains(c.to, to) }) {
				final = tasks.EventSent
			}
			if s.queued != 1 || !slices.Equal(s.finals, []tasks.EventType{final}) {
				say(number, "for %s there is %d times %s, and then %v; want once, and %s", to, s.queued, tasks.EventQueued, s.finals, final)
			}
			if id, ok := accepted[number]; len(s.emails) != 1 || ok && s.emails[0] != id {
				say(number, "for %s events are of the emails %v, it was acknowledged as %q", to, s.emails, id)
			}
		}
		for to := range got {
			say(number, "there are events for %q", to)
		}
	}
	return wrong
}

// handIns is what came of messages that were handed in by one program.
type handIns struct {
	accepted, unanswered, thereAfterAll, denied, delivered, dead, again int
}

// intakeTable is what came of the programs' messages, in Markdown.
func intakeTable(l *load, denied map[int]bool, copies map[int][]keptCopy, dead map[int]bool) string {
	all := make([]handIns, len(programs()))
	for number := range l.plan.mails {
		n := &all[programOf(number)]
		_, accepted := l.tasks[number]
		there := len(copies[number]) > 0 || dead[number]
		for _, c := range []struct {
			is bool
			n  *int
		}{
			{accepted, &n.accepted}, {l.unanswered[number], &n.unanswered}, {l.unanswered[number] && there, &n.thereAfterAll},
			{denied[number], &n.denied}, {len(copies[number]) > 0, &n.delivered}, {dead[number], &n.dead}, {doubled(copies[number]), &n.again},
		} {
			if c.is {
				*c.n++
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| %-48s | acknowledged | without an answer | of these there | told: not queued | delivered | dead letters | sent again |\n", "")
	fmt.Fprintf(&b, "|%s|-------------:|------------------:|---------------:|-----------------:|----------:|-------------:|-----------:|\n", strings.Repeat("-", 50))
	for i, p := range programs() {
		n := all[i]
		fmt.Fprintf(&b, "| %-48s | %12d | %17d | %14d | %16d | %9d | %12d | %10d |\n", p.name, n.accepted, n.unanswered, n.thereAfterAll, n.denied, n.delivered, n.dead, n.again)
	}
	return b.String()
}

// doubled reports whether a recipient has several copies of a message.
func doubled(copies []keptCopy) bool {
	to := 0
	for _, c := range copies {
		to += len(c.to)
	}
	return to > len(recipientsOf(copies))
}

// leave lets what is claimed after a while be claimed at once: events that a worker had in hand when it was killed.
func leave(ctx context.Context, client redis.UniversalClient) error {
	streams, err := client.Keys(ctx, "mailpouch:{*}:events").Result()
	if err != nil {
		return err
	}
	for _, key := range streams {
		groups, err := client.XInfoGroups(ctx, key).Result()
		if err != nil {
			return err
		}
		for _, g := range groups {
			pending, err := client.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: key, Group: g.Name, Start: "-", End: "+", Count: 10_000}).Result()
			if err != nil {
				return err
			}
			args := []any{"XCLAIM", key, g.Name, "nobody", 0}
			for _, p := range pending {
				args = append(args, p.ID)
			}
			if len(pending) == 0 {
				continue
			}
			if err := client.Do(ctx, append(args, "IDLE", time.Minute.Milliseconds(), "JUSTID")...).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}
