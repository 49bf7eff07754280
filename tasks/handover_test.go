package tasks

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// soon is how long a hand-over of half a second may take on a busy machine. Without regard for its context it takes
// five seconds at least, and mostly more than ten.
const soon = 4 * time.Second

// scripts returns a channel that has a token if a script has begun since it was taken last: from then on a message may be queued.
func scripts(client redis.UniversalClient) <-chan struct{} {
	begun := make(chan struct{}, 1)
	client.AddHook(cut{func(cmds []redis.Cmder) bool {
		if has(cmds, "evalsha", "") {
			select {
			case begun <- struct{}{}:
			default:
			}
		}
		return false
	}})
	return begun
}

// mayBeQueued hands a message over within half a second, or longer if the machine is so slow that Redis is not even asked by then, and checks
// what the error says.
func mayBeQueued(t *testing.T, q *Queue, begun <-chan struct{}, m *mailer.EmailMessage, says ...string) {
	t.Helper()
	for within := 500 * time.Millisecond; ; within *= 2 {
		select {
		case <-begun: // by an earlier one
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		start := time.Now()
		_, err := q.Enqueue(ctx, m)
		took := time.Since(start)
		cancel()
		select {
		case <-begun:
		default:
			if within < 10*time.Second {
				continue
			}
		}
		if took > within+soon {
			t.Errorf("returned after %v", took)
		}
		wantFailure(t, err, mailer.Unknown, says...)
		return
	}
}

// handsOver hands a message over within half a second, and checks the class of the error and what it says.
func handsOver(t *testing.T, ctx context.Context, q *Queue, m *mailer.EmailMessage, class mailer.Class, says ...string) { //nolint:revive // t comes first
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := q.Enqueue(ctx, m)
	if took := time.Since(start); took > soon {
		t.Errorf("returned after %v", took)
	}
	wantFailure(t, err, class, says...)
}

func wantFailure(t *testing.T, err error, class mailer.Class, says ...string) {
	t.Helper()
	if err == nil || mailer.ClassOf(err) != class {
		t.Errorf("%v: of class %v, want %v", err, mailer.ClassOf(err), class)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q, want %q in it", err, s)
		}
	}
}

// programClients are the clients that programs have.
func programClients(t *testing.T, s *redistest.Server) map[string]redis.UniversalClient {
	t.Helper()
	connected, err := Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connected.Close() })
	return map[string]redis.UniversalClient{"of Connect": connected, "its own": s.Client(t)}
}

const (
	saysMaybe = "redis: the message may have been queued (to hand it over again is safe with an idempotency key): "
	saysNot   = "redis: not queued: "
)

// A hand-over ends with its context while Redis hangs, and says that the message may have been queued: it has.
func TestEnqueue_redisHangs(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	for name, client := range programClients(t, s) {
		begun := scripts(client)
		q := NewQueue(client, QueueConfig{}).With(Options{Queue: strings.ReplaceAll(name, " ", "-"), IdempotencyKey: name})
		first := q.With(Options{Queue: q.cfg.Options.Queue, ProcessIn: time.Hour, IdempotencyKey: name + " first"})
		s.Pause()
		handsOver(t, t.Context(), first, message("first@example.com"), mailer.Unavailable, saysNot, "context deadline exceeded") // it asks which queues there are
		s.Resume()
		if _, err := first.Enqueue(t.Context(), message("first@example.com")); err != nil { // a connection is open
			t.Fatal(err)
		}
		m := message("ann@example.com")
		s.Pause()
		mayBeQueued(t, q, begun, m, saysMaybe, "context deadline exceeded")
		cancelled, cancel := context.WithCancel(t.Context())
		at := make(chan time.Time, 1)
		go func() {
			<-begun
			<-time.After(100 * time.Millisecond)
			at <- time.Now()
			cancel()
		}()
		_, err := q.Enqueue(cancelled, m)
		wantFailure(t, err, mailer.Unknown, saysMaybe, "context canceled")
		select {
		case cancelledAt := <-at:
			if took := time.Since(cancelledAt); took > soon {
				t.Errorf("%s: cancelled, and returned %v after that", name, took)
			}
		default:
			t.Errorf("%s: returned before it was cancelled", name)
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled in it", name, err)
		}
		s.Resume()
		id, err := q.Enqueue(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		list := "asynq:{" + q.cfg.Options.Queue + "}:pending"
		if ids := s.Client(t).LRange(t.Context(), list, 0, -1).Val(); len(ids) != 1 || ids[0] != id {
			t.Errorf("%s: queued: %v, want %s once", name, ids, id)
		}
	}
}

// What was never written to Redis was not queued, and that is said.
func TestEnqueue_notQueued(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	admin := s.Client(t)
	if err := admin.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for name, client := range programClients(t, s) {
		q := NewQueue(client, QueueConfig{})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		handsOver(t, ended, q, message("a@example.com"), mailer.Unavailable, saysNot+"context canceled")

		s.Pause() // no connection is open, and none can be
		handsOver(t, t.Context(), q, message("b@example.com"), mailer.Unavailable, saysNot)
		s.Resume()

		if _, err := q.Enqueue(t.Context(), message("first@example.com")); err != nil {
			t.Fatal(err)
		}
		big := message("c@example.com")
		big.Attachments = []mailer.Attachment{{Filename: "big", Content: bytes.Repeat([]byte(name), 100_000)}}
		s.Pause()
		handsOver(t, t.Context(), q, big, mailer.Unavailable, saysNot)
		s.Resume()

		if err := admin.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
			t.Fatal(err)
		}
		_, err := q.Enqueue(t.Context(), message("d@example.com")) // Redis says so at once
		wantFailure(t, err, mailer.Unavailable, saysNot+"OOM command not allowed")
		admin.ConfigSet(t.Context(), "maxmemory", "0")
	}
	if n := admin.LLen(t.Context(), "asynq:{default}:pending").Val(); n != 2 {
		t.Errorf("%d messages were queued, want the 2 that were accepted", n)
	}
	clients := programClients(t, s)
	s.Kill()
	for _, client := range clients {
		handsOver(t, t.Context(), NewQueue(client, QueueConfig{}), message("e@example.com"), mailer.Unavailable, saysNot)
		_, err := NewQueue(client, QueueConfig{}).Enqueue(t.Context(), message("f@example.com"))
		wantFailure(t, err, mailer.Unavailable, saysNot+"dial tcp", "connection refused")
	}
}

// One that waits for a connection until its time is up was not queued, whatever the one before it was.
func TestEnqueue_noConnection(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), PoolSize: 1})
	defer func() { _ = client.Close() }()
	q := NewQueue(client, QueueConfig{})
	if _, err := q.Enqueue(t.Context(), message("first@example.com")); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	first := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := q.Enqueue(ctx, message("a@example.com"))
		first <- err
	}()
	for client.PoolStats().IdleConns > 0 {
		<-time.After(time.Millisecond)
	}
	handsOver(t, t.Context(), q, message("b@example.com"), mailer.Unavailable, saysNot+"context deadline exceeded")
	cancel()
	wantFailure(t, <-first, mailer.Unknown, saysMaybe)
}

// A hand-over whose answer was lost may have been queued, also if Redis is gone when it is tried again.
func TestEnqueue_answerLost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"of Connect", "its own"} {
		s := redistest.Start(t, redistest.Options{})
		client := programClients(t, s)[name]
		q := NewQueue(client, QueueConfig{BulkSize: 1})
		if n, err := q.SendMessages(t.Context(), []*mailer.EmailMessage{message("first@example.com"), message("second@example.com")}); n != 2 {
			t.Fatal(err)
		}
		const n = asynqbatch.MostEnqueued + 1 // the last one is in another script
		var messages []*mailer.EmailMessage
		for range n {
			messages = append(messages, message("a@example.com"))
		}
		s.Pause()
		begun := scripts(client)
		result := make(chan error, 1)
		go func() {
			_, err := q.SendMessages(t.Context(), messages)
			result <- err
		}()
		<-begun
		for stats := client.PoolStats(); stats.IdleConns == stats.TotalConns; stats = client.PoolStats() {
			select {
			case err := <-result:
				t.Fatalf("%s: returned at once: %v", name, err)
			case <-time.After(time.Millisecond):
			}
		}
		<-time.After(200 * time.Millisecond) // it is sent: without a connection what follows is an error of another class
		s.Kill()
		var all mailer.SendErrors
		if err := <-result; !errors.As(err, &all) || len(all) != n {
			t.Fatalf("%s: %v", name, err)
		}
		for _, err := range all[:n-1] {
			wantFailure(t, err, mailer.Unknown, saysMaybe)
		}
		wantFailure(t, all[n-1], mailer.Unavailable, "not queued: Redis has not answered for a message before this one")
	}
}

// The same with a cluster, whose client follows the nodes by itself.
func TestEnqueue_clusterHangs(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, redistest.Options{})
	connected, err := Connect(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connected.Close() }()
	for name, client := range map[string]redis.UniversalClient{"of Connect": connected, "its own": c.Client(t)} {
		begun := scripts(client)
		q := NewQueue(client, QueueConfig{})
		if _, err := q.Enqueue(t.Context(), message("first@example.com")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, s := range c.Masters {
			s.Pause()
		}
		mayBeQueued(t, q, begun, message("ann@example.com"), saysMaybe)
		for _, s := range c.Masters {
			s.Resume()
		}
		c.WaitReady()
	}
}
