package tasks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/isolation"
)

var weights = map[string]int{"critical": 6, "default": 3, "bulk": 1}

// However much bulk mail is stuck, critical mail has a connection to itself.
func TestDispatcher_priority(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	release := make(chan struct{})
	stuck := make(chan struct{}, 1000)
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if strings.HasPrefix(m.Subject, "bulk") {
			stuck <- struct{}{}
			<-release
		}
		return mailer.Result{}
	}
	queue := h.queue
	h.queue = queue.With(Options{Queue: "bulk"})
	h.send(300, func(m *mailer.EmailMessage) { m.Subject = "bulk" })
	cfg := h.config()
	cfg.Queues = weights
	h.start(cfg)
	for range cfg.Connections {
		<-stuck // every other connection is busy now
	}
	h.queue = queue.With(Options{Queue: "critical"})
	h.send(5, func(m *mailer.EmailMessage) { m.MessageID = "<critical-" + m.MessageID[1:] })
	h.wait(5)
	for _, m := range h.relay.all() {
		if !strings.HasPrefix(m.id, "<critical-") {
			t.Errorf("%s was delivered while it should be stuck", m.id)
		}
	}
	close(release)
	h.wait(300)
}

// bareDispatcher is the default mailer's, without a worker around it.
func bareDispatcher(connections int, cfg WorkerConfig) *dispatcher {
	return newDispatcher("", connections, cfg, isolation.New(nil, zerolog.Nop()), func([]string) {})
}

// Where both ways in have mail, the weights share the senders.
func TestSender_share(t *testing.T) {
	t.Parallel()
	l := bareDispatcher(1, WorkerConfig{Queues: weights})
	if l.top != "critical" || l.share != 0.6 {
		t.Fatalf("priority queue %q with a share of %v, want critical with 0.6", l.top, l.share)
	}
	synctest.Test(t, func(t *testing.T) {
		normal, priority := make(chan []*delivery), make(chan []*delivery)
		pool := newConnections("", nil, WorkerConfig{}, zerolog.Nop())
		s := &sender{breaker: newBreaker(), conn: pool.add(&line{}, false), normal: normal, priority: priority, share: l.share, batchSize: 1, inHand: func() int { return 2 }}
		stop, cancel := context.WithCancel(t.Context())
		defer cancel()
		offer := func(c chan<- []*delivery, d *delivery) {
			for {
				select {
				case c <- []*delivery{d}:
				case <-stop.Done():
					return
				}
			}
		}
		urgent, other := new(delivery), new(delivery)
		go offer(priority, urgent)
		go offer(normal, other)
		count := map[*delivery]int{}
		for range 2000 {
			synctest.Wait() // until both are waiting
			for _, d := range s.next(stop, stop) {
				count[d]++
			}
		}
		if count[urgent] < 1000 || count[urgent] > 1400 {
			t.Errorf("%d of 2000 batches were of the priority queue, want about 1200", count[urgent])
		}
	})
}

// A sender whose connection is one too many keeps nothing for itself, and one that probes the relay goes on: all wait for it.
func TestSender_rests(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		left    int
		probing bool
	}{"with mail": {14, false}, "without": {0, false}, "probing": {0, true}, "probing with mail": {14, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				normal := make(chan []*delivery)
				pool := newConnections("", nil, WorkerConfig{}, zerolog.Nop())
				pool.growth = newGrowth(1, 2)
				pool.growth.now = 2
				relay := newRelay()
				first, second := pool.add(&line{relay: relay}, false), pool.add(&line{relay: relay}, false)
				if err := errors.Join(first.Open(t.Context()), second.Open(t.Context())); err != nil {
					t.Fatal(err)
				}
				pool.growth.now = 1
				stop, cancel := context.WithCancel(t.Context())
				s := &sender{
					breaker: newBreaker(), conn: second, normal: normal, batchSize: 100, busy: new(busy), probing: tt.probing, session: session{all: newSessions("", zerolog.Nop(), nil)},
					inHand: func() int { return tt.left },
				}
				for range tt.left {
					s.remaining = append(s.remaining, new(delivery))
				}
				through := make(chan []*delivery)
				go func() { through <- s.next(stop, stop) }()
				switch {
				case tt.probing:
					if batch := <-through; len(batch) != tt.left {
						t.Errorf("it probes with %d messages", len(batch))
					}
				case tt.left > 0:
					if others := <-normal; len(others) != tt.left {
						t.Errorf("the others get %d messages, want %d", len(others), tt.left)
					}
					fallthrough
				default:
					synctest.Wait()
					select {
					case batch := <-through:
						t.Errorf("it does not rest, with %d messages", len(batch))
					default:
					}
					cancel()
					if batch := <-through; len(batch) > 0 {
						t.Errorf("%d messages more", len(batch))
					}
				}
				cancel()
			})
		})
	}
}

// A sender takes its part of what the worker has in hand, and leaves the others theirs.
func TestSender_evenPart(t *testing.T) {
	t.Parallel()
	for name, bulk := range map[string]int{"one task a message": 1, "bulk": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: bulk})
			release, begun := make(chan struct{}), make(chan struct{}, 100)
			h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
				begun <- struct{}{}
				<-release
				return mailer.Result{}
			}
			cfg := h.config()
			cfg.Connections, cfg.BatchSize, cfg.Concurrency = 4, 100, 40
			var most atomic.Int64
			cfg.Observers = []Observer{{Batch: func(b Batch) { most.Store(max(most.Load(), int64(b.Size))) }}}
			w, _ := h.startWorker(h.Client(t), cfg)
			h.send(40, nil)
			h.eventually("all are in hand, and each connection has some", func() bool {
				return len(begun) == 4 && w.dispatchers[""].handed.count() == 40
			})
			close(release)
			h.wait(40)
			h.once(40)
			if most.Load() > 10 {
				t.Errorf("a batch of %d messages, of 40 for 4 connections", most.Load())
			}
		})
	}
}

func TestDispatcher_priority_oneQueue(t *testing.T) {
	t.Parallel()
	if l := bareDispatcher(1, WorkerConfig{Queues: map[string]int{"default": 1}}); l.priority != nil {
		t.Error("a mailer with one queue has a priority channel")
	}
}

// A relay that is down holds up its own mail only.
func TestMailers_oneDown(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	up := make(chan struct{})
	h.relay.down = func() error {
		select {
		case <-up:
			return nil
		default:
			return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("connection refused")}
		}
	}
	marketing := newRelay()
	cfg := h.config()
	cfg.Mailers = map[string]int{"marketing": 3}
	cfg.Connect = func(name string) (mailer.Backend, error) {
		if name == "marketing" {
			return marketing.connect(name)
		}
		return h.relay.connect(name)
	}
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Mailers: []string{"marketing"}})
	h.send(500, nil) // more than the worker has at once
	held := watch(&cfg)
	h.start(cfg)
	if reason := <-held; reason == nil {
		t.Fatal("held for no reason")
	}
	h.eventually("what the worker had is back", func() bool { return h.info().Pending == 500 })

	b, err := h.queue.Using("marketing")
	if err != nil {
		t.Fatal(err)
	}
	h.queue, h.relay = b.(*Queue), marketing
	h.send(200, nil)
	h.wait(200)
	h.once(200)
	close(up)
	h.eventually("an empty queue", func() bool { return h.info().Size == 0 })
}

// A producer that does not know the mailers names one all the same; the worker
// forwards the message, or says that there is none.
func TestMailers_unknownToProducer(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	cfg := h.config()
	cfg.Mailers = map[string]int{"marketing": 0}
	var names []string
	cfg.Connect = func(name string) (mailer.Backend, error) {
		names = append(names, name)
		return h.relay.connect(name)
	}
	h.queue = h.queue.With(Options{Using: "marketing", Retention: time.Hour})
	h.send(3, nil)
	h.queue = h.queue.With(Options{Using: "marketign"})
	h.send(1, func(m *mailer.EmailMessage) { m.MessageID = "<typo@t>" })
	h.start(cfg)
	h.wait(3)
	h.once(3)
	h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
	if reason := h.archived()[0].LastErr; !strings.Contains(reason, `mailer "marketign" is not configured`) {
		t.Errorf("reason %q", reason)
	}
	h.eventually("the forwarded tasks complete in their own queue", func() bool {
		info, err := inspect(t, h.Server).GetQueueInfo("marketing.default")
		return err == nil && info.Completed == 3
	})
	slices.Sort(names)
	if want := []string{"", "", "marketing", "marketing"}; !slices.Equal(names, want) {
		t.Errorf("connections for %q, want %q", names, want)
	}
}

func TestQueue_Using(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	q := NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Mailers: []string{"alerts", "marketing"}})
	_, err := q.Using("marketign")
	var unknown *UnknownMailerError
	if !errors.As(err, &unknown) || unknown.Name != "marketign" {
		t.Errorf("Using an unknown mailer: %v", err)
	}
	if _, err := q.With(Options{Using: "marketign"}).Enqueue(t.Context(), message("ann@example.com")); !errors.As(err, &unknown) {
		t.Errorf("Enqueue using an unknown mailer: %v", err)
	}
	b, err := q.Connect(mailer.Connection{Using: "alerts"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := b.(*Queue).Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	task, err := inspect(t, h.Server).GetTaskInfo("alerts.default", id)
	if err != nil {
		t.Fatal(err)
	}
	p, err := wire.Decode(task.Payload, nil)
	if err != nil || p.Using != "alerts" {
		t.Errorf("payload uses %q (%v)", p.Using, err)
	}
}

// A mailer has a batch for each connection in flight, and with many connections half of that.
func TestDispatcher_inHand(t *testing.T) {
	t.Parallel()
	tests := []struct {
		connections int
		cfg         WorkerConfig
		want        int
	}{
		{1, WorkerConfig{}, 100},
		{4, WorkerConfig{}, 400},
		{5, WorkerConfig{}, 400},
		{20, WorkerConfig{}, 666},
		{20, WorkerConfig{BatchSize: 10}, 200},
		{20, WorkerConfig{Concurrency: 7}, 7},
	}
	for _, tt := range tests {
		cfg := tt.cfg.withDefaults()
		if got := bareDispatcher(tt.connections, cfg).concurrency(tt.connections); got != tt.want {
			t.Errorf("%d connections, batches of %d, concurrency %d: %d in hand, want %d", tt.connections, cfg.BatchSize, cfg.Concurrency, got, tt.want)
		}
	}
}

// A mailer is busy for a moment after each message.
func TestBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b busy
		if b.lately() {
			t.Error("busy before the first message")
		}
		b.note(time.Now())
		<-time.After(checkInterval - 1)
		if !b.lately() {
			t.Error("not busy right after a message")
		}
		if <-time.After(1); b.lately() {
			t.Error("busy for ever")
		}
	})
}
