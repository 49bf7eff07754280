package tasks

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/ratelimit"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// rateFor is how long TestRate_fleet sends. The whole minute: go test ./tasks -run TestRate_fleet -ratefor=1m -v
var rateFor = flag.Duration("ratefor", 5*time.Second, "how long the test of the rate of several workers sends")

func perSecond(n int) Rates {
	return Rates{Messages: RateLimits{{Most: n, Per: time.Second, Burst: 1}}}
}

// hourly lets one message go, and no other while a test lives.
func hourly() Rates { return Rates{Messages: RateLimits{{Most: 1, Per: time.Hour, Burst: 1}}} }

// grants are what Redis has let go, by its own clock.
type grants struct {
	mu   sync.Mutex
	list []ratelimit.Answer
}

func (g *grants) told(a ratelimit.Answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.Messages > 0 {
		a.At = a.At.Add(a.Wait)
		g.list = append(g.list, a)
	}
}

// busiest is how many messages the busiest second had, and how long all took.
func (g *grants) busiest() (most int, took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	slices.SortFunc(g.list, func(a, b ratelimit.Answer) int { return a.At.Compare(b.At) })
	first, in := 0, 0
	for _, a := range g.list {
		in += a.Messages
		for ; !g.list[first].At.After(a.At.Add(-time.Second)); first++ {
			in -= g.list[first].Messages
		}
		most = max(most, in)
	}
	return most, g.list[len(g.list)-1].At.Sub(g.list[0].At)
}

// rated is a house in which workers have rates. Each of them has a client of its own, as processes have.
func (h *house) rated(cfg WorkerConfig, g *grants) (w *Worker, stop func()) {
	h.t.Helper()
	client, err := redisconn.ConnectWorker(h.URL())
	if err != nil {
		h.t.Fatal(err)
	}
	if w, err = NewWorker(client, cfg); err != nil {
		h.t.Fatal(err)
	}
	if g != nil {
		for _, d := range w.dispatchers {
			d.rates.told = g.told
		}
	}
	return w, h.untilStopped(w, client)
}

// Three workers together have 200 a second: in the long run, and in every second of Redis's clock. No message costs a try or is sent twice.
func TestRate_fleet(t *testing.T) {
	t.Parallel()
	const rate = 200
	h := newHouse(t, redistest.Options{})
	n := int(rateFor.Seconds() * rate)
	h.send(n, nil)
	var g grants
	var retried atomic.Int32
	for range 3 {
		cfg := h.config()
		cfg.Connections, cfg.BatchSize = 4, 100
		cfg.Rates = map[string]Rates{"": perSecond(rate)}
		cfg.Observers = []Observer{{Outcome: func(o Outcome) {
			if o.Try > 1 || o.Action != ActionSent {
				retried.Add(1)
			}
		}}}
		h.rated(cfg, &g)
	}
	h.wait(n)
	h.empty()
	h.once(n)
	if retried.Load() > 0 {
		t.Errorf("%d tries beside the first one", retried.Load())
	}
	most, took := g.busiest()
	if most > rate*105/100+1 {
		t.Errorf("%d messages in a second, and %d and a burst of 1 are the most", most, rate*105/100)
	}
	want := time.Duration(n) * time.Second / rate
	t.Logf("%d messages in %v, which is %.1f %% of the rate; %d in the busiest second", n, took.Round(time.Millisecond), 100*want.Seconds()/took.Seconds(), most)
	if took < want*95/100 {
		t.Errorf("%d messages in %v: faster than the rate", n, took)
	}
}

// What waits for its rate can be cancelled, expires, is paused, and costs no try; a worker stops although it waits.
func TestRate_waits(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var tries atomic.Int32
	cfg := h.config()
	cfg.Rates = map[string]Rates{"": {Messages: RateLimits{{Most: 4, Per: time.Minute, Burst: 1}}}}
	cfg.Observers = []Observer{{Outcome: func(o Outcome) {
		if o.Action == ActionRetry {
			tries.Add(1)
		}
	}}}
	w, stop := h.rated(cfg, nil)
	h.send(1, nil)
	h.wait(1)
	id, err := h.queue.Enqueue(t.Context(), mail("waits-0"))
	if err != nil {
		t.Fatal(err)
	}
	// A queue would refuse it if its deadline had passed already.
	soon := time.Now().Add(2 * time.Second)
	p := &wire.Payload{Meta: wire.Meta{DueAt: time.Now(), Deadline: &soon}, Message: mail("waits-1").WithDefaults(mailer.Defaults{})}
	if err := h.queue.client.Enqueue(t.Context(), p, "late"); err != nil {
		t.Fatal(err)
	}
	h.eventually("a message that waits for its rate", w.dispatchers[""].rates.Waits)
	if err := h.queue.Cancel(t.Context(), id); err != nil {
		t.Errorf("a message that waits for its rate cannot be cancelled: %v", err)
	}
	inspector := inspect(t, h.Server)
	queue := func() asynq.QueueInfo {
		info, err := inspector.GetQueueInfo("default")
		if err != nil {
			return asynq.QueueInfo{}
		}
		return *info
	}
	h.eventually("the dead letter of one whose deadline has passed", func() bool { return queue().Archived == 1 })
	if last := h.archived()[0].LastErr; !strings.Contains(last, "deadline") {
		t.Errorf("it says %q", last)
	}
	h.send(4, func(m *mailer.EmailMessage) { m.MessageID = "<later-" + m.MessageID[1:] })
	h.eventually("messages that wait", func() bool { return queue().Active > 0 && w.dispatchers[""].rates.Waits() })
	if _, err := NewPauses(h.Client(t)).Pause(t.Context(), Pause{Target: PauseTarget{Queue: "default"}}); err != nil {
		t.Fatal(err)
	}
	h.eventually("paused messages in Redis", func() bool { return queue().Active == 0 })
	stop()
	for id := range h.relay.ids() {
		if strings.HasPrefix(id, "<waits-") {
			t.Errorf("%s was sent", id)
		}
	}
	if n := len(h.relay.ids()); n+queue().Pending < 5 || tries.Load() > 0 { // the cancelled one may wait to be dropped
		t.Errorf("%d messages were sent, %d wait, and %d tries were spent", n, queue().Pending, tries.Load())
	}
}

// A mailer that waits for its rate keeps no other one waiting.
func TestRate_otherMailers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Mailers: []string{"slow"}})
	cfg := h.config()
	cfg.Mailers, cfg.Rates = map[string]int{"slow": 1}, map[string]Rates{"slow": hourly()}
	w, _ := h.rated(cfg, nil)
	slow, err := h.queue.Using("slow")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := slow.SendMessages(t.Context(), []*mailer.EmailMessage{mail("s1"), mail("s2"), mail("s3")}); n != 3 {
		t.Fatal(err)
	}
	h.wait(1)
	h.eventually("a message that waits", w.dispatchers["slow"].rates.Waits)
	h.send(200, nil)
	h.wait(200)
	if n := len(h.relay.ids()); n != 201 {
		t.Errorf("%d messages have arrived, want 201", n)
	}
}

// Critical mail does not wait behind what other queues have: it goes ahead, up to its share.
func TestRate_share(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	cfg := h.config()
	cfg.Queues, cfg.Rates = map[string]int{"critical": 3, "default": 1}, map[string]Rates{"": perSecond(20)}
	h.rated(cfg, nil)
	h.send(400, nil)
	h.wait(20)
	const urgent = 5
	for i := range urgent {
		if _, err := h.queue.With(Options{Queue: "critical"}).Enqueue(t.Context(), mail(fmt.Sprint("critical-", i))); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually("critical mail", func() bool {
		n := 0
		for id := range h.relay.ids() {
			if strings.HasPrefix(id, "<critical-") {
				n++
			}
		}
		return n == urgent
	})
	// All that waits would take twenty seconds. However slow the machine is, the other mail keeps to its rate.
	if n := len(h.relay.ids()); n > 300 {
		t.Errorf("critical mail came after %d of 400 messages", n)
	}
}

// A worker takes no more in hand than its relay takes in a minute. The rest waits in Redis, for others, and can be paused.
func TestRate_inHand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		bulk int
		rate RateLimit
		most int // tasks
	}{
		{"single", 1, RateLimit{Most: 30, Per: time.Minute, Burst: 1}, 30},
		{"bulk", 10, RateLimit{Most: 30, Per: time.Minute, Burst: 1}, 1},
		{"less than one", 1, RateLimit{Most: 2, Per: time.Hour, Burst: 1}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: tt.bulk})
			h.send(200, nil)
			cfg := h.config()
			cfg.BatchSize, cfg.Rates = 100, map[string]Rates{"": {Messages: RateLimits{tt.rate}}}
			w, _ := h.rated(cfg, nil)
			h.wait(1)
			h.eventually("messages that wait", w.dispatchers[""].rates.Waits)
			most := 0
			for range 40 {
				n := h.Client(t).LLen(t.Context(), "asynq:{default}:active").Val() + h.Client(t).LLen(t.Context(), "asynq:{default:mass}:active").Val()
				most = max(most, int(n))
				time.Sleep(5 * time.Millisecond)
			}
			if most > tt.most {
				t.Errorf("%d tasks in hand, want %d at most", most, tt.most)
			}
		})
	}
}

// A relay that says it gets too much gets less, from all workers, and more again when it takes mail. Each end of that is said once.
func TestRate_adaptive(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var refuse atomic.Bool
	refuse.Store(true)
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) (r mailer.Result) {
		if refuse.Load() && m.MessageID == "<0@t>" {
			r.Err = &mailer.SendError{Class: mailer.Temporary, Step: mailer.StepEnd, Code: 450, Enhanced: "4.7.0", Text: "Too many messages, slow down"}
			refuse.Store(false)
		}
		return r
	}
	var mu sync.Mutex
	var log bytes.Buffer
	var factors []float64
	cfg := h.config()
	cfg.Rates = map[string]Rates{"": perSecond(500)}
	cfg.Logger = new(zerolog.New(zerolog.SyncWriter(&log)).Level(zerolog.InfoLevel))
	cfg.rateRaiseWait = 30 * time.Millisecond
	cfg.Observers = []Observer{{Rate: func(s RateState) {
		mu.Lock()
		defer mu.Unlock()
		factors = append(factors, s.Factor)
	}}}
	_, stop := h.rated(cfg, nil)
	h.send(1500, nil)
	h.wait(1500)
	stop()
	mu.Lock()
	defer mu.Unlock()
	if n := len(factors); n < 5 || factors[0] != 1 || factors[1] != .5 || !slices.IsSorted(factors[1:]) {
		t.Errorf("the factors were %v, want 1, half, and then more and more", factors)
	}
	if n := strings.Count(log.String(), "the relay wants less mail"); n != 1 {
		t.Errorf("its beginning is said %d times:\n%s", n, log.String())
	}
	if n := strings.Count(log.String(), "at the whole rate again"); n != 1 {
		t.Errorf("its end is said %d times:\n%s", n, log.String())
	}
}

func TestWantsLess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		step     mailer.Step
		code     int
		enhanced string
		text     string
		want     bool
	}{
		{mailer.StepMail, 421, "4.7.0", "Try again later, closing connection", true},
		{mailer.StepGreet, 421, "", "busy", true},
		{mailer.StepEnd, 432, "4.3.2", "Concurrent connections limit exceeded", true},
		{mailer.StepEnd, 454, "", "Throttling failure: Maximum sending rate exceeded.", true},
		{mailer.StepMail, 450, "4.7.1", "Error: too much mail from 192.0.2.1", true},
		{mailer.StepRcpt, 450, "4.7.1", "Error: too many recipients from 192.0.2.1", true},
		{mailer.StepRcpt, 452, "4.5.3", "Too many recipients", false},
		{mailer.StepRcpt, 454, "4.7.1", "Relay access denied", false},
		{mailer.StepRcpt, 421, "", "no", false},
		{mailer.StepRcpt, 450, "4.2.0", "Greylisted", false},
		{mailer.StepEnd, 550, "5.7.1", "too many complaints", false},
		{mailer.StepEnd, 451, "4.3.0", "disk", false},
	} {
		err := &mailer.SendError{Step: tt.step, Code: tt.code, Enhanced: tt.enhanced, Text: tt.text}
		if got := wantsLess(fmt.Errorf("wrapped: %w", err)); got != tt.want {
			t.Errorf("%v: %v", err, got)
		}
	}
	if wantsLess(errors.New("too many")) || wantsLess(nil) {
		t.Error("not a reply")
	}
}

// A message over the rate of its domain waits in Redis and keeps nothing else waiting: in a task of its own also if it came in one
// with others. It costs no try.
func TestRate_domains(t *testing.T) {
	t.Parallel()
	for name, bulk := range map[string]int{"single": 1, "bulk": 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: bulk})
			var back, tries atomic.Int32
			cfg := h.config()
			cfg.Rates = map[string]Rates{"": {Domains: RateDomains{{Name: "slow.example", Limit: RateLimit{Most: 2, Per: time.Second, Burst: 1}}}}}
			cfg.Observers = []Observer{{
				Back: func(b GivenBack) {
					if b.Reason == BackRate {
						back.Add(1)
					}
				},
				Outcome: func(o Outcome) {
					if o.Try > 1 {
						tries.Add(1)
					}
				},
			}}
			var order []string
			var mu sync.Mutex
			h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) (r mailer.Result) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, m.To[0])
				return r
			}
			const slow, all = 12, 50
			h.send(all, func(m *mailer.EmailMessage) {
				var i int
				if _, err := fmt.Sscanf(m.MessageID, "<%d@t>", &i); err != nil {
					t.Error(err)
				}
				if m.To = []string{"ann@fast.example"}; i < slow {
					m.To = []string{"ann@slow.example"}
				}
			})
			h.rated(cfg, nil)
			h.wait(all)
			h.empty()
			h.once(all)
			if back.Load() == 0 || tries.Load() > 0 {
				t.Errorf("%d were put back, and %d tries were spent beside the first ones", back.Load(), tries.Load())
			}
			mu.Lock()
			defer mu.Unlock()
			// The first messages of the queue are those that wait, and the last ones that arrive.
			if last := order[all-4:]; slices.Contains(last, "ann@fast.example") {
				t.Errorf("mail of another domain came last: %v", order)
			}
		})
	}
}

// So many connections are open at once, over all workers, and each has some; those of one that ends are the other's.
func TestRate_connections(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var open, most atomic.Int32
	gate := make(chan struct{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) (r mailer.Result) {
		select {
		case <-gate:
		case <-time.After(25 * time.Millisecond): // so that there is mail until the leases have moved
		}
		return r
	}
	const all = 3
	var leased sync.Map
	start := func(name string) (stop func()) {
		cfg := h.config()
		cfg.Connections = 4
		cfg.Connect = func(string) (mailer.Backend, error) {
			return &counted{line: &line{relay: h.relay}, open: &open, most: &most}, nil
		}
		cfg.Rates = map[string]Rates{"": {Connections: all}}
		cfg.Observers = []Observer{{Leased: func(_ string, n, of int) {
			leased.Store(name, n)
			if of != all {
				t.Errorf("of %d connections, want %d", of, all)
			}
		}}}
		_, stop = h.rated(cfg, nil)
		return stop
	}
	has := func(name string) int {
		n, _ := leased.Load(name)
		i, _ := n.(int)
		return i
	}
	h.send(4000, nil)
	stopA := start("a")
	h.eventually("all connections for one", func() bool { return has("a") == all && open.Load() == all })
	stopB := start("b")
	h.eventually("a part for each", func() bool { return has("b") >= 1 && has("a") <= 2 })
	stopA()
	h.eventually("all for the other one", func() bool { return has("b") == all })
	close(gate)
	h.wait(4000)
	h.empty()
	h.once(4000)
	stopB()
	if most.Load() > all {
		t.Errorf("%d connections were open at once, want %d at most", most.Load(), all)
	}
	if n := h.Client(t).Exists(t.Context(), "mailpouch:{rate:}:connections").Val(); n != 0 {
		t.Error("connections are leased when all workers have ended")
	}
}

// counted counts open connections.
type counted struct {
	*line
	open, most *atomic.Int32
	is         bool
}

func (c *counted) Open(ctx context.Context) (bool, error) {
	opened, err := c.line.Open(ctx)
	if err == nil && !c.is {
		c.is = true
		n := c.open.Add(1)
		for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
		}
	}
	return opened, err
}

func (c *counted) Close() error {
	if c.is {
		c.is = false
		c.open.Add(-1)
	}
	return c.line.Close()
}

// More workers than connections: those without one leave the mail to the others, and nothing is held for good.
func TestRate_fewConnections(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.send(300, nil)
	for range 3 {
		cfg := h.config()
		cfg.Rates = map[string]Rates{"": {Connections: 1}}
		h.rated(cfg, nil)
	}
	h.wait(300)
	h.empty()
	h.once(300)
}

func TestRate_bad(t *testing.T) {
	t.Parallel()
	_, err := NewWorker(nil, WorkerConfig{
		Connect: newRelay().connect,
		Rates:   map[string]Rates{"marketing": {Messages: RateLimits{{Most: -1, Per: time.Second}}}},
	})
	if bad := new(RateError); !errors.As(err, &bad) || !strings.Contains(err.Error(), "marketing") {
		t.Errorf("%v", err)
	}
}

// With the rights that are documented, on one Redis and in a cluster, and when Redis forgets.
func TestRate_realRedis(t *testing.T) {
	t.Parallel()
	rates := map[string]Rates{"": {
		Messages: RateLimits{{Most: 500, Per: time.Second, Burst: 1}}, Recipients: RateLimits{{Most: 100_000, Per: time.Hour}}, Connections: 2,
		Domains: RateDomains{{Name: "*", Limit: RateLimit{Most: 400, Per: time.Second, Burst: 5}}},
	}}
	run := func(t *testing.T, url string, admin redis.UniversalClient) {
		t.Helper()
		h := newRealHouse(t, url, admin)
		cfg := h.config()
		cfg.Rates = rates
		h.start(cfg)
		h.send(100, nil)
		h.wait(100)
		if err := admin.Del(t.Context(), "mailpouch:{rate:}").Err(); err != nil {
			t.Error(err)
		}
		h.send(100, func(m *mailer.EmailMessage) { m.MessageID = "<again-" + m.MessageID[1:] })
		h.wait(100)
		h.once(200)
	}
	t.Run("ACL", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t, redistest.Options{Config: []string{documentedACL(t)}})
		run(t, strings.Replace(s.URL(), "redis://", "redis://mailpouch:SECRET@", 1), s.Client(t))
	})
	t.Run("cluster, ACL", func(t *testing.T) {
		t.Parallel()
		c := redistest.StartCluster(t, 3, redistest.Options{Config: []string{documentedACL(t)}})
		run(t, "redis://mailpouch:SECRET@"+c.Masters[0].Addr()+"?cluster=true", c.Client(t))
	})
}
