package tasks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/presence"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// servers is how many asynq servers run.
func (h *house) servers() int64 {
	return h.Client(h.t).ZCard(h.t.Context(), "asynq:servers").Val()
}

// A thousand mailers that have no mail cost Redis next to nothing.
func TestWorker_idle(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	cfg := h.config()
	cfg.Mailers = map[string]int{}
	for i := range 1000 {
		cfg.Mailers[fmt.Sprintf("tenant%d", i)] = 4
	}
	h.start(cfg)
	client := h.Client(t)
	h.eventually("a worker", func() bool { return client.SCard(t.Context(), wire.WorkersKey).Val() == 1 })
	const seconds = 6 // with all that is done every few seconds
	before := allCommands(t.Context(), client)
	time.Sleep(seconds * time.Second)
	if rate := (allCommands(t.Context(), client) - before) / seconds; rate > 400 {
		t.Errorf("%.0f commands a second", rate)
	}
	if n := strings.Count(client.ClientList(t.Context()).Val(), "\n"); n > 30 {
		t.Errorf("%d connections", n)
	}
	b, err := NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Mailers: []string{"tenant7"}}).Using("tenant7")
	if err != nil {
		t.Fatal(err)
	}
	h.queue = b.(*Queue)
	h.send(1, nil)
	h.wait(1)
	if n := h.servers(); n > 2 {
		t.Errorf("%d asynq servers run for one mailer that has mail", n)
	}
}

// A mailer falls asleep again and again while mail comes, at any moment: none of it is lost or sent twice.
func TestWorker_asleep(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	cfg := h.config()
	cfg.Queues = weights
	cfg.restAfter = 5 * time.Millisecond
	h.send(1, func(m *mailer.EmailMessage) { m.MessageID = "<first@t>" })
	rests := make(chan struct{})
	w, stop := h.startWorker(h.Client(t), cfg)
	h.wait(1)
	var resting sync.WaitGroup
	resting.Go(func() {
		for {
			select {
			case <-rests:
				return
			default:
				w.watch.rest()
				time.Sleep(rand.N(20 * time.Millisecond))
			}
		}
	})
	queue := h.queue
	var sent sync.WaitGroup
	const each = 60
	for n, name := range []string{"critical", "default", "bulk"} {
		sent.Go(func() {
			q := queue.With(Options{Queue: name})
			for i := range each {
				m := message("ann@example.com")
				m.MessageID = fmt.Sprintf("<%d@t>", n*each+i)
				if _, err := q.Enqueue(t.Context(), m); err != nil {
					t.Error(err)
				}
				time.Sleep(rand.N(40 * time.Millisecond))
			}
		})
	}
	sent.Wait()
	h.wait(3 * each)
	close(rests)
	resting.Wait()
	h.once(3*each + 1)
	h.eventually("no asynq server", func() bool { w.watch.rest(); return h.servers() == 0 })
	stop()
	if left := h.info().Active; left != 0 {
		t.Errorf("%d tasks are in hand of nobody", left)
	}
}

// A message that is to be tried again when its mailer is asleep wakes it.
func TestWorker_asleep_retry(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var once sync.Once
	h.relay.answer = func(context.Context, *mailer.EmailMessage) (r mailer.Result) {
		once.Do(func() {
			r.Err = &mailer.SendError{Class: mailer.Temporary, Step: mailer.StepRcpt, Code: 450, Err: errors.New("450 later")}
		})
		return r
	}
	cfg := h.config()
	cfg.restAfter = 3 * time.Second // asynq moves what is due after a second
	cfg.RetryMin, cfg.RetryMax = 8*time.Second, 8*time.Second
	h.start(cfg)
	h.send(1, nil)
	h.eventually("a retry", func() bool { return h.info().Retry == 1 })
	h.eventually("no asynq server", func() bool { return h.servers() == 0 })
	h.wait(1)
}

// Redis loses all that it has while programs and workers live on: mail, its keys and what shows it go on.
func TestWorker_emptiedRedis(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	h.queue = h.queue.With(Options{Queue: "default", IdempotencyKey: "order-1"})
	hand := func() string {
		t.Helper()
		id, err := h.queue.Enqueue(t.Context(), message("ann@example.com"))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := hand()
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if again := hand(); again != first {
		t.Errorf("task %s, then %s", first, again)
	}
	client.Del(t.Context(), wire.QueuesKey)
	if third := hand(); third != first {
		t.Errorf("task %s, then %s", first, third)
	}
	cfg := h.config()
	h.start(cfg)
	h.wait(1)
	for _, emptied := range []string{wire.QueuesKey, ""} {
		if client.Del(t.Context(), wire.QueuesKey); emptied == "" {
			client.FlushAll(t.Context())
		}
		h.eventually("the queue's name", func() bool { return client.SIsMember(t.Context(), wire.QueuesKey, "default").Val() })
		h.eventually("a worker", func() bool { workers, _ := presence.Read(t.Context(), client); return len(workers) == 1 })
	}
}

// Programs divide their queues into more parts than the worker was told.
func TestWorker_findsParts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var log lockedBuffer
	cfg := h.config()
	cfg.Shards = 2
	cfg.Logger = new(zerolog.New(&log))
	h.start(cfg)
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Shards: 5})
	h.send(50, nil)
	h.wait(50)
	h.once(50)
	if n := strings.Count(log.String(), "more parts than this worker was told"); n < 1 || n > 3 {
		t.Errorf("it was said %d times", n) // once for each time that there are more
	}
	client := h.Client(t)
	h.eventually("the parts to be served", func() bool {
		workers, err := presence.Read(t.Context(), client)
		return err == nil && len(workers) == 1 && workers[0].Serves(wire.QueueName{Queue: "default", Shard: 5})
	})
	if names := client.SMembers(t.Context(), wire.QueuesKey).Val(); !slices.Contains(names, "default:mass~5") {
		t.Errorf("asynq's set has %v", names)
	}
}

// A queue that no worker serves is complained of, once, and one that another worker or program serves is not.
func TestWorker_unserved(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	var log lockedBuffer
	cfg := h.config()
	cfg.Queues = map[string]int{"default": 1}
	cfg.Logger = new(zerolog.New(&log))
	other := presence.New()
	other.Queues = []string{"served"}
	client := h.Client(t)
	for _, name := range []string{"forgotten", "served"} {
		h.queue = NewQueue(client, QueueConfig{BulkSize: 1, Options: Options{Queue: name}})
		h.send(1, nil)
	}
	if err := presence.Announce(t.Context(), client, other, nil, presence.Counts{}); err != nil {
		t.Fatal(err)
	}
	w, _ := h.startWorker(h.Client(t), cfg)
	h.eventually("the complaint", func() bool { return strings.Contains(log.String(), `"queue":"forgotten"`) })
	if err := w.watch.complain(t.Context(), []string{"served"}); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Contains(text, `"queue":"served"`) || strings.Count(text, "no worker serves") != 1 {
		t.Error(text)
	}
}

// Two workers of the same process, which have one host name and one process number, are two until they end.
func TestWorker_presence(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	alive := func() int {
		workers, err := presence.Read(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		return len(workers)
	}
	one, two := h.start(h.config()), h.start(h.config())
	h.eventually("two workers", func() bool { return alive() == 2 })
	one()
	if n := alive(); n != 1 {
		t.Errorf("%d workers after the end of one of two", n)
	}
	two()
	if n := alive(); n != 0 {
		t.Errorf("%d workers after the end of both", n)
	}
}
