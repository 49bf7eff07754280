package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// awayRelay is one that cannot be reached until it is back. tried gets a token for each attempt.
func awayRelay() (r *relay, back func(), tried chan struct{}) {
	r, tried = newRelay(), make(chan struct{}, 100_000)
	var up atomic.Bool
	r.down = func() error {
		tried <- struct{}{}
		if up.Load() {
			return nil
		}
		return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("connection refused")}
	}
	return r, func() { up.Store(true) }, tried
}

// watch sends the begin and the end of each hold.
func watch(cfg *WorkerConfig) <-chan error {
	held := make(chan error, 1000)
	cfg.Observers = append(cfg.Observers, Observer{Held: func(_ string, reason error) { held <- reason }})
	return held
}

// A worker that cannot reach the relay keeps nothing from one that can, of any queue, and spends nothing.
func TestHold_otherWorker(t *testing.T) {
	t.Parallel()
	for name, bulk := range map[string]int{"single": 1, "bulk": 40} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: bulk, Options: Options{MaxRetry: new(0)}})
			h.send(400, nil)
			h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Options: Options{Queue: "critical", MaxRetry: new(0)}})
			h.send(30, func(m *mailer.EmailMessage) { m.MessageID = "<critical-" + m.MessageID[1:] })
			away, _, _ := awayRelay()
			deaf := h.config()
			deaf.Queues, deaf.Connect = weights, away.connect
			held := watch(&deaf)
			h.start(deaf)
			if reason := <-held; reason == nil {
				t.Fatal("held for no reason")
			}
			healthy := h.config()
			healthy.Queues, healthy.Connections = weights, 1
			begin := time.Now()
			h.start(healthy)
			h.wait(430)
			t.Logf("all delivered after %v", time.Since(begin).Round(time.Millisecond))
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("the healthy worker needed %v", took)
			}
			h.allEmpty()
			h.once(430)
		})
	}
}

// Nor does one that waits long for whether its relay answers, while none of its connections works.
func TestHold_silentRelay(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Options: Options{MaxRetry: new(0)}})
	h.send(200, nil)
	silent, answers := newRelay(), make(chan struct{})
	silent.down = func() error {
		<-answers
		return nil
	}
	deaf := h.config()
	deaf.Connect, deaf.Concurrency = silent.connect, 200
	held := watch(&deaf)
	back := make(chan struct{}, 1)
	deaf.Observers = append(deaf.Observers, Observer{Back: func(b GivenBack) {
		if b.Reason == BackHeld {
			select {
			case back <- struct{}{}:
			default:
			}
		}
	}})
	stop := h.start(deaf)
	select {
	case <-back:
	case <-time.After(stuckAfter):
		t.Fatal("it keeps what it has taken")
	}
	h.start(h.config())
	h.wait(200)
	h.empty()
	h.once(200)
	close(answers)
	h.relay = silent
	h.send(1, nil) // the relay answers at last, and either worker may send this
	h.empty()
	stop()
	if len(held) > 0 {
		t.Errorf("held: %v", <-held)
	}
}

// pending are the IDs of what waits in a queue, first what is next.
func (h *house) pending(queue string) []string {
	h.t.Helper()
	ids, err := h.Client(h.t).LRange(h.t.Context(), "asynq:{"+queue+"}:pending", 0, -1).Result()
	if err != nil {
		h.t.Fatal(err)
	}
	slices.Reverse(ids)
	return ids
}

// since is since when a message waits in the default queue, to a microsecond or less.
func (h *house) since(id string) string {
	since := h.Client(h.t).HGet(h.t.Context(), asynqbatch.TaskKey("default", id), "pending_since").Val()
	return since[:max(len(since)-2, 0)]
}

// What a held worker gives back is where it was, in its order, and has no try spent.
func TestHold_order(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.send(300, nil)
	want := h.pending("default")
	since := h.since(want[7])
	away, back, tried := awayRelay()
	first := make(chan struct{})
	down := away.down
	away.down = func() error {
		select {
		case <-first:
		case <-t.Context().Done():
		}
		return down()
	}
	cfg := h.config()
	cfg.Connect, cfg.Connections, cfg.Concurrency = away.connect, 1, 120 // with more, those on the wire come back one by one
	cfg.openPatience = time.Hour
	held := watch(&cfg)
	stop := h.start(cfg)
	h.eventually("120 tasks in hand", func() bool { return h.info().Active == 120 })
	close(first)
	if reason := <-held; reason == nil {
		t.Fatal("held for no reason")
	}
	h.eventually("all are back", func() bool { return h.info().Pending == 300 })
	if got := h.pending("default"); !slices.Equal(got, want) {
		places := make([]int, len(got))
		for i, id := range got {
			places[i] = slices.Index(want, id)
		}
		t.Errorf("the order has changed: %v", places)
	}
	if got := h.since(want[7]); got != since {
		t.Errorf("the message waits since %s, want %s", got, since)
	}
	for range 3 {
		<-tried // without a message
	}
	if info := h.info(); info.Retry+info.Archived+info.Active != 0 {
		t.Errorf("retry %d, archived %d, active %d", info.Retry, info.Archived, info.Active)
	}
	back()
	for range 300 {
		select {
		case <-away.arrived:
		case <-t.Context().Done():
			t.Fatal("not all arrived")
		}
	}
	h.empty()
	if reason := <-held; reason != nil {
		t.Errorf("held: %v", reason)
	}
	stop()
	if ids := away.ids(); len(ids) != 300 {
		t.Errorf("%d delivered", len(ids))
	}
}

// commandsAndScripts is how many commands Redis has run, and how many of them were scripts.
func commandsAndScripts(t *testing.T, s *redistest.Server) (all, scripts int) {
	t.Helper()
	info, err := s.Client(t).Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		var n int
		name, rest, _ := strings.Cut(line, ":")
		if _, err := fmt.Sscanf(rest, "calls=%d,", &n); err != nil || name == "cmdstat_info" {
			continue
		}
		all += n
		if strings.HasPrefix(name, "cmdstat_eval") {
			scripts += n
		}
	}
	return all, scripts
}

// A fleet that is held as a whole leaves its mail in Redis, and asks for none of it: it costs no more than an idle one.
func TestHold_wholeFleet(t *testing.T) {
	t.Parallel()
	const waiting, span = 10_000, 3 * time.Second
	cost := func(t *testing.T, mail bool) (all, scripts int) {
		h := newHouse(t, redistest.Options{})
		h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1})
		away, _, tried := awayRelay()
		for range 2 {
			cfg := h.config()
			cfg.Connections, cfg.Queues, cfg.Connect = 4, weights, away.connect
			held := watch(&cfg)
			if mail {
				h.send(waiting/2, nil)
			}
			h.start(cfg)
			if mail {
				if reason := <-held; reason == nil {
					t.Fatal("held for no reason")
				}
			}
		}
		if mail {
			for range 6 {
				<-tried // by now all has gone back
			}
			h.eventually("all is in Redis", func() bool { return h.info().Pending == waiting })
		}
		begin := time.Now()
		all, scripts = commandsAndScripts(t, h.Server)
		<-time.After(span)
		allAfter, scriptsAfter := commandsAndScripts(t, h.Server)
		took := time.Since(begin)
		if info := h.info(); mail && info.Pending != waiting {
			t.Errorf("pending %d, active %d, retry %d: the mail is on the move", info.Pending, info.Active, info.Retry)
		}
		in := func(n int) int { return int(float64(n) * span.Seconds() / took.Seconds()) }
		return in(allAfter - all), in(scriptsAfter - scripts)
	}
	idle, idleScripts := cost(t, false)
	held, heldScripts := cost(t, true)
	t.Logf("in %v: idle %d commands, %d of them scripts; held with %d waiting %d, %d", span, idle, idleScripts, waiting, held, heldScripts)
	if held > idle+100 || heldScripts > idleScripts+50 {
		t.Errorf("a held fleet costs more than an idle one: %d commands against %d", held, idle)
	}
}

// A relay that greets and then refuses is tried with one message at a time, and the others stay in Redis.
func TestHold_probeMessage(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = h.queue.With(Options{MaxRetry: new(0)})
	var up atomic.Bool
	var asked atomic.Int64
	probed := make(chan struct{}, 100_000)
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		if up.Load() {
			return mailer.Result{}
		}
		asked.Add(1)
		probed <- struct{}{}
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepMail, Err: errors.New("connection lost")}}
	}
	h.send(200, nil)
	var back atomic.Int64
	cfg := h.config()
	cfg.Connections, cfg.BatchSize = 1, 5
	held := watch(&cfg)
	cfg.Observers = append(cfg.Observers, Observer{Back: func(b GivenBack) {
		if b.Reason == BackHeld {
			back.Add(1)
		}
	}})
	h.start(cfg)
	if reason := <-held; reason == nil {
		t.Fatal("held for no reason")
	}
	h.eventually("all is in Redis", func() bool { return h.info().Pending == 200 })
	before, backBefore := asked.Load(), back.Load()
	for range before {
		<-probed
	}
	for range 2 { // after a second, and two more
		<-probed
	}
	h.eventually("the probe is back", func() bool { return h.info().Pending == 200 && back.Load() >= backBefore+2 })
	if info := h.info(); info.Retry+info.Archived != 0 {
		t.Errorf("retry %d, archived %d", info.Retry, info.Archived)
	}
	up.Store(true)
	h.wait(200)
	h.empty()
	h.once(200)
}

// A relay that is back while there is no mail is not held for ever.
func TestHold_nothingWaits(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.send(1, nil)
	away, back, _ := awayRelay()
	cfg := h.config()
	cfg.Connect = away.connect
	held := watch(&cfg)
	h.start(cfg)
	if reason := <-held; reason == nil {
		t.Fatal("held for no reason")
	}
	h.eventually("it is in Redis", func() bool { return h.info().Pending == 1 })
	if err := inspect(t, h.Server).DeleteTask("default", h.pending("default")[0]); err != nil {
		t.Fatal(err)
	}
	back()
	select {
	case reason := <-held:
		if reason != nil {
			t.Errorf("held: %v", reason)
		}
	case <-t.Context().Done():
		t.Error("held for ever")
	}
}

// Whatever time-out a program gives its tasks, a worker with its own settings delivers them.
func TestWorker_taskTimeout(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{time.Second, 5 * time.Minute, 14 * time.Minute} {
		for _, bulk := range []int{1, 10} {
			t.Run(fmt.Sprint(timeout, " in tasks of ", bulk), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, redistest.Options{})
				h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: bulk, TaskTimeout: timeout, Options: Options{MaxRetry: new(0)}})
				var slow atomic.Bool
				h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
					if slow.CompareAndSwap(false, true) {
						time.Sleep(2500 * time.Millisecond) // longer than the shortest time-out
					}
					return mailer.Result{}
				}
				var back atomic.Int64
				h.send(20, nil)
				h.start(WorkerConfig{Connect: h.relay.connect, Connections: 1, Observers: []Observer{{Back: func(GivenBack) { back.Add(1) }}}})
				h.wait(20)
				h.allEmpty()
				h.once(20)
				if n := back.Load(); n != 0 {
					t.Errorf("%d tasks were given back", n)
				}
			})
		}
	}
}

// What a worker cannot keep goes back to the head of its queue at once, then rests for longer each time, and is worth a
// word once.
func TestWorker_rounds(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Options: Options{MaxRetry: new(0)}})
	release := make(chan struct{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		<-release
		return mailer.Result{}
	}
	h.send(3, nil)
	backs := make(chan GivenBack, 100)
	log := &lineCounter{}
	cfg := h.config()
	cfg.Connections, cfg.BatchSize, cfg.Concurrency, cfg.Logger = 1, 1, 3, log.logger()
	cfg.BatchTimeout, cfg.ReplyTimeout, cfg.TaskTimeout = 500*time.Millisecond, time.Millisecond, time.Second
	cfg.Observers = []Observer{{Back: func(b GivenBack) { backs <- b }}}
	h.start(cfg)
	rounds, stuck := map[string]int{}, time.After(stuckAfter)
	for many := 0; many < 2; { // the third one is on the wire
		select {
		case b := <-backs:
			if b.Reason != BackTime || b.Queue != "default" {
				t.Errorf("given back: %+v", b)
			}
			if rounds[b.TaskID]++; rounds[b.TaskID] == manyRounds {
				many++
			}
		case <-stuck:
			t.Fatalf("given back: %v", rounds)
		}
	}
	close(release)
	h.wait(3)
	h.empty()
	h.once(3)
	words := slices.DeleteFunc(log.all(), func(line string) bool { return !strings.Contains(line, "find no free connection") })
	if len(words) != 1 {
		t.Errorf("%d words about it, want one: %q", len(words), words)
	}
}

// The pauses double up to ten minutes; progress makes them short again, and what ends by itself has none.
func TestRounds(t *testing.T) {
	t.Parallel()
	r := newRounds(*new(lineCounter).logger())
	now := time.Now()
	name := (&taskMessage{}).name
	var pauses []time.Duration
	for range 13 {
		pauses = append(pauses, r.again("a", name, BackMemory, 0, now)/time.Second)
	}
	if want := []time.Duration{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600}; !slices.Equal(pauses, want) {
		t.Errorf("pauses %v, want %v", pauses, want)
	}
	if got := r.again("a", name, BackMemory, 7, now); got != 0 {
		t.Errorf("%v after progress", got)
	}
	r.again("a", name, BackMemory, 7, now)
	r.forget("a")
	if got := r.again("a", name, BackMemory, 7, now); got != 0 {
		t.Errorf("%v after an end", got)
	}
	for range 5 {
		if got := r.again("b", name, BackHeld, 0, now); got != 0 {
			t.Errorf("%v for a held mailer", got)
		}
	}
}

// A worker that is told to stop while it has a connection to try a held relay with, and no message for it, ends at once.
func TestHold_stopsInProbe(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.send(1, nil)
	away, back, tried := awayRelay()
	cfg := h.config()
	cfg.Connect, cfg.Connections, cfg.ShutdownTimeout = away.connect, 1, 5*time.Second
	held := watch(&cfg)
	stop := h.start(cfg)
	if reason := <-held; reason == nil {
		t.Fatal("not held")
	}
	h.eventually("it is in Redis", func() bool { return h.info().Pending == 1 })
	if err := inspect(t, h.Server).DeleteTask("default", h.pending("default")[0]); err != nil {
		t.Fatal(err)
	}
	back()
	for len(tried) > 0 {
		<-tried
	}
	<-tried
	stop() // which fails if the worker does not end in time
}
