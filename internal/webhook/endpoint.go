package webhook

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

const (
	// mostInHand is how many events of an endpoint are in memory. It takes nothing new while so many are to be tried again.
	mostInHand = 1000

	// saysGivenUp is how often the log says at most that events of an endpoint were given up.
	saysGivenUp = time.Hour
)

// endpoint posts the events of a source to one URL. One goroutine (run) decides what is posted when; one reads from the source, and
// each post has its own.
type endpoint struct {
	name      string
	open      func() source
	source    source // while it runs
	client    *http.Client
	timeout   time.Duration // of one post
	maxAge    time.Duration // of an event: the try that fails after that is its last
	log       zerolog.Logger
	observers []Observer

	wants   chan int      // how many events the reader is to get
	got     chan reading  // what it got
	ends    chan ending   // of posts
	renewed chan struct{} // holds a token when there is a new target

	// What follows is changed by the goroutine of run alone, but for target and fresh.
	mu       sync.Mutex
	target   target.Target
	fresh    bool // the target is new: what was found out about the endpoint may have changed
	pace     pace
	hand     hand
	underWay int
	reads    bool      // the reader is asked for events
	readAt   time.Time // not before then
	unread   int       // errors of the source in a row
	state    EndpointState
	givenUp  int       // since the log said so
	saidAt   time.Time // when it did
}

type reading struct {
	events []events.Event
	err    error
}

// ending is how a try has ended, and whether the event was acknowledged after it.
type ending struct {
	item   *item
	answer answer
	took   time.Duration
	result Result
	ackErr error
}

func newEndpoint(name string, to target.Target, open func() source, client *http.Client, cfg Config) *endpoint {
	return &endpoint{
		name: name, open: open, client: client, timeout: cfg.Timeout, maxAge: cfg.MaxAge, log: cfg.Logger.With().Str("endpoint", name).Logger(), observers: cfg.Observers,
		wants: make(chan int, 1), got: make(chan reading), ends: make(chan ending), renewed: make(chan struct{}, 1),
		target: to, pace: newPace(cfg.Concurrency), hand: newHand(), state: EndpointState{Name: name, Group: groups + to.Key()},
	}
}

// renew gives the endpoint a new target of the same key. It begins as if nothing were known of it: who changes a secret or sends a SIGHUP may have mended it.
func (e *endpoint) renew(to target.Target) {
	e.mu.Lock()
	e.target, e.fresh = to, true
	e.mu.Unlock()
	select {
	case e.renewed <- struct{}{}:
	default:
	}
}

// run posts events until ctx ends. Then posts under way have until grace ends to be answered and acknowledged.
func (e *endpoint) run(ctx context.Context, grace time.Duration) {
	e.source = e.open()
	defer func() { _ = e.source.Close() }()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { e.read(ctx) })
	posts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for stop != nil || e.underWay > 0 {
		if stop != nil {
			for _, it := range e.begin(time.Now()) {
				group.Go(func() { e.ends <- e.try(posts, it) })
			}
			timer.Reset(e.idle(time.Now()))
		}
		select {
		case <-stop:
			stop = nil
			defer time.AfterFunc(grace, cut).Stop()
		case r := <-e.got:
			e.take(r, time.Now())
		case end := <-e.ends:
			if posts.Err() == nil {
				e.judge(end, time.Now())
			} else { // it was cut off, and says nothing
				e.mu.Lock()
				e.underWay--
				e.mu.Unlock()
			}
		case <-e.renewed:
			e.afresh()
		case <-timer.C:
		}
	}
}

// read gets events for run.
func (e *endpoint) read(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-e.wants:
			events, err := e.source.Next(ctx, n)
			select {
			case e.got <- reading{events, err}:
			case <-ctx.Done(): // the source hands them to others when it is closed
				return
			}
		}
	}
}

// take takes what was read in hand.
func (e *endpoint) take(r reading, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reads = false
	if r.err != nil {
		if e.unread++; e.unread == 1 {
			e.log.Warn().Err(r.err).Msg("events for the webhook cannot be read")
		}
		e.readAt = now.Add(backoff(e.unread, longestPause) / 5)
		return
	}
	if e.unread > 0 {
		e.log.Info().Msg("events for the webhook can be read again")
	}
	e.unread = 0
	for _, event := range r.events {
		it := &item{event: event}
		var err error
		if it.body, err = encode(event); err != nil {
			e.log.Error().Err(err).Str("event", event.ID).Msg("an event cannot be posted")
			it.settled = true
		}
		e.hand.add(it)
	}
}

// begin returns the items to be tried now, and asks for more where there is room for them.
func (e *endpoint) begin(now time.Time) (begun []*item) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.state.EndedAt.IsZero() {
		return nil
	}
	for range e.pace.room(now, e.underWay) {
		it := e.hand.next(now)
		if it == nil {
			break
		}
		it.began = now
		e.underWay++
		begun = append(begun, it)
	}
	most := e.pace.width // as many as can begin while the next ones are read
	if most == 1 {
		most -= e.underWay // it may be failing: more would only have to wait
	}
	want := min(most-e.hand.ready(now), mostInHand-len(e.hand.all))
	if want > 0 && !e.reads && !now.Before(e.pace.until) && !now.Before(e.readAt) {
		e.reads = true
		e.wants <- want
	}
	return begun
}

// idle is how long there is nothing to begin unless something happens.
func (e *endpoint) idle(now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	const long = time.Hour
	switch {
	case !e.state.EndedAt.IsZero():
		return long
	case now.Before(e.pace.until):
		return e.pace.until.Sub(now)
	}
	wait := long
	if !e.reads && now.Before(e.readAt) {
		wait = e.readAt.Sub(now)
	}
	if at, ok := e.hand.wakes(); ok && e.pace.room(now, e.underWay) > 0 {
		wait = min(wait, max(at.Sub(now), 0))
	}
	return wait
}

// try posts an event, unless it is settled, and acknowledges it if it is settled then.
func (e *endpoint) try(ctx context.Context, it *item) ending {
	end := ending{item: it}
	if !it.settled {
		e.mu.Lock()
		to, failing := e.target, e.pace.failing()
		e.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, e.timeout)
		end.answer = post(limited, e.client, to, it.event.ID, it.body)
		cancel()
		end.took = time.Since(it.began)
		switch {
		case end.answer.err == nil:
			end.result = Delivered
		case end.answer.ends():
			end.result = Refused
		case ctx.Err() == nil && !failing && time.Since(it.event.At) >= e.maxAge: // while the endpoint takes nothing, that is not the event's fault
			end.result = GivenUp
		default:
			end.result = Failed
		}
	}
	if it.settled || end.result == Delivered || end.result == GivenUp {
		end.ackErr = e.source.Ack(ctx, it.event)
	}
	return end
}

// judge draws the conclusions from a try. It is under way no more when they are seen: now counts what is in hand without it.
func (e *endpoint) judge(end ending, now time.Time) {
	it := end.item
	e.mu.Lock()
	e.underWay--
	if !it.settled {
		e.count(end, now)
		it.tries++
		it.settled = end.result == Delivered || end.result == GivenUp
	}
	switch {
	case it.settled && end.ackErr == nil:
		e.hand.remove(it)
	case it.settled:
		e.hand.wait(it, now.Add(firstPause)) // to acknowledge it
	default:
		e.hand.wait(it, now.Add(max(backoff(it.tries, longestRetry), min(end.answer.after, mostRetryAfter))))
	}
	tried := Try{e.name, it.event, it.tries, end.result, end.answer.code, end.answer.err, end.took}
	e.mu.Unlock()
	if end.result == "" {
		return // it was acknowledged, no more
	}
	for _, o := range e.observers {
		if o.Tried != nil {
			o.Tried(tried)
		}
	}
}

// count notes how a try has ended. e.mu is held.
func (e *endpoint) count(end ending, now time.Time) {
	began, failing := end.item.began, e.pace.failing()
	if end.result == Delivered {
		e.state.Delivered++
		e.pace.succeeded(began)
		if failing && !e.pace.failing() {
			e.log.Info().Str("after", now.Sub(e.state.FailingSince).Round(time.Second).String()).Msg("the webhook's endpoint takes events again")
			e.recovered()
		}
		return
	}
	e.state.Failed++
	e.state.LastError, e.state.LastErrorAt = end.answer.err.Error(), now
	if end.result == Refused {
		if e.state.EndedAt.IsZero() {
			e.state.EndedAt = now
			e.log.Error().Err(end.answer.err).Msg("the webhook's endpoint wants no more events (410); it gets none until a restart or SIGHUP")
		}
		return
	}
	e.pace.failed(began, now, end.answer.failure(end.item.tries > 0))
	if !failing && e.pace.failing() {
		e.state.FailingSince = now
		e.log.Warn().Err(end.answer.err).Str("next_try", e.pace.until.Sub(now).Round(time.Second).String()).Msg("the webhook's endpoint takes no events; they wait")
	}
	if end.result == GivenUp {
		e.state.GivenUp++
		if e.givenUp++; now.Sub(e.saidAt) >= saysGivenUp {
			e.log.Error().Err(end.answer.err).Int("events", e.givenUp).Msg("the webhook's endpoint did not take events in time; they are given up")
			e.givenUp, e.saidAt = 0, now
		}
	}
}

// recovered has all that failed with the endpoint tried again at once. e.mu is held.
func (e *endpoint) recovered() {
	e.hand.hurry(func(it *item) bool { return !it.settled && !it.began.Before(e.state.FailingSince) })
	e.state.FailingSince = time.Time{}
}

// afresh forgets what was found out about the endpoint, if it has a new target.
func (e *endpoint) afresh() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.fresh {
		return
	}
	e.fresh, e.pace = false, newPace(e.pace.most)
	e.state.EndedAt, e.state.FailingSince = time.Time{}, time.Time{}
	e.hand.hurry(func(*item) bool { return true })
}

// now is the endpoint's state.
func (e *endpoint) now() EndpointState {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	s.UnderWay, s.Waiting = e.underWay, len(e.hand.all)-e.underWay
	if until := e.pace.until; until.After(time.Now()) {
		s.NextTry = until
	}
	s.Oldest = e.hand.oldest()
	return s
}
