package tasks

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// run starts a worker that a test ends itself, and returns the channel of Run's error. The client is closed with the
// test, which must leave no goroutine.
func (h *house) run(cfg WorkerConfig) (end context.CancelFunc, done <-chan error) {
	h.t.Helper()
	_, end, done = h.runWorker(cfg)
	return end, done
}

// runWorker is run for a test that looks into the worker.
func (h *house) runWorker(cfg WorkerConfig) (w *Worker, end context.CancelFunc, done <-chan error) {
	h.t.Helper()
	client, err := redisconn.ConnectWorker(h.URL())
	if err != nil {
		h.t.Fatal(err)
	}
	if w, err = NewWorker(client, cfg); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var all sync.WaitGroup
	all.Go(func() { ended <- w.Run(ctx) })
	h.t.Cleanup(func() {
		cancel()
		all.Wait()
		_ = client.Close()
	})
	return w, cancel, ended
}

// ends returns Run's error, which has to come soon: it took two minutes.
func ends(t *testing.T, done <-chan error) error {
	t.Helper()
	start := time.Now()
	select {
	case err := <-done:
		t.Logf("ended after %v", time.Since(start).Round(time.Millisecond))
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the worker does not end")
		return nil
	}
}

// breakers are the ways in which a Redis is away.
var breakers = map[string]func(s *redistest.Server){
	"silent": func(s *redistest.Server) { s.Pause() },
	"killed": func(s *redistest.Server) { s.Kill() },
	"full": func(s *redistest.Server) {
		client := redis.NewClient(&redis.Options{Addr: s.Addr()})
		defer func() { _ = client.Close() }()
		client.ConfigSet(context.Background(), "maxmemory", "1")
	},
}

// A worker with nothing to do, or with messages that it has not begun, has nothing to write: while Redis is away it ends
// at once.
func TestWorker_stopsWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, away := range breakers {
		for _, held := range []int{0, 30} {
			t.Run(fmt.Sprintf("%s/%d in hand", name, held), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, redistest.Options{AppendOnly: redistest.Always})
				answer := make(chan struct{})
				h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
					<-answer
					return mailer.Result{Err: sendError(mailer.Temporary, 451, "later")} // which need not be written
				}
				log := &lineCounter{}
				cfg := h.config()
				cfg.Logger, cfg.Connections, cfg.BatchSize, cfg.Concurrency = log.logger(), 1, 1, 40
				w, end, done := h.runWorker(cfg)
				if held > 0 {
					h.send(held, nil)
				}
				h.eventually("it has started", func() bool { return h.Client(t).SCard(t.Context(), wire.WorkersKey).Val() == 1 })
				h.eventually("all are in hand", func() bool { return w.inFlight.Len() == held }) // Redis says so before the handlers have begun
				away(h.Server)
				end()
				close(answer)
				if err := ends(t, done); err != nil {
					t.Errorf("Run: %v, want none: nothing can be sent twice", err)
				}
				said := strings.Contains(strings.Join(log.all(), "\n"), "could not be given back")
				if said != (held > 0) {
					t.Errorf("%d in hand, and the log says:\n%s", held, strings.Join(log.all(), "\n"))
				}
				if name == "full" {
					return
				}
				h.Kill()
				h.Restart()
				giveBackOrphans(t, h.Client(t))
				h.relay.answer = nil
				h.start(h.config())
				h.wait(held)
				h.once(held)
			})
		}
	}
}

// A worker with a message on the wire waits for the relay, and then for Redis, since it has something to write. When
// Redis is back in time, nothing is sent twice.
func TestWorker_stopsWhenRedisIsBack(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"silent", "killed"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{AppendOnly: redistest.Always})
			begun, answer := make(chan struct{}), make(chan struct{})
			h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
				close(begun)
				<-answer
				return mailer.Result{}
			}
			end, done := h.run(h.config())
			h.send(1, nil)
			<-begun
			breakers[name](h.Server)
			end()
			still := func(what string) {
				t.Helper()
				select {
				case err := <-done:
					t.Fatalf("the worker ends, %s: %v", what, err)
				case <-time.After(2 * silentFor * lookEvery):
				}
			}
			still("with a message on the wire")
			close(answer)
			h.wait(1)
			still("though Redis does not know that the message was accepted")
			if name == "killed" {
				h.Restart()
			} else {
				h.Resume()
			}
			if err := ends(t, done); err != nil {
				t.Errorf("Run: %v", err)
			}
			giveBackOrphans(t, h.Client(t))
			h.relay.answer = nil
			h.start(h.config())
			h.empty()
			h.once(1)
		})
	}
}

// If Redis stays away, the worker ends when its time is up and says what it could not write.
func TestWorker_stopsUnwritten(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	begun, answer := make(chan struct{}), make(chan struct{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		close(begun)
		<-answer
		return mailer.Result{}
	}
	log := &lineCounter{}
	cfg := h.config()
	cfg.ShutdownTimeout, cfg.Logger = 2*time.Second, log.logger()
	end, done := h.run(cfg)
	id, err := h.queue.Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	h.Pause()
	end()
	close(answer)
	err = ends(t, done)
	if mailer.ClassOf(err) != mailer.Unavailable || !strings.Contains(err.Error(), "the outcomes of 1 messages") {
		t.Errorf("Run: %v, want that one outcome is not known to Redis", err)
	}
	if lines := strings.Join(log.all(), "\n"); !strings.Contains(lines, `"messages":1,"tasks":["`+id+`"]`) {
		t.Errorf("the log does not name %s:\n%s", id, lines)
	}
}
