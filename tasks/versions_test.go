package tasks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/presence"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// announce says that workers live that read these versions. 0 is a worker of the time when none said that.
func announce(t *testing.T, client redis.UniversalClient, reads ...int) {
	t.Helper()
	for _, version := range reads {
		w := presence.New()
		w.Reads = version
		if err := presence.Announce(t.Context(), client, w, nil, presence.Counts{}); err != nil {
			t.Fatal(err)
		}
	}
}

// longText is a text of words in no order.
func longText(size int, seed uint64) string {
	words := strings.Fields("your order has been shipped and will arrive on next working day please have number at hand if you call us the parcel is with our carrier")
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteString([]string{" ", " ", " ", ", ", ".\n"}[r.IntN(5)])
	}
	return b.String()[:size]
}

// Programs write what all workers that live can read, and lose no more of it than a tag. What an old worker cannot read, and must be, waits
// for a new one; where there is none it is refused.
func TestQueue_versions(t *testing.T) {
	t.Parallel()
	long := func(m *mailer.EmailMessage) { m.Body = longText(20_000, 1) }
	for _, tt := range []struct {
		name       string
		workers    []int
		options    Options
		many, long bool
		version    int // of the payload; 0: it is refused
		tagged     bool
	}{
		{"no worker", nil, Options{}, true, false, 3, false},
		{"new workers", []int{3, 3}, Options{}, true, false, 3, false},
		{"newer workers", []int{4}, Options{}, true, false, 3, false},
		{"an old worker", []int{0}, Options{}, true, false, 1, false},
		{"an old worker among new ones", []int{3, 0, 3}, Options{}, true, false, 1, false},
		{"one that knows tags", []int{2, 3}, Options{Tags: []string{"a"}}, true, false, 2, true},
		{"a long one", []int{3}, Options{}, false, true, 3, false},
		{"a long one, an old worker", []int{0}, Options{}, false, true, 1, false},
		{"a short one", []int{3}, Options{}, false, false, 1, false},
		{"a tag", []int{3}, Options{Tags: []string{"a"}}, false, false, 2, true},
		{"a tag, no worker", nil, Options{Tags: []string{"a"}}, false, false, 2, true},
		{"a tag, an old worker among new ones", []int{0, 3}, Options{Tags: []string{"a"}}, false, false, 1, false},
		{"a mailing, no worker", nil, Options{Mailing: "spring"}, false, false, 2, false},
		{"a mailing, an old worker among new ones", []int{0, 3}, Options{Mailing: "spring", Tags: []string{"a"}}, false, false, 2, true},
		{"a mailing of many, the same", []int{0, 3}, Options{Mailing: "spring"}, true, false, 2, false},
		{"a mailing, an old worker", []int{0}, Options{Mailing: "spring"}, false, false, 0, false},
		{"a mailing of many, an old worker", []int{0}, Options{Mailing: "spring"}, true, false, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Options{})
			client := server.Client(t)
			announce(t, client, tt.workers...)
			q := NewQueue(client, QueueConfig{Options: tt.options})
			messages := []*mailer.EmailMessage{message("a@example.com")}
			if tt.many {
				messages = append(messages, message("b@example.com"), message("c@example.com"))
			}
			if tt.long {
				long(messages[0])
			}
			sent, err := q.SendMessages(t.Context(), messages)
			queue := map[bool]string{true: "default:mass", false: "default"}[tt.many]
			if tt.version == 0 {
				if sent != 0 || mailer.ClassOf(err.(mailer.SendErrors)[0]) != mailer.Temporary || !strings.Contains(err.Error(), "upgrade the workers") { //nolint:errorlint // its own type
					t.Errorf("%d sent, %v", sent, err)
				}
				if n := client.Exists(t.Context(), "asynq:{"+queue+"}:pending").Val(); n != 0 {
					t.Error("it is in the queue")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tasks, err := inspect(t, server).ListPendingTasks(queue)
			if err != nil || len(tasks) != 1 {
				t.Fatalf("%v, %v", tasks, err)
			}
			if payload := tasks[0].Payload; !strings.HasPrefix(string(payload), `{"version":`+strconv.Itoa(tt.version)+",") {
				t.Errorf("%.100q, want version %d", payload, tt.version)
			}
			n := 0
			for line := range wire.Lines(tasks[0].Payload) {
				p, err := wire.Decode(line, nil)
				if err != nil || (p.Tags != nil) != tt.tagged || p.Mailing != tt.options.Mailing || p.Message.Body != messages[n].Body {
					t.Errorf("message %d: %+v, %v", n, p, err)
				}
				n++
			}
			if n != len(messages) {
				t.Errorf("%d messages, want %d", n, len(messages))
			}
		})
	}
}

// A program that may not read who lives writes what all workers can read, and drops nothing.
func TestQueue_versionsUnknown(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	admin := server.Client(t)
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "default", "-smembers").Err(); err != nil {
		t.Fatal(err)
	}
	q := NewQueue(server.Client(t), QueueConfig{Options: Options{Tags: []string{"a"}}})
	for n, want := range map[int]string{1: "default", 3: "default:mass"} {
		if _, err := q.SendMessages(t.Context(), slices.Repeat([]*mailer.EmailMessage{message("a@example.com")}, n)); err != nil {
			t.Fatal(err)
		}
		id := admin.LIndex(t.Context(), "asynq:{"+want+"}:pending", 0).Val()
		m, _ := asynqbatch.ReadMessage(admin.HGet(t.Context(), asynqbatch.TaskKey(want, id), "msg").Val())
		if !strings.HasPrefix(string(m.Payload), `{"version":2,`) || !strings.Contains(string(m.Payload), `"tags":["a"]`) {
			t.Errorf("%d messages: %.100q", n, m.Payload)
		}
	}
}

// The workers are asked about now and again, by one goroutine, and not about mail that all can read.
func TestVersions_asks(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	client := server.Client(t)
	announce(t, client, 3)
	asked := func() int {
		for line := range strings.Lines(client.Info(t.Context(), "commandstats").Val()) {
			var calls int
			if _, err := fmt.Sscanf(line, "cmdstat_smembers:calls=%d,", &calls); err == nil {
				return calls
			}
		}
		return 0
	}
	q := NewQueue(client, QueueConfig{BulkSize: 1})
	before := asked()
	for range 50 {
		if _, err := q.Enqueue(t.Context(), message("a@example.com")); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked() - before; n != 0 {
		t.Errorf("asked %d times about mail that needs nothing", n)
	}
	for range 50 {
		if _, err := q.With(Options{Tags: []string{"a"}}).Enqueue(t.Context(), message("a@example.com")); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked() - before; n < 1 || n > 10 { // once in five seconds, on a machine of any speed
		t.Errorf("asked %d times about 50 messages", n)
	}
}

// used is how many bytes Redis has in use.
func used(t *testing.T, client redis.UniversalClient) int {
	t.Helper()
	for line := range strings.Lines(client.Info(t.Context(), "memory").Val()) {
		if value, ok := strings.CutPrefix(line, "used_memory_dataset:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("INFO says nothing of memory")
	return 0
}

// What mail takes of Redis while it waits: a mass mail of 2 kB, whose messages greet somebody else and have a link of their own, no more than
// 300 bytes each, and a mail of 20 kB of HTML a third of what it takes without compression.
func TestQueue_memory(t *testing.T) {
	t.Parallel()
	takes := func(mails int, old bool, cfg QueueConfig, mail func(i int) *mailer.EmailMessage) int {
		server := redistest.Start(t, redistest.Options{})
		client := server.Client(t)
		cfg.Defaults = mailer.Defaults{Hostname: "app.example.com"}
		q := NewQueue(client, cfg)
		before := used(t, client)
		for i := 0; i < mails; i += 1000 {
			messages := make([]*mailer.EmailMessage, min(1000, mails-i))
			for j := range messages {
				messages[j] = mail(i + j)
			}
			if old { // what it has said of itself does not last for as long as this may take
				announce(t, client, 0)
			}
			if _, err := q.SendMessages(t.Context(), messages); err != nil {
				t.Fatal(err)
			}
		}
		return (used(t, client) - before) / mails
	}
	text := longText(2000, 1)
	mass := func(i int) *mailer.EmailMessage {
		m := message(fmt.Sprintf("Customer %d <user%d@example.com>", i, i*7919))
		m.Body = fmt.Sprintf("Dear customer %d,\n\n%s\n\nhttps://example.com/unsubscribe/%016x\n", i, text, rand.Uint64())
		return m
	}
	before, after := takes(10_000, true, QueueConfig{}, mass), takes(10_000, false, QueueConfig{}, mass)
	t.Logf("mass mail: %d bytes a mail, %d without compression", after, before)
	if after > 300 || before < 2000 {
		t.Errorf("mass mail takes %d bytes a mail, %d without compression: want 300 at most", after, before)
	}
	html := func(i int) *mailer.EmailMessage {
		m := message(fmt.Sprintf("user%d@example.com", i))
		var b strings.Builder
		r := rand.New(rand.NewPCG(uint64(i), 2))
		for b.Len() < 20_000 {
			fmt.Fprintf(&b, "<tr><td style=\"padding:12px 24px;border-bottom:1px solid #eee\"><a href=\"https://shop.example.com/item/%d?c=%x\"><img src=\"https://cdn.example.com/%x.jpg\" width=\"120\"></a></td><td style=\"font-size:14px\">%s</td></tr>\n",
				r.IntN(100_000), r.Uint32(), r.Uint64(), longText(160, r.Uint64()))
		}
		m.Body, m.ContentSubtype = b.String(), "html"
		return m
	}
	before, after = takes(1000, true, QueueConfig{BulkSize: 1}, html), takes(1000, false, QueueConfig{BulkSize: 1}, html)
	t.Logf("HTML of 20 kB: %d bytes a mail, %d without compression", after, before)
	if after > before/3 || before < 20_000 {
		t.Errorf("HTML of 20 kB takes %d bytes, %d without compression: want a third at most", after, before)
	}
}

// Mail that is compressed is found, cancelled and sent like other mail.
func TestWorker_compressed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.queue = NewQueue(h.Client(t), QueueConfig{Options: Options{Mailing: "spring"}})
	ids := h.sendAll(120, nil)
	h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, Options: Options{Queue: "bulk", Tags: []string{"long"}}})
	long := h.sendAll(2, func(i int, m *mailer.EmailMessage) {
		m.MessageID, m.Body, m.To = fmt.Sprintf("<long%d@t>", i), longText(20_000, uint64(i)), []string{"long@example.com"}
	})
	for _, name := range []string{"default:mass", "bulk"} {
		list, err := inspect(t, h.Server).ListPendingTasks(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range list {
			if wire.Size(task.Payload) < 3*len(task.Payload) {
				t.Errorf("%s: %d bytes are %d compressed", name, wire.Size(task.Payload), len(task.Payload))
			}
		}
	}
	h.is("<117@t>", StateWaiting, "", func(s Status) bool { return s.ID == ids[117] && s.Mailing == "spring" })
	h.is("<long1@t>", StateWaiting, "", func(s Status) bool { return s.ID == long[1] })
	h.is(ids[3], StateWaiting, "", func(s Status) bool { return s.MessageID == "<3@t>" })
	for to, want := range map[string]int{"U33@example.com": 1, "long@example.com": 2, "nobody@example.com": 0} {
		if found, err := h.queue.History(t.Context(), Search{To: to}); err != nil || len(found.Messages) != want {
			t.Errorf("%s: %+v, %v, want %d", to, found.Messages, err, want)
		}
	}
	h.cancels(long[0], nil)
	h.queue = NewQueue(h.Client(t), QueueConfig{})
	h.cancels(ids[5], nil)
	h.cancels(ids[99]+"9", ErrNoTask) // no message has that number
	cfg := h.config()
	cfg.Queues = map[string]int{"default": 1, "bulk": 1}
	h.start(cfg)
	h.wait(119 + 1)
	h.allEmpty()
	h.once(120)
	if got := h.relay.ids(); got["<5@t>"] != 0 || got["<long0@t>"] != 0 {
		t.Error("what was cancelled is sent")
	}
}

// A bulk task that cannot be decompressed is one dead letter, with all that there is of it.
func TestWorker_damaged(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	payloads := make([]*wire.Payload, 3)
	for i := range payloads {
		payloads[i] = &wire.Payload{Meta: wire.Meta{DueAt: time.Now()}, Message: message("ann@example.com")}
	}
	data, err := new(wire.Codec).EncodeMany(payloads, wire.Newest)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	for id, kind := range map[string]string{"one": wire.TaskType, "many": wire.TaskTypeBulk} {
		queue := map[string]string{"one": "default", "many": "default:mass"}[id]
		if err := producer.New(h.Client(t)).PutTask(t.Context(), asynq.NewTask(kind, data), id, asynq.Queue(queue)); err != nil {
			t.Fatal(err)
		}
	}
	h.start(h.config())
	h.eventually("two dead letters", func() bool { return h.info().Archived == 2 && h.size("default:mass") == 0 })
	for _, l := range h.archived() {
		if !strings.Contains(l.LastErr, "damaged") || string(l.Payload) != string(data) {
			t.Errorf("%s: %s, %d bytes", l.ID, l.LastErr, len(l.Payload))
		}
	}
}

// What a task has without compression is taken of the worker's memory before it is read, and is its messages' then.
func TestDispatcher_roomToRead(t *testing.T) {
	t.Parallel()
	packed := func(size int) *taskMessage {
		p := &wire.Payload{Meta: wire.Meta{DueAt: time.Now()}, Message: message("ann@example.com")}
		p.Message.Body = strings.Repeat("a", size)
		data, err := new(wire.Codec).Encode(p, func() int { return wire.Newest })
		if err != nil || len(data) > size/100 {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		return &taskMessage{task: asynq.NewTask(wire.TaskType, data), name: wire.QueueName{Queue: "default"}, handed: new(handedTask), payload: p}
	}
	toRead := func(t *taskMessage) int { return weight.ToRead(t.task.Payload(), t.name.Bulk) }
	synctest.Test(t, func(t *testing.T) {
		l := bareDispatcher(4, WorkerConfig{Queues: weights, Memory: 160_000_000})
		one, two, small := packed(10_000_000), packed(10_000_000), packed(50_000)
		if n := toRead(small); n != 0 {
			t.Errorf("a small one takes %d bytes", n)
		}
		if n := toRead(one); n < 45_000_000 || n > 46_000_000 {
			t.Errorf("it takes %d bytes, want four and a half times as many as it has", n)
		}
		if err := l.roomToRead(t.Context(), one, toRead(one)); err != nil {
			t.Fatal(err)
		}
		if _, ok := l.room(t.Context(), one, one); !ok {
			t.Error("no room for the message that was read")
		}
		read := make(chan error, 1)
		go func() { read <- l.roomToRead(t.Context(), two, 2*toRead(two)) }()
		synctest.Wait()
		select {
		case err := <-read:
			t.Errorf("there is room for both: %v", err)
		default:
		}
		one.read.Release()
		if err := <-read; err != nil {
			t.Error(err)
		}
		two.read.Release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, ok := l.memory.Take(ctx, 1<<40); !ok { // all of it
			t.Error("not all was given back")
		}
	})
}
