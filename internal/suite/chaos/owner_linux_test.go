package chaos

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/testserver/clock"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// connections is how many a worker has: so many messages are on the wire at once.
const connections = 4

// owned is a Redis with mail for workers that are to disagree about whose it is.
type owned struct {
	t      *testing.T
	client redis.UniversalClient
	relay  *relay
	stack  *stack
	fleet  *fleet
	mails  int
}

// newOwned hands mails over, half of them one by one and half as bulk mail, or all of them one by one.
func newOwned(t *testing.T, mails, bulk int, slowest time.Duration, o tasks.Options) *owned {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	relay := startRelay(t, *seedFlag, faults{slowest: slowest})
	w := &owned{t: t, client: server.Client(t), relay: relay, stack: ours(t, server.URL(), relay), mails: mails}
	messages := make([]*mailer.EmailMessage, mails)
	for i := range messages {
		messages[i] = message(i)
	}
	for size, some := range map[int][]*mailer.EmailMessage{1: messages[bulk:], 100: messages[:bulk]} {
		queue := tasks.NewQueue(w.client, tasks.QueueConfig{BulkSize: size}).With(o)
		if n, err := queue.SendMessages(t.Context(), some); n != len(some) || err != nil {
			t.Fatalf("handed over %d of %d, %v", n, len(some), err)
		}
	}
	w.fleet = startFleet(t, w.stack, plan{}, t.TempDir(), time.Minute)
	return w
}

// start starts one more worker, with more settings.
func (w *owned) start(env ...string) *worker {
	w.t.Helper()
	command := w.stack.command
	defer func() { w.stack.command = command }()
	w.stack.command = func(s setup) *exec.Cmd {
		cmd := command(s)
		cmd.Env = append(append(cmd.Env, fmt.Sprint("EMAIL_CONNECTIONS=", connections)), env...) // else they would become more
		return cmd
	}
	w.fleet.mu.Lock()
	slot := len(w.fleet.slots)
	w.fleet.slots = append(w.fleet.slots, nil)
	w.fleet.usable = slot + 1
	w.fleet.mu.Unlock()
	w.fleet.start(slot)
	return w.fleet.slots[slot]
}

// wait waits until the relay has so many messages.
func (w *owned) wait(n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	if !waitFor(ctx, func() bool { has, _ := w.relay.delivered(); return has >= n }) {
		has, _ := w.relay.delivered()
		w.t.Fatalf("%d messages delivered, want %d", has, n)
	}
}

// end waits until all that is left are dead letters, and returns how many copies there are of the messages, and how many
// of them were delivered.
func (w *owned) end() (copies, delivered, dead int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute)
	defer cancel()
	inspector := asynq.NewInspectorFromRedisClient(w.client)
	if !waitFor(ctx, func() bool { return idle(inspector) }) {
		w.t.Error("there is mail left")
	}
	w.fleet.stop()
	for _, list := range w.relay.books() {
		copies += len(list)
		delivered++
	}
	for _, queue := range []string{"default", "default:mass"} {
		if info, err := inspector.GetQueueInfo(queue); err == nil {
			dead += info.Archived
		}
	}
	records := w.client.Keys(w.t.Context(), "asynq:*:t:*").Val()
	if len(records) != dead {
		w.t.Errorf("%d records are left of tasks, and there are %d dead letters", len(records), dead)
		for _, key := range records[:min(3, len(records))] {
			w.t.Logf("%s: %.300q", key, w.client.HGetAll(w.t.Context(), key).Val())
		}
	}
	return copies, delivered, dead
}

// expire lets the leases of all tasks run out for Redis.
func (w *owned) expire() {
	w.t.Helper()
	now := w.client.Time(w.t.Context()).Val()
	for _, queue := range []string{"default", "default:mass"} {
		lease := "asynq:{" + queue + "}:lease"
		for _, id := range w.client.ZRange(w.t.Context(), lease, 0, -1).Val() {
			w.client.ZAddXX(w.t.Context(), lease, redis.Z{Score: float64(now.Add(-time.Minute).Unix()), Member: id})
		}
	}
}

// A process stands still in the middle of its batches for longer than its leases last, another one takes its tasks over, and the
// first one goes on. No more than the message on the wire of each of its connections is doubled, and nothing is left.
func TestStandsStill(t *testing.T) {
	t.Parallel()
	const mails = 400
	w := newOwned(t, mails, mails/2, 200*time.Millisecond, tasks.Options{})
	first := w.start()
	w.wait(40)
	if err := first.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	lease := time.NewTimer(63 * time.Second) // 30 s, and as long until it counts as over
	defer lease.Stop()
	<-lease.C
	w.start() // it looks for leases that are over at its start
	w.wait(100)
	if err := first.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	copies, delivered, dead := w.end()
	t.Logf("%d copies of %d messages", copies, delivered)
	if delivered != mails || dead != 0 || copies > mails+connections {
		t.Errorf("%d copies of %d messages, %d dead letters; want all %d, at most %d of them twice", copies, delivered, dead, mails, connections)
	}
}

// Workers whose clocks differ by minutes leave each other's tasks alone.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	const mails = 300
	w := newOwned(t, mails, mails/3, 150*time.Millisecond, tasks.Options{})
	w.start(clock.Offset(-90 * time.Second))
	w.wait(10)
	w.start()
	w.wait(20)
	w.start(clock.Offset(90 * time.Second)) // it looks for leases that are over at its start
	copies, delivered, dead := w.end()
	t.Logf("%d copies of %d messages", copies, delivered)
	if delivered != mails || dead != 0 || copies != mails {
		t.Errorf("%d copies of %d messages, %d dead letters; want all %d, once", copies, delivered, dead, mails)
	}
	if !strings.Contains(w.logs(), "this machine's clock and that of Redis differ") {
		t.Error("no worker warns of its clock")
	}
}

// logs are what the workers have said.
func (w *owned) logs() string {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), "sh", "-c", fmt.Sprintf("cat %s/*.log", w.fleet.logs)).Output()
	if err != nil {
		w.t.Error(err)
	}
	return string(out)
}

// A worker is killed in the middle of its batches of at_most_once messages. About the one on the wire of each
// connection is in doubt, and becomes a dead letter; the others are sent.
func TestKilled_atMostOnce(t *testing.T) {
	t.Parallel()
	const mails = 300
	for name, bulk := range map[string]int{"single": 0, "bulk": mails} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newOwned(t, mails, bulk, 150*time.Millisecond, tasks.Options{AtMostOnce: true})
			first := w.start()
			w.wait(40)
			w.fleet.mu.Lock()
			first.told = true // it is not replaced by itself
			w.fleet.mu.Unlock()
			_ = first.cmd.Process.Kill()
			<-first.gone
			w.expire()
			w.start()
			copies, delivered, dead := w.end()
			t.Logf("%d copies of %d messages, %d dead letters", copies, delivered, dead)
			if copies != delivered || dead > connections || delivered < mails-connections || delivered > mails {
				t.Errorf("%d copies of %d messages, %d dead letters; want none twice, and of %d all but at most %d", copies, delivered, dead, mails, connections)
			}
		})
	}
}
