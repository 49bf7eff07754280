package chaos

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/testserver/clock"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// stack is one way to send mail in the background: a producer's end and a worker's.
type stack struct {
	name string

	// enqueue hands one message over and returns its task. Doing it again after an
	// error does it once.
	enqueue func(ctx context.Context, number int) (task string, err error)

	// enqueueAll hands several messages over at once. Doing it again may do it twice. It
	// is nil for a stack that has no such way.
	enqueueAll func(ctx context.Context, numbers []int) (tasks []string, errs []error)

	// command is a worker process.
	command func(setup) *exec.Cmd

	// intake is a process that takes mail in, nil for a stack that has none.
	intake func(setup) *exec.Cmd

	// window is how many messages may be in doubt on one connection when its worker dies.
	window int

	// sum is what the bytes of a message have to be, nil if only that does not matter.
	sum func(number int) [sha256.Size]byte
}

// setup says how one worker differs from the others.
type setup struct {
	name     string        // what it calls itself in EHLO
	slot     int           // its place among the others
	clock    time.Duration // how far its clock is ahead
	stranded bool          // it cannot reach the relay
}

const hour = time.Hour // completed tasks stay that long, to be counted

// message is message number n, the same each time.
func message(n int) *mailer.EmailMessage {
	return &mailer.EmailMessage{
		Subject:   fmt.Sprintf("Grüße no. %d", n),
		Body:      fmt.Sprintf("Hello %d\n.\n..two dots\nFrom here on\n%s\n", n, strings.Repeat("A line of text.\n", 20+n%100)),
		FromEmail: "Shop <shop@example.com>",
		To:        []string{fmt.Sprintf("u%d@example.com", n)},
		MessageID: fmt.Sprintf("<%d@chaos.example.com>", n),
		Date:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Charset:   "utf-8",
	}
}

// ours is this project: tasks.Queue and the worker command, whose clock may be wrong.
func ours(t *testing.T, redisURL string, relay *relay) *stack {
	t.Helper()
	return oursWith(t, clock.Build(t, "../../../cmd/worker"), redisURL, relay)
}

// oursWith is ours with a worker command that was built.
func oursWith(t *testing.T, bin, redisURL string, relay *relay) *stack {
	t.Helper()
	client, err := tasks.Connect(redisURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	queue := tasks.NewQueue(client, tasks.QueueConfig{})
	host, port, err := net.SplitHostPort(relay.addr)
	if err != nil {
		t.Fatal(err)
	}
	env := append(plainEnvironment(), "REDIS_URL="+redisURL, "EMAIL_HOST="+host, "EMAIL_PORT="+port,
		"EMAIL_RETRY_MIN=1s", "EMAIL_RETRY_MAX=4s", "EMAIL_TIMEOUT=20s", "EMAIL_DATA_TIMEOUT=1m",
		"EMAIL_BATCH_TIMEOUT=30s", "EMAIL_SHUTDOWN_TIMEOUT=90s", "LOG_LEVEL=info", "LOG_FORMAT=json")
	return &stack{
		name: "mailpouch", window: 1,
		enqueue: func(ctx context.Context, number int) (string, error) {
			once := tasks.Options{IdempotencyKey: fmt.Sprint("mail-", number), Retention: hour}
			id, err := queue.With(once).Enqueue(ctx, message(number))
			var dead *tasks.DeadLetterError
			if errors.As(err, &dead) { // an earlier try, whose reply was lost
				return dead.ID, nil
			}
			return id, err
		},
		enqueueAll: func(ctx context.Context, numbers []int) ([]string, []error) {
			messages := make([]*mailer.EmailMessage, len(numbers))
			for i, number := range numbers {
				messages[i] = message(number)
			}
			ids, errs := make([]string, len(numbers)), make([]error, len(numbers))
			kept := tasks.Options{Retention: hour}
			queue.With(kept).SendBatch(ctx, mailer.Batch{Messages: messages, Report: func(group []mailer.Report) {
				for _, r := range group {
					ids[r.Index], errs[r.Index] = r.Reply, r.Err
				}
			}})
			return ids, errs
		},
		command: func(w setup) *exec.Cmd {
			cmd := exec.Command(bin, "run")
			cmd.Env = append(slices.Clone(env), "EMAIL_HOSTNAME="+w.name, clock.Offset(w.clock))
			if w.stranded {
				cmd.Env = append(cmd.Env, "EMAIL_PORT=1") // nobody listens there
			}
			return cmd
		},
		sum: func(number int) [sha256.Size]byte {
			h := sha256.New()
			if _, err := message(number).WriteTo(h); err != nil {
				t.Error(err)
			}
			return [sha256.Size]byte(h.Sum(nil))
		},
	}
}

// chunking is ours with EMAIL_CHUNKING, where as many messages as there is room for in the window
// (smtp.Config.Window) go out before the first one is answered.
func chunking(t *testing.T, redisURL string, relay *relay) *stack {
	t.Helper()
	s := ours(t, redisURL, relay)
	command := s.command
	s.name, s.window = s.name+", chunking", 16
	s.command = func(w setup) *exec.Cmd {
		cmd := command(w)
		cmd.Env = append(cmd.Env, "EMAIL_CHUNKING=auto")
		return cmd
	}
	return s
}

// plainEnvironment is ours without what would be settings.
func plainEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "EMAIL_") {
			env = append(env, v)
		}
	}
	return env
}

// baselineStack is the worker that people usually write, see baseline_test.go. It is this very program.
func baselineStack(t *testing.T, redisURL string, relay *relay) *stack {
	t.Helper()
	o, err := redis.ParseURL(redisURL)
	if err != nil {
		t.Fatal(err)
	}
	client := asynq.NewClient(asynq.RedisClientOpt{Addr: o.Addr})
	t.Cleanup(func() { _ = client.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &stack{
		name: "usual asynq handler", window: 1,
		enqueue: func(ctx context.Context, number int) (string, error) {
			id := fmt.Sprintf("mail-%d", number)
			_, err := client.EnqueueContext(ctx, newBaselineTask(number), asynq.TaskID(id), asynq.Retention(hour))
			if errors.Is(err, asynq.ErrTaskIDConflict) {
				err = nil // an earlier try, whose reply was lost
			}
			return id, err
		},
		command: func(w setup) *exec.Cmd {
			cmd := exec.Command(self)
			cmd.Env = append(plainEnvironment(), baselineEnv+"="+w.name, "REDIS_ADDR="+o.Addr, "SMTP_ADDR="+relay.addr)
			return cmd
		},
	}
}
