package workercli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// asCommand in the environment makes the test binary the worker.
const asCommand = "MAILPOUCH_TEST_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		Main(backends.Builtin())
	}
	os.Exit(m.Run())
}

// workerProcess is a worker in a process of its own, which writes its mail into a directory.
type workerProcess struct {
	*exec.Cmd

	server *redistest.Server
	log    *bufio.Reader
	pipe   io.ReadCloser
	ended  chan error
	queued int
}

// startProcess starts a worker through a shell, which may do something before, and waits until it has started.
func startProcess(t *testing.T, before string, env ...string) *workerProcess {
	t.Helper()
	p := newProcess(t, before, env...)
	p.start(t)
	return p
}

// newProcess is startProcess without the start.
func newProcess(t *testing.T, before string, env ...string) *workerProcess {
	t.Helper()
	return newCommandProcess(t, "run", before, env...)
}

// newCommandProcess is newProcess of another command of the worker.
func newCommandProcess(t *testing.T, command, before string, env ...string) *workerProcess {
	t.Helper()
	p := &workerProcess{server: redistest.Start(t, redistest.Options{}), ended: make(chan error, 1)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.Cmd = exec.CommandContext(t.Context(), "/bin/sh", "-c", before+` exec "$0" `+command+` 2>&1`, self)
	p.Env = append(os.Environ(), asCommand+"=1", "REDIS_URL="+p.server.URL(), "EMAIL_HTTP_ADDR=off", "LOG_FORMAT=json",
		"EMAIL_QUEUE_BACKEND=dummy")
	p.Env = append(p.Env, env...)
	if p.pipe, err = p.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	p.log = bufio.NewReader(p.pipe)
	return p
}

func (p *workerProcess) start(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	p.until(t, " started")
}

// until reads the log up to a line.
func (p *workerProcess) until(t *testing.T, line string) string {
	t.Helper()
	for {
		got, err := p.log.ReadString('\n')
		if err != nil {
			t.Fatalf("the log ends before %q: %v", line, err)
		}
		if strings.Contains(got, line) {
			return got
		}
	}
}

func (p *workerProcess) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// delivers checks that the worker delivers n messages.
func (p *workerProcess) delivers(t *testing.T, n int) {
	t.Helper()
	p.queue(t, n)
	p.wait(t)
}

func (p *workerProcess) queue(t *testing.T, n int) {
	t.Helper()
	client := p.server.Client(t)
	queue := tasks.NewQueue(client, tasks.QueueConfig{BulkSize: 1})
	for i := range n {
		m := &mailer.EmailMessage{Subject: "Hello", Body: "It works.", FromEmail: "shop@example.com", To: []string{fmt.Sprintf("u%d@example.com", i)}}
		if _, err := queue.Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	p.queued += n
}

// wait waits until all messages are delivered.
func (p *workerProcess) wait(t *testing.T) {
	t.Helper()
	client, n := p.server.Client(t), p.queued
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for client.Get(ctx, "asynq:{default}:processed").Val() != fmt.Sprint(n) {
		select {
		case <-ctx.Done():
			t.Fatalf("of %d messages %q are done", n, client.Get(t.Context(), "asynq:{default}:processed").Val())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ends checks how the worker ends after SIGTERM.
func (p *workerProcess) ends(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	go func() { p.ended <- p.Wait() }()
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("it has ended with %v, want in order", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
}

// Whoever reads the log may go away: the worker goes on without it, and ends in order.
func TestRun_logReaderGoes(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "")
	if err := p.pipe.Close(); err != nil {
		t.Fatal(err)
	}
	p.delivers(t, 3) // a line is logged for each
	p.ends(t)
}

// A worker that was started with nohup outlives its terminal. Any other ends with that, in order: TestRun_terminal.
func TestRun_nohup(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "trap '' HUP INT;")
	p.signal(t, syscall.SIGHUP)
	p.signal(t, syscall.SIGINT)
	p.delivers(t, 1)
	p.ends(t)
}
