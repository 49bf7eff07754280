package tasks

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// producers hand over mail, and try each message again until Redis has accepted it.
type producers struct {
	queue *Queue
	next  atomic.Int64
	stop  chan struct{}
	wg    sync.WaitGroup

	mu       sync.Mutex
	accepted map[string]time.Time // by Message-ID
	doubtful map[string]bool      // handed over more than once: an earlier try may have been accepted
}

func startProducers(t *testing.T, q *Queue, n int) *producers {
	t.Helper()
	p := &producers{queue: q, stop: make(chan struct{}), accepted: map[string]time.Time{}, doubtful: map[string]bool{}}
	for range n {
		p.wg.Go(func() { p.run(t) })
	}
	return p
}

func (p *producers) run(t *testing.T) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		m := mail(fmt.Sprint(p.next.Add(1)))
		for {
			_, err := p.queue.Enqueue(t.Context(), m)
			p.mu.Lock()
			if err == nil {
				p.accepted[m.MessageID] = time.Now()
			} else {
				p.doubtful[m.MessageID] = true
			}
			p.mu.Unlock()
			<-tick.C
			if err == nil {
				break
			}
		}
		select {
		case <-p.stop:
			return
		default:
		}
	}
}

func (p *producers) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.accepted)
}

// end stops the producers when n messages are accepted.
func (p *producers) end() {
	close(p.stop)
	p.wg.Wait()
}

// orphanScript does at once what asynq does when a lease has run out: the task goes back to
// the queue. Such a task is one that Redis gave out or was told the end of, and forgot.
const orphanScript = `
local ids = redis.call("LRANGE", KEYS[1], 0, -1)
for _, id in ipairs(ids) do
  redis.call("LREM", KEYS[1], 0, id)
  redis.call("ZREM", KEYS[2], id)
  redis.call("RPUSH", KEYS[3], id)
  redis.call("HSET", ARGV[1] .. id, "state", "pending")
end
return #ids`

func giveBackOrphans(t *testing.T, client redis.UniversalClient) int {
	t.Helper()
	keys := []string{"asynq:{default}:active", "asynq:{default}:lease", "asynq:{default}:pending"}
	n, err := client.Eval(t.Context(), orphanScript, keys, "asynq:{default}:t:").Int()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The master is killed under load, and the replica takes its place: the worker and the
// producers go on by themselves. Replication is asynchronous, so what was accepted in the last
// moment may be lost, and only that.
func TestWorker_failover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t, redistest.Options{Password: "s3cret"})
	h := newRealHouse(t, s.URL(), s.Client(t))
	log := &lineCounter{}
	cfg := h.config()
	cfg.Logger = log.logger()
	p := startProducers(t, h.queue, 3)
	h.eventually("1,000 accepted", func() bool { return p.count() >= 1000 })
	stop := h.start(cfg)
	h.wait(700)
	killed := time.Now()
	var dead time.Time
	s.Failover(func(master *redistest.Server) {
		master.Kill()
		dead = time.Now()
	})
	t.Logf("failover took %v", time.Since(killed).Round(time.Millisecond))
	after := p.count()
	h.eventually("1,500 more accepted", func() bool { return p.count() >= after+1500 })
	p.end()
	h.eventually("nothing waits", func() bool { return h.waiting() == 0 })
	orphans := giveBackOrphans(t, h.admin)
	h.eventually("the queue is empty", func() bool { all, _ := h.size("default"); return all == 0 })
	stop()

	ids := h.relay.ids()
	lost, twice := 0, 0
	for id, at := range p.accepted {
		switch n := ids[id]; {
		case n == 0:
			lost++
			// The answer of the master may have been read after its end. The sentinels take half a second to see that it is gone.
			if killed.Sub(at) > time.Second || at.Sub(dead) > 500*time.Millisecond {
				t.Errorf("%s was accepted %v before the kill, and is lost", id, killed.Sub(at))
			}
		case n > 1 && !p.doubtful[id]:
			twice++
		}
	}
	t.Logf("accepted %d, lost %d, twice %d, orphans %d, handed over again %d, lines %d",
		len(p.accepted), lost, twice, orphans, len(p.doubtful), len(log.all()))
	if twice > 0 {
		t.Errorf("%d messages delivered twice", twice)
	}
	if lines := log.all(); len(lines) > 40 {
		t.Errorf("%d lines logged, such as %s", len(lines), lines[0])
	}
}

// waiting returns how many tasks of the default queue wait to be taken, or -1.
func (h *realHouse) waiting() int {
	ctx := h.t.Context()
	pipe := h.admin.Pipeline()
	pending := pipe.LLen(ctx, "asynq:{default}:pending")
	scheduled := pipe.ZCard(ctx, "asynq:{default}:scheduled")
	retry := pipe.ZCard(ctx, "asynq:{default}:retry")
	if _, err := pipe.Exec(ctx); err != nil {
		return -1
	}
	return int(pending.Val() + scheduled.Val() + retry.Val())
}

// A failover may forget that a task was given out. The worker then gets it a second time while
// the message is still on the wire, and sends it once.
func TestWorker_failoverForgetsDequeue(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	started, release := make(chan struct{}, 10), make(chan struct{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		started <- struct{}{}
		<-release
		return mailer.Result{}
	}
	h.send(1, nil)
	stop := h.start(h.config())
	<-started
	if n := giveBackOrphans(t, h.Client(t)); n != 1 {
		t.Fatalf("%d tasks given back, want 1", n)
	}
	h.eventually("the task is given out again", func() bool { return h.info().Active == 1 && h.info().Pending == 0 })
	h.send(1, func(m *mailer.EmailMessage) { m.MessageID = "<after@t>" }) // goes the same way, behind it
	<-started
	close(release)
	h.wait(2)
	h.empty()
	stop()
	h.once(2)
}
