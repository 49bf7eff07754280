package tasks

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// hinted is the configuration of a worker that finds nothing by itself once it is awake.
func hinted(h *house) WorkerConfig {
	cfg := h.config()
	cfg.lookEvery, cfg.restAfter = 2*time.Hour, time.Hour
	cfg.Queues = weights
	return cfg
}

// awaitsHint waits until a worker waits for mail in queues. What says so in Redis would end after a minute, and this worker does not
// look at its queues meanwhile: it stays until there is mail, however slow the machine is.
func awaitsHint(h *house, client redis.UniversalClient, queues ...string) {
	h.t.Helper()
	for _, name := range queues {
		h.eventually("a worker that waits", func() bool {
			key := wire.WaitingKey(name)
			return client.Persist(h.t.Context(), key).Val() || client.TTL(h.t.Context(), key).Val() == -1
		})
	}
}

// sendInto hands over a message in a queue.
func sendInto(h *house, queue string) {
	h.t.Helper()
	if _, err := h.queue.With(Options{Queue: queue}).Enqueue(h.t.Context(), message("ann@example.com")); err != nil {
		h.t.Fatal(err)
	}
}

// A worker that waits is woken by each message, of each of its queues, single or bulk, over each kind of connection to Redis.
func TestWorker_woken(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) (url string, admin redis.UniversalClient){
		"with the documented rights": func(t *testing.T) (string, redis.UniversalClient) {
			s := redistest.Start(t, redistest.Options{Config: []string{documentedACL(t)}})
			return "redis://mailpouch:SECRET@" + s.Addr(), s.Client(t)
		},
		"sentinel": func(t *testing.T) (string, redis.UniversalClient) {
			s := redistest.StartSentinel(t, redistest.Options{})
			return s.URL(), s.Client(t)
		},
		"cluster": func(t *testing.T) (string, redis.UniversalClient) {
			c := redistest.StartCluster(t, 3, redistest.Options{Config: []string{documentedACL(t)}})
			return "redis://mailpouch:SECRET@" + c.Masters[1].Addr() + "?cluster=true", c.Client(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, admin := start(t)
			real := newRealHouse(t, url, admin)
			h := real.house
			client, err := Connect(url)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			w, stop := h.startWorker(client, hinted(h))
			defer stop()
			h.eventually("a worker that hears hints", func() bool { return w.watch.queues.Waiter() != "" }) // before that it would look, here in two hours
			bulk := NewQueue(client, QueueConfig{Options: Options{Queue: "bulk"}})
			sendBulk := func() {
				t.Helper()
				if n, err := bulk.SendMessages(t.Context(), []*mailer.EmailMessage{message("ann@example.com"), message("bob@example.com")}); n != 2 || err != nil {
					t.Fatal(n, err)
				}
			}
			for queue := range weights { // a queue that is asleep is found otherwise
				sendInto(h, queue)
			}
			sendBulk()
			h.wait(len(weights) + 2)
			awaitsHint(h, admin, append(slices.Collect(maps.Keys(weights)), "bulk:mass")...)
			for range 3 {
				for queue := range weights {
					sendInto(h, queue)
					h.wait(1)
					awaitsHint(h, admin, queue)
				}
			}
			sendBulk()
			h.wait(2)
		})
	}
}

// A subscription that is lost is made anew.
func TestWorker_woken_again(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	h.send(1, nil)
	cfg := hinted(h)
	cfg.lookEvery = 2 * time.Second // what comes before the subscription, and a hint that is lost with it, costs a look
	w, _ := h.startWorker(h.Client(t), cfg)
	h.wait(1)
	own := wire.WakeChannelOf(w.ID())
	subscribers := func() (ids []string) { // connections with both channels of hints
		text, err := client.Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").Text()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if fields := strings.Fields(line); slices.Contains(fields, "sub=2") {
				ids = append(ids, fields[0])
			}
		}
		return ids
	}
	for range 3 {
		before := subscribers()
		if err := client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
		h.eventually("another subscription", func() bool {
			now := subscribers()
			return len(now) == 1 && !slices.Contains(before, now[0]) && client.PubSubNumSub(t.Context(), own).Val()[own] == 1
		})
		awaitsHint(h, client, "default")
		h.send(1, nil)
		h.wait(1) // else the next one ends what brings the hint
	}
}

// A worker that may not hear hints says so once, and looks for mail.
func TestWorker_deaf(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	admin := h.Client(t)
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "worker", "on", ">secret", "~*", "&asynq:*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: h.Addr(), Username: "worker", Password: "secret"})
	defer func() { _ = client.Close() }()
	h.queue = NewQueue(client, QueueConfig{BulkSize: 1})
	var log lockedBuffer
	cfg := h.config()
	cfg.Logger = new(zerolog.New(&log))
	h.send(1, nil)
	_, stop := h.startWorker(client, cfg)
	h.wait(1)
	h.send(10, nil)
	h.wait(10)
	if n := admin.Exists(t.Context(), wire.WaitingKey("default")).Val(); n != 0 {
		t.Error("it says that it can be woken")
	}
	stop()
	if n := strings.Count(log.String(), "&mailpouch:*"); n != 1 {
		t.Errorf("the right that is missing is named %d times: %s", n, log.String())
	}
}
