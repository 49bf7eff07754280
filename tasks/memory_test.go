package tasks

import (
	"context"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

func TestNeed(t *testing.T) {
	t.Parallel()
	messageOf := func(m *mailer.EmailMessage, blobs ...wire.Blob) *taskMessage {
		return &taskMessage{payload: &wire.Payload{Meta: wire.Meta{Blobs: blobs}, Message: m}}
	}
	file := wire.Blob{Hash: "a", Size: 1000}
	text := wire.Blob{Part: wire.PartBody, Hash: "b", Size: 1000}
	tests := []struct {
		name     string
		messages []*taskMessage
		want     int
	}{
		{"a file", []*taskMessage{messageOf(&mailer.EmailMessage{Attachments: []mailer.Attachment{{}}}, file)}, 2500 + 150},
		{"a text", []*taskMessage{messageOf(&mailer.EmailMessage{}, text)}, 4500},
		{"in the payload", []*taskMessage{messageOf(&mailer.EmailMessage{
			Body: "12", Raw: []byte("12"), Attachments: []mailer.Attachment{{Content: []byte("12")}}, Alternatives: []mailer.Alternative{{Content: "12"}},
		})}, 2*2.5 + 4*4.5 + 2*4 + 2*150},
		{"a raw message", []*taskMessage{messageOf(&mailer.EmailMessage{}, wire.Blob{Part: wire.PartRaw, Hash: "c", Size: 1000})}, 4000},
		{"addresses, headers and names", []*taskMessage{messageOf(&mailer.EmailMessage{
			Subject: "12", FromEmail: "12", To: []string{"12"}, Cc: []string{"12"}, Bcc: []string{"12"}, ReplyTo: []string{"12", "12"}, Headers: map[string]string{"Bcc": "12,12"},
		})}, (14+5*4+3+5+4)*4.5 + 7*150},
		{"the same file for two", []*taskMessage{messageOf(&mailer.EmailMessage{}, file), messageOf(&mailer.EmailMessage{}, file, text)}, 7000},
		{"one that cannot be read", []*taskMessage{{}, messageOf(&mailer.EmailMessage{}, file)}, 2500},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := need(tt.messages); got != tt.want {
				t.Errorf("need = %d, want %d", got, tt.want)
			}
		})
	}
}

// Big mail of one way in takes nothing of the others, and small mail never waits.
func TestDispatcher_room(t *testing.T) {
	t.Parallel()
	cfg := WorkerConfig{Queues: weights, Memory: 80_000_000, Mailers: map[string]int{"other": 1}}
	l := bareDispatcher(4, cfg)
	if normal, priority := weight.NewBudgets(80_000_000, 2, 4, true); !reflect.DeepEqual(l.memory, normal) || !reflect.DeepEqual(l.priorityMemory, priority) {
		t.Errorf("the mailer has %v and %v, want %v and %v", l.memory, l.priorityMemory, normal, priority)
	}
	of := func(octets int) *taskMessage {
		return &taskMessage{payload: &wire.Payload{Meta: wire.Meta{Blobs: []wire.Blob{{Hash: "a", Size: octets}}}, Message: &mailer.EmailMessage{}}}
	}
	tests := []struct {
		name  string
		queue wire.QueueName
		size  int
		want  bool
	}{
		{"big, and behind it", wire.QueueName{Queue: "default"}, 10_000_000, false},
		{"small", wire.QueueName{Queue: "default"}, 64_000, true},
		{"priority", wire.QueueName{Queue: "critical"}, 2_000_000, true},
		{"a usual bulk task", wire.QueueName{Queue: "bulk", Bulk: true}, 1_000_000, true},
		{"bulk mail never has priority", wire.QueueName{Queue: "critical", Bulk: true}, 3_000_000, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := bareDispatcher(4, cfg)
				if _, ok := l.room(t.Context(), &taskMessage{name: wire.QueueName{Queue: "bulk"}, handed: new(handedTask)}, of(10_000_000)); !ok {
					t.Fatal("no room in an empty dispatcher")
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, ok := l.room(ctx, &taskMessage{name: tt.queue, handed: new(handedTask)}, of(tt.size)); ok != tt.want {
					t.Errorf("room = %v, want %v", ok, tt.want)
				}
			})
		})
	}
}

// However many big messages wait, only so many have their contents in the worker.
func TestWorker_memory(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	seed := byte(0)
	h.send(30, func(m *mailer.EmailMessage) {
		seed++
		with(brochure(seed, 400_000))(m) // which takes 1 MB
	})
	client, err := redisconn.ConnectWorker(h.URL())
	if err != nil {
		t.Fatal(err)
	}
	count := &tally{}
	var through atomic.Int64
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		fetched := count.of("get")
		if done := int(through.Load()); fetched > done+3 {
			t.Errorf("%d messages were fetched and %d are through; there is room for 3", fetched, done)
		}
		through.Add(1)
		return mailer.Result{}
	}
	cfg := h.config()
	cfg.Memory = 4_000_000
	stop := h.startOn(count.watch(client.(*redis.Client)), cfg)
	h.wait(30)
	h.empty()
	stop()
	h.once(30)
}

// A worker that is stopped gives back the messages that wait for memory, without a try spent.
func TestWorker_memory_stops(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	seed := byte(0)
	h.send(5, func(m *mailer.EmailMessage) {
		seed++
		with(brochure(seed, 400_000))(m)
	})
	stuck, release := make(chan struct{}, 5), make(chan struct{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		stuck <- struct{}{}
		<-release
		return mailer.Result{}
	}
	cfg := h.config()
	cfg.Memory = 1
	end, done := h.run(cfg)
	<-stuck // this one has all memory
	h.eventually("the others wait", func() bool { return h.info().Active == 5 })
	end()
	close(release)
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	left := 0
	for _, task := range pending(t, h.Server, "default") {
		left++
		if task.Retried > 0 {
			t.Errorf("%s has spent a try", task.ID)
		}
	}
	if sent := len(h.relay.all()); left == 0 || sent+left != 5 {
		t.Errorf("%d sent and %d given back, of 5", sent, left)
	}
	h.relay.answer = nil
	h.start(cfg)
	h.empty()
	h.once(5)
}
