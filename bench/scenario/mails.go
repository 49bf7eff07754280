package scenario

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/bench/baseline"
	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// message is the mail that is measured, number i of many.
func message(i int) *mailer.EmailMessage {
	return &mailer.EmailMessage{Subject: baseline.Subject, Body: baseline.Body(i), FromEmail: baseline.Sender, To: []string{baseline.Recipient(i)}}
}

// baselineMail is the same mail for the others.
func baselineMail(i int) baseline.Mail {
	return baseline.Mail{From: baseline.Sender, To: baseline.Recipient(i), Subject: baseline.Subject, Body: baseline.Body(i)}
}

// newQueue is a queue as an application has it.
func newQueue(r *harness.Redis) *tasks.Queue { return shardedQueue(r, 1) }

// shardedQueue is one in several parts.
func shardedQueue(r *harness.Redis, shards int) *tasks.Queue {
	return tasks.NewQueue(r.Client, tasks.QueueConfig{Defaults: mailer.Defaults{Hostname: "bench.example"}, Shards: shards})
}

// producers is how many goroutines fill a queue.
const producers = 32

// singly hands mails over one by one.
func singly(b *harness.Bench, r *harness.Redis, n int) { enqueueInto(b, newQueue(r), n) }

func enqueueInto(b *harness.Bench, q *tasks.Queue, n int) { enqueueAll(b, q, n, message) }

func enqueueAll(b *harness.Bench, q *tasks.Queue, n int, mail func(i int) *mailer.EmailMessage) {
	parallel(b, producers, n, func(i int) error {
		_, err := q.Enqueue(b.Context(), mail(i))
		return err
	})
}

// batch is how many mails a bulk mailing hands over at once.
const batch = 1000

// inBatches hands mails over as a bulk mailing does.
func inBatches(b *harness.Bench, r *harness.Redis, n int) { sendInto(b, newQueue(r), n, producers) }

func sendInto(b *harness.Bench, q *tasks.Queue, n, goroutines int) {
	sendAll(b, q, n, goroutines, message)
}

func sendAll(b *harness.Bench, q *tasks.Queue, n, goroutines int, mail func(i int) *mailer.EmailMessage) {
	parallel(b, goroutines, (n+batch-1)/batch, func(i int) error {
		messages := make([]*mailer.EmailMessage, min(batch, n-i*batch))
		for j := range messages {
			messages[j] = mail(i*batch + j)
		}
		_, err := q.SendMessages(b.Context(), messages)
		return err
	})
}

// baselineTasks hands mails over as the others do.
func baselineTasks(b *harness.Bench, r *harness.Redis, n int) {
	enqueueBaseline(b, r, n, producers, baselineMail)
}

func enqueueBaseline(b *harness.Bench, r *harness.Redis, n, goroutines int, mail func(int) baseline.Mail, opts ...asynq.Option) {
	client := asynq.NewClientFromRedisClient(r.Client)
	parallel(b, goroutines, n, func(i int) error {
		task, err := mail(i).Task()
		if err != nil {
			return err
		}
		_, err = client.EnqueueContext(b.Context(), task, opts...)
		return err
	})
}

// parallel does something n times from some goroutines. The first error ends it.
func parallel(b *harness.Bench, goroutines, n int, do func(i int) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, goroutines)
	for range goroutines {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	b.Check(<-errs)
}

// noise is an attachment that is like no other and cannot be packed.
func noise(size int, seed uint64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	content := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(content) // it never fails
	return content
}
