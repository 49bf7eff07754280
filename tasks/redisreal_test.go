package tasks

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// realHouse is a house on a Redis of any kind: the queue and the worker reach it by the
// URL alone, as programs do, and admin may look at everything.
type realHouse struct {
	*house
	url   string
	admin redis.UniversalClient
}

func newRealHouse(t *testing.T, url string, admin redis.UniversalClient) *realHouse {
	t.Helper()
	client, err := Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &realHouse{
		house: &house{t: t, relay: newRelay(), queue: NewQueue(client, QueueConfig{BulkSize: 1})},
		url:   url, admin: admin,
	}
}

func (h *realHouse) start(cfg WorkerConfig) (stop func()) {
	h.t.Helper()
	client, err := redisconn.ConnectWorker(h.url)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.startOn(client, cfg)
}

// size returns how many tasks there are in a queue, and how many of them are dead.
func (h *realHouse) size(queue string) (all, dead int) {
	info, err := asynq.NewInspectorFromRedisClient(h.admin).GetQueueInfo(queue)
	if err != nil {
		return -1, -1
	}
	return info.Size, info.Archived
}

// mail is a message with the Message-ID <id@t>.
func mail(id string, to ...string) *mailer.EmailMessage {
	m := message(append(to, "ann@example.com")...)
	m.MessageID = "<" + id + "@t>"
	return m
}

func (h *realHouse) enqueue(o Options, m *mailer.EmailMessage) (id string) {
	h.t.Helper()
	id, err := h.queue.With(o).Enqueue(h.t.Context(), m)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

// pathQueues are so many that a cluster of three masters has them on different ones.
var pathQueues = map[string]int{"default": 3, "bulk": 1, "critical": 6, "news": 1}

// wholePath sends mail of every kind through a Redis.
func wholePath(t *testing.T, h *realHouse) {
	t.Helper()
	h.relay.answer = pathAnswers()
	names := slices.Sorted(maps.Keys(pathQueues))
	messages := map[string][]*mailer.EmailMessage{}
	const plain = 200
	for i := range plain {
		name := names[i%len(names)]
		messages[name] = append(messages[name], mail(fmt.Sprint("plain-", i)))
	}
	for name, list := range messages {
		if n, err := h.queue.With(Options{Queue: name}).SendMessages(t.Context(), list); n != len(list) || err != nil {
			t.Fatalf("SendMessages = %d, %v", n, err)
		}
	}
	h.enqueue(Options{Queue: "news"}, mail("retry"))
	h.enqueue(Options{ProcessIn: time.Second, Queue: "bulk"}, mail("scheduled"))
	h.enqueue(Options{AtMostOnce: true, Queue: "critical"}, mail("once"))
	h.enqueue(Options{Retention: time.Hour}, mail("parted", "grey@example.com"))
	dead := h.enqueue(Options{}, mail("dead"))
	before := h.enqueue(Options{Queue: "bulk"}, mail("before"))
	big := mail("big")
	big.Attach("brochure.pdf", make([]byte, 100_000), "application/pdf")
	h.enqueue(Options{Queue: "news"}, big)
	keyed := Options{IdempotencyKey: "order-7"}
	if one, same := h.enqueue(keyed, mail("keyed")), h.enqueue(keyed, mail("keyed")); one != same {
		t.Errorf("one idempotency key, two tasks: %s and %s", one, same)
	}
	for i, o := range []Options{{ProcessIn: time.Hour, Queue: "critical"}, {ProcessIn: time.Hour, Queue: "news", Mailing: "july"}} {
		if err := h.queue.With(o).Reschedule(t.Context(), h.enqueue(o, mail(fmt.Sprint("rescheduled-", i))), time.Now()); err != nil {
			t.Error(err)
		}
	}
	cancelled := Options{ProcessIn: time.Hour, Queue: "critical"}
	if err := h.queue.With(cancelled).Cancel(t.Context(), h.enqueue(cancelled, mail("cancelled"))); err != nil {
		t.Error(err)
	}
	if err := h.admin.HSet(t.Context(), asynqbatch.TaskKey("bulk", before), wire.FieldSent, `{"reply":"250 long ago"}`).Err(); err != nil {
		t.Fatal(err)
	}

	cfg := h.config()
	cfg.Queues = pathQueues
	stop := h.start(cfg)
	h.eventually("all but the dead letter and two kept results ended", func() bool {
		left := 0
		for name := range pathQueues {
			all, _ := h.size(name)
			left += all
		}
		_, dead := h.size("default")
		return left == 3 && dead == 1
	})
	replayDead(t, h, dead)
	stop()
	ids := h.relay.ids()
	if ids["<parted@t>"] != 2 { // to the second recipient alone
		t.Errorf("the parted message was delivered %d times, want 2", ids["<parted@t>"])
	}
	if ids["<before@t>"] != 0 || ids["<cancelled@t>"] != 0 {
		t.Error("what had been sent before or was cancelled was sent")
	}
	if want := plain + 9; len(ids) != want {
		t.Errorf("%d different messages delivered, want %d", len(ids), want)
	}
	for id, n := range ids {
		if n != 1 && id != "<parted@t>" {
			t.Errorf("%s delivered %d times", id, n)
		}
	}
}

// pathAnswers refuses "retry" once, "dead" until it is replayed, and one recipient of "parted" once.
func pathAnswers() func(context.Context, *mailer.EmailMessage) mailer.Result {
	var mu sync.Mutex
	tries := map[string]int{}
	return func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		mu.Lock()
		defer mu.Unlock()
		tries[m.MessageID]++
		if tries[m.MessageID] > 1 {
			return mailer.Result{}
		}
		switch m.MessageID {
		case "<retry@t>":
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")}
		case "<dead@t>":
			return mailer.Result{Err: sendError(mailer.Permanent, 554, "no spam here")}
		case "<parted@t>":
			return mailer.Result{Refused: []*mailer.SendError{
				{Class: mailer.Temporary, Step: mailer.StepRcpt, Recipient: "grey@example.com", Code: 450, Text: "later"},
			}}
		}
		return mailer.Result{}
	}
}

// replayDead finds the dead letter by the program's own client, and delivers it.
func replayDead(t *testing.T, h *realHouse, id string) {
	t.Helper()
	client, err := Connect(h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	d := NewDeadLetters(client)
	queues, err := d.Queues()
	for name := range pathQueues {
		if err != nil || !slices.Contains(queues, name) {
			t.Errorf("Queues = %v, %v", queues, err)
		}
	}
	if ids, err := d.IDs(t.Context(), "default"); err != nil || !slices.Equal(ids, []string{id}) {
		t.Errorf("IDs = %v, %v, want %s", ids, err, id)
	}
	// A dead letter that was moved out of asynq's archive is in the other of the two lists.
	if err := rescueAll(t.Context(), client, "default", id); err != nil {
		t.Error(err)
	}
	if l, err := d.Get("default", id); err != nil || !strings.Contains(l.Reason, "554 no spam here") {
		t.Errorf("Get = %+v, %v", l, err)
	}
	if _, err := d.Replay(t.Context(), "default", id); err != nil {
		t.Error(err)
	}
	h.eventually("the dead letter is delivered", func() bool {
		all, dead := h.size("default")
		return all == 2 && dead == 0
	})
}

// rescueAll is rescue as if the archive had no room at all.
func rescueAll(ctx context.Context, client redis.UniversalClient, queue, id string) error {
	at, err := client.ZScore(ctx, archiveKey(queue), id).Result()
	if err != nil {
		return err
	}
	if err := client.ZAdd(ctx, wire.DeadKey(queue), redis.Z{Score: at, Member: id}).Err(); err != nil {
		return err
	}
	return client.ZRem(ctx, archiveKey(queue), id).Err()
}

// The whole path works on every kind of Redis that REDIS_URL can name.
func TestRedis(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		start func(*testing.T) (url string, admin redis.UniversalClient)
	}{
		{"socket", func(t *testing.T) (string, redis.UniversalClient) {
			s := redistest.Start(t, redistest.Options{Password: "s3cret", Config: []string{"unixsocket redis.sock"}})
			return "unix://:s3cret@" + filepath.Join(s.Dir(), "redis.sock") + "?db=1", onDB1(t, s)
		}},
		{"ACL", func(t *testing.T) (string, redis.UniversalClient) {
			s := redistest.Start(t, redistest.Options{Config: []string{documentedACL(t)}})
			return "redis://mailpouch:SECRET@" + s.Addr(), s.Client(t)
		}},
		{"TLS", func(t *testing.T) (string, redis.UniversalClient) {
			s := redistest.Start(t, redistest.Options{TLS: true, Username: "mail", Password: "s3cret/@"})
			return s.URL(), s.Client(t)
		}},
		{"sentinel", func(t *testing.T) (string, redis.UniversalClient) {
			s := redistest.StartSentinel(t, redistest.Options{Password: "s3cret", AppendOnly: redistest.Always})
			return s.URL(), s.Client(t)
		}},
		{"cluster by one node, with ACL", func(t *testing.T) (string, redis.UniversalClient) {
			c := redistest.StartCluster(t, 3, redistest.Options{Config: []string{documentedACL(t)}})
			return "redis://mailpouch:SECRET@" + c.Masters[1].Addr() + "?cluster=true", c.Client(t)
		}},
		{"cluster over TLS", func(t *testing.T) (string, redis.UniversalClient) {
			c := redistest.StartCluster(t, 3, redistest.Options{TLS: true, Password: "s3cret"})
			onSeveral(t, c)
			return c.URL(), c.Client(t)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, admin := tt.start(t)
			wholePath(t, newRealHouse(t, url, admin))
		})
	}
}

func onDB1(t *testing.T, s *redistest.Server) redis.UniversalClient {
	t.Helper()
	opts := *s.Client(t).Options()
	opts.DB = 1
	c := redis.NewClient(&opts)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// documentedACL is the user that docs/operations.md says is enough.
func documentedACL(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?s)\nACL SETUSER (mailpouch .*?[^\\])\n`).FindSubmatch(readme)
	if line == nil {
		t.Fatal("docs/operations.md has no ACL SETUSER mailpouch")
	}
	return "user " + strings.Join(strings.Fields(strings.ReplaceAll(string(line[1]), "\\\n", " ")), " ")
}

// onSeveral checks that the queues of the path are on different masters.
func onSeveral(t *testing.T, c *redistest.Cluster) {
	t.Helper()
	client, on := c.Client(t), map[string]bool{}
	for name := range pathQueues {
		node, err := client.MasterForKey(t.Context(), archiveKey(name))
		if err != nil {
			t.Fatal(err)
		}
		on[node.Options().Addr] = true
	}
	if len(on) < 2 {
		t.Fatalf("all queues are on one master: this test says nothing of slots")
	}
}
