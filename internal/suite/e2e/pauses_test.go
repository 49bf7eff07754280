//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/catcher"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

const (
	pausedMails = 400
	connections = 2 // of each worker
)

// pauseSite is an installation whose relay takes its time, and notes when each message came.
type pauseSite struct {
	*site
	client *redis.Client
	queue  string // asynq's name of where the mail is

	mu   sync.Mutex
	came []arrival
}

type arrival struct {
	id string
	at time.Time
}

// newPauseSite is one with pausedMails messages of the mailing july in the queue bulk, so many in a task.
func newPauseSite(t *testing.T, bin string, size int) *pauseSite {
	t.Helper()
	s := &pauseSite{queue: "bulk"}
	if size > 1 {
		s.queue = "bulk:mass"
	}
	relay, err := catcher.Start(catcher.Config{
		Decide: func(ctx context.Context, step catcher.Step) error {
			if step.Command == "DATA" {
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
				}
			}
			return nil
		},
		OnMessage: func(m catcher.Message) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.came = append(s.came, arrival{messageID(m.Raw), m.Time})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	host, port, err := net.SplitHostPort(relay.Addr())
	if err != nil {
		t.Fatal(err)
	}
	s.site = &site{t: t, bin: bin, redis: redistest.Start(t, redistest.Options{AppendOnly: redistest.Always})}
	s.client = s.redis.Client(t)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "EMAIL_") {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "REDIS_URL="+s.redis.URL(), "EMAIL_HOST="+host, "EMAIL_PORT="+port, "EMAIL_HOSTNAME=app.example.com",
		"EMAIL_QUEUES=default:3,bulk:1", fmt.Sprint("EMAIL_CONNECTIONS=", connections), fmt.Sprint("EMAIL_MASS_SIZE=", size), "EMAIL_RETRY_MIN=1s")
	var lines bytes.Buffer
	for i := range pausedMails {
		line, err := json.Marshal(&mailer.EmailMessage{
			Subject: "Sale", Body: "Hello.\n", FromEmail: "shop@example.com", To: []string{fmt.Sprintf("u%d@example.com", i)}, MessageID: fmt.Sprintf("<%d@t>", i),
		})
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	file := filepath.Join(t.TempDir(), "july.jsonl")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("enqueue", "bulk", "--queue", "bulk", "--mailing", "july", file)
	return s
}

// process starts a worker, and ends it at the latest with the test.
func (s *pauseSite) process() *exec.Cmd {
	s.t.Helper()
	c := s.command("worker", "run")
	log, err := os.Create(filepath.Join(s.t.TempDir(), "worker.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	c.Stderr = log
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		s.end(c, syscall.SIGKILL)
		if text, err := os.ReadFile(log.Name()); err == nil && s.t.Failed() {
			s.t.Logf("worker %d:\n%s", c.Process.Pid, tail(text))
		}
		_ = log.Close()
	})
	return c
}

// end ends a process with a signal, unless it has ended.
func (s *pauseSite) end(c *exec.Cmd, how syscall.Signal) {
	s.t.Helper()
	if c.ProcessState != nil {
		return
	}
	s.signal(c, how)
	var exit *exec.ExitError
	if err := c.Wait(); err != nil && !errors.As(err, &exit) {
		s.t.Error(err)
	}
}

func (s *pauseSite) signal(c *exec.Cmd, what syscall.Signal) {
	s.t.Helper()
	if err := c.Process.Signal(what); err != nil {
		s.t.Errorf("%v: %v", what, err)
	}
}

// arrived are the messages that came after a time.
func (s *pauseSite) arrived(after time.Time) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.came {
		if a.at.After(after) {
			ids = append(ids, a.id)
		}
	}
	return ids
}

// numbers are those of the messages that wait, in the order in which they will go on.
func (s *pauseSite) numbers() (all []int) {
	s.t.Helper()
	ids, err := s.client.LRange(s.t.Context(), "asynq:{"+s.queue+"}:pending", 0, -1).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Reverse(ids)
	for _, id := range ids {
		task, ok := asynqbatch.ReadMessage(s.client.HGet(s.t.Context(), asynqbatch.TaskKey(s.queue, id), "msg").Val())
		if !ok {
			s.t.Fatalf("%s is no task", id)
		}
		for line := range new(wire.Codec).Lines(task.Payload) {
			p, err := wire.Decode(line, nil)
			if err != nil {
				s.t.Fatal(err)
			}
			var n int
			if _, err := fmt.Sscanf(p.Message.MessageID, "<%d@t>", &n); err != nil {
				s.t.Fatal(err)
			}
			all = append(all, n)
		}
	}
	return all
}

// none reports whether no worker has anything in hand.
func (s *pauseSite) none() bool {
	return s.client.Exists(s.t.Context(), "asynq:{"+s.queue+"}:active", "asynq:{"+s.queue+"}:lease").Val() == 0
}

// checkAll waits until all have arrived, and checks that some at most came twice.
func (s *pauseSite) checkAll(mostTwice int) {
	s.t.Helper()
	count := map[string]int{}
	s.eventually("all have arrived", func() bool {
		clear(count)
		for _, id := range s.arrived(time.Time{}) {
			count[id]++
		}
		return len(count) >= pausedMails && s.none()
	})
	twice := 0
	for id, n := range count {
		if n > 1 {
			twice += n - 1
			s.t.Logf("%s came %d times", id, n)
		}
	}
	if len(count) != pausedMails || twice > mostTwice {
		s.t.Errorf("%d different messages and %d second copies, want %d and %d at most", len(count), twice, pausedMails, mostTwice)
	}
}

// Two worker processes are in the middle of a mailing when a person pauses it. When the command has returned only what is on the wire comes
// yet. All waits in its order, other mail goes on, and nothing is lost or sent twice when it is resumed. The same with a process that stands
// still while the pause is made, and with one that is killed then.
func TestPause_processes(t *testing.T) {
	bin := commands(t)
	for _, tt := range []struct {
		name   string
		target []string
		size   int
	}{
		{"mailing", []string{"--mailing", "july"}, 1},
		{"mailing in tasks of many", []string{"--mailing", "july"}, 20},
		{"queue with tasks of many", []string{"--queue", "bulk"}, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Run("both go on", func(t *testing.T) { s := newPauseSite(t, bin, tt.size); s.bothPause(tt.target) })
			t.Run("one is stopped meanwhile", func(t *testing.T) { s := newPauseSite(t, bin, tt.size); s.oneStopped(tt.target) })
			t.Run("one is killed", func(t *testing.T) { s := newPauseSite(t, bin, tt.size); s.oneKilled(tt.target) })
		})
	}
}

// pause pauses, and returns when that was done.
func (s *pauseSite) pause(target []string) time.Time {
	s.t.Helper()
	s.run("enqueue", append([]string{"pause", "--reason", "a mistake in it"}, target...)...)
	return time.Now()
}

func (s *pauseSite) resume(target []string) {
	s.t.Helper()
	s.run("enqueue", append([]string{"resume"}, target...)...)
}

// quiet waits until workers have given back what they had, and checks that only what was on the wire of so many of them came
// after a time.
func (s *pauseSite) quiet(since time.Time, workers int) {
	s.t.Helper()
	s.eventually("the workers have nothing in hand", s.none)
	back := time.Since(since).Round(time.Millisecond)
	before := len(s.arrived(time.Time{}))
	s.run("enqueue", "send", "--from", "shop@example.com", "--to", "ann@example.com", "--subject", "x", "--body", "x") // other mail, by whoever is there
	s.eventually("another message", func() bool { return len(s.arrived(time.Time{})) > before })
	s.mu.Lock()
	other := len(s.came) - 1
	s.came = slices.Delete(s.came, other, other+1)
	s.mu.Unlock()
	came := s.arrived(since)
	if len(came) > workers*connections {
		s.t.Errorf("%d messages came after the pause, want %d at most", len(came), workers*connections)
	}
	s.t.Logf("%d messages had been sent, %d came yet, all was back after %v", len(s.arrived(time.Time{})), len(came), back)
}

func (s *pauseSite) begun(n int) {
	s.t.Helper()
	s.eventually("the mailing is being sent", func() bool { return len(s.arrived(time.Time{})) >= n })
}

func (s *pauseSite) bothPause(target []string) {
	one, two := s.process(), s.process()
	s.begun(100)
	s.quiet(s.pause(target), 2)
	sent := map[int]bool{}
	for _, id := range s.arrived(time.Time{}) {
		var n int
		if _, err := fmt.Sscanf(id, "<%d@t>", &n); err != nil {
			s.t.Fatal(err)
		}
		sent[n] = true
	}
	s.end(one, syscall.SIGTERM)
	s.end(two, syscall.SIGTERM)
	s.resume(target)
	wait := slices.DeleteFunc(s.numbers(), func(n int) bool { return sent[n] })
	if !slices.IsSorted(wait) || len(wait) != pausedMails-len(sent) {
		s.t.Errorf("%d messages wait, in this order: %v; want %d in that in which they were queued", len(wait), wait, pausedMails-len(sent))
	}
	s.process()
	s.process()
	s.checkAll(0)
}

// oneStopped stops the only worker while the pause is made: it knows nothing of that when it goes on.
func (s *pauseSite) oneStopped(target []string) {
	one := s.process()
	s.begun(50)
	s.signal(one, syscall.SIGSTOP)
	paused := s.pause(target)
	if s.none() {
		s.t.Fatal("the worker has nothing in hand: this test says nothing")
	}
	s.signal(one, syscall.SIGCONT)
	s.quiet(paused, 1)
	s.resume(target)
	s.process()
	s.checkAll(0)
}

// oneKilled kills one of two workers with what it has in hand, while the pause is made. Another one takes that over, and sends nothing of it.
func (s *pauseSite) oneKilled(target []string) {
	one := s.process()
	s.begun(50)
	s.signal(one, syscall.SIGSTOP)
	paused := s.pause(target)
	s.end(one, syscall.SIGKILL)
	lease := "asynq:{" + s.queue + "}:lease"
	members := s.client.ZRange(s.t.Context(), lease, 0, -1).Val()
	if len(members) == 0 {
		s.t.Fatal("the worker has nothing in hand: this test says nothing")
	}
	for _, id := range members { // their time is over
		s.client.ZAddXX(s.t.Context(), lease, redis.Z{Score: float64(time.Now().Add(-time.Minute).Unix()), Member: id})
	}
	s.process() // it looks for leases that are over at its start
	s.quiet(paused, 1)
	if strings.HasPrefix(target[0], "--mailing") {
		s.eventually("what was in hand is set aside", func() bool {
			return s.client.ZCard(s.t.Context(), wire.AsideKey(s.queue, "july")).Val() > 0 && s.client.LLen(s.t.Context(), "asynq:{"+s.queue+"}:pending").Val() == 0
		})
	}
	if came := s.arrived(paused.Add(100 * time.Millisecond)); len(came) > connections {
		s.t.Errorf("%d messages came after the worker was killed", len(came))
	}
	s.resume(target)
	s.checkAll(connections) // what was on the wire may have been delivered, and was not said to be
}
