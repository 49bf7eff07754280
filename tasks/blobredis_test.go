package tasks

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/blobstore"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// tally counts the commands that a client sends.
type tally struct {
	mu      sync.Mutex
	counts  map[string]int
	big     atomic.Int64 // arguments of 50,000 octets or more
	largest atomic.Int64 // argument of asynq's scripts, in octets

	refuse func(cmd redis.Cmder) error
}

func (c *tally) watch(client *redis.Client) redis.UniversalClient {
	client.AddHook(c)
	return client
}

func (c *tally) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[name]
}

func (c *tally) note(cmd redis.Cmder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[cmd.Name()]++
	for _, arg := range cmd.Args() {
		data, _ := arg.([]byte)
		if len(data) >= 50_000 {
			c.big.Add(1)
		}
		if cmd.Name() == "evalsha" {
			c.largest.Store(max(c.largest.Load(), int64(len(data))))
		}
	}
}

func (c *tally) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *tally) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.note(cmd)
		if c.refuse != nil {
			if err := c.refuse(cmd); err != nil {
				cmd.SetErr(err)
				return err
			}
		}
		return next(ctx, cmd)
	}
}

func (c *tally) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			c.note(cmd)
		}
		return next(ctx, cmds)
	}
}

// Each blob of a cluster is on the master of its own, and no more rights are needed than
// README gives.
func TestBlobs_cluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, redistest.Options{Config: []string{documentedACL(t)}})
	client, err := redisconn.ConnectWorker("redis://mailpouch:SECRET@" + c.Masters[0].Addr() + "?cluster=true")
	if err != nil {
		t.Fatal(err)
	}
	admin := c.Client(t)
	contents := map[string][]byte{}
	m := message("ann@example.com")
	for seed := range byte(8) {
		content := brochure(seed, 100_000)
		contents[blobstore.Hash(content)] = content
		with(content)(m)
	}
	if _, err := NewQueue(client, QueueConfig{}).Enqueue(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	masters := map[string]bool{}
	for hash := range contents {
		node, err := admin.MasterForKey(t.Context(), blobKey(hash))
		if err != nil {
			t.Fatal(err)
		}
		masters[node.Options().Addr] = true
	}
	if len(masters) < 2 {
		t.Errorf("all blobs on %v", masters)
	}
	h := &house{t: t, relay: newRelay()}
	stop := h.startOn(client, h.config())
	h.wait(1)
	for hash, content := range contents {
		if !bytes.Contains(h.relay.all()[0].data, encoded(content)) {
			t.Errorf("blob %s did not arrive", hash)
		}
		h.eventually("no reference left", func() bool { return admin.Exists(t.Context(), refsKey(hash)).Val() == 0 })
	}
	if mine, err := client.SetNX(t.Context(), "mailpouch:blobs:sweep", "1", time.Minute).Result(); !mine || err != nil {
		t.Errorf("the lock of the sweep is not allowed: %v", err)
	}
	if err := blobstore.New(client, 0, zerolog.Nop()).Sweep(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
	stop()
}

// While Redis is away nothing is lost and no try is spent.
func TestBlobs_redisAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{AppendOnly: redistest.Always})
	content := brochure(1, 100_000)
	h.queue = h.queue.With(Options{MaxRetry: new(0)})
	h.send(20, with(content))
	asked := make(chan struct{}, 1)
	var away atomic.Bool
	away.Store(true)
	client := h.Client(t)
	client.AddHook(hook(func(cmd redis.Cmder) error {
		if cmd.Name() != "get" || !away.Load() {
			return nil
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		return &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}))
	h.startOn(client, h.config())
	<-asked
	away.Store(false)
	h.wait(20)
	h.empty()
	h.once(20)
}

// A restart of Redis while mail is on the wire and more waits for its attachments loses
// nothing and doubles nothing.
func TestBlobs_redisRestarts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{AppendOnly: redistest.Always})
	started, release := make(chan struct{}, 100), make(chan struct{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		started <- struct{}{}
		<-release
		return mailer.Result{}
	}
	contents := map[string][]byte{}
	h.send(60, func(m *mailer.EmailMessage) {
		contents[m.MessageID] = brochure(byte(len(contents)), 100_000)
		with(contents[m.MessageID])(m)
	})
	stop := h.start(h.config())
	<-started
	// With its hands full the worker asks for no task: one whose answer is lost comes back
	// only after a minute.
	h.eventually("40 active tasks", func() bool { return h.info().Active == 40 })
	h.Restart()
	close(release)
	h.wait(60)
	h.empty()
	stop()
	h.once(60)
	for _, r := range h.relay.all() {
		if !bytes.Contains(r.data, encoded(contents[r.id])) {
			t.Errorf("%s has another attachment", r.id)
		}
	}
	if err := h.sweep(); err != nil {
		t.Fatal(err)
	}
	for _, content := range contents {
		h.wantBlob(content, 0)
	}
}

// hook refuses commands in pipelines.
type hook func(cmd redis.Cmder) error

func (h hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if err := h(cmd); err != nil {
				cmd.SetErr(err)
				return err
			}
		}
		return next(ctx, cmds)
	}
}
