package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/bench/baseline"
	"github.com/mailpouch/mailpouch/internal/catcher"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a peer until the test ends.
func start(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, args) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRun(t *testing.T) {
	for _, kind := range []string{"netsmtp", "gomail"} {
		t.Run(kind, func(t *testing.T) {
			const mails = 5
			var got []catcher.Message
			server := redistest.Start(t, redistest.Options{})
			relay, err := catcher.Start(catcher.Config{OnMessage: func(m catcher.Message) { got = append(got, m) }})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = relay.Close() })
			client := asynq.NewClientFromRedisClient(server.Client(t))
			for i := range mails {
				task, err := baseline.Mail{From: "a@example.com", To: fmt.Sprintf("u%d@example.com", i), Subject: "Hello", Body: "text\n"}.Task()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := client.EnqueueContext(t.Context(), task); err != nil {
					t.Fatal(err)
				}
			}
			start(t, kind, "-redis", server.URL(), "-smtp", relay.Addr(), "-connections", "1", "-concurrency", "3")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := relay.Wait(ctx, mails); err != nil {
				t.Fatal(err)
			}
			for _, m := range got {
				letter, err := mail.ReadMessage(bytes.NewReader(m.Raw))
				if err != nil || letter.Header.Get("Subject") != "Hello" {
					t.Errorf("%v\n%s", err, m.Raw)
				}
			}
			if opened := relay.Stats().Opened; opened != 1 {
				t.Errorf("%d connections for %d mails, want 1", opened, mails)
			}
		})
	}
}

func TestRun_empty(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	client := server.Client(t)
	task, err := baseline.Mail{To: "u@example.com"}.Task()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := asynq.NewClientFromRedisClient(client).EnqueueContext(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	start(t, "empty", "-redis", server.URL())
	for deadline := time.Now().Add(30 * time.Second); client.LLen(t.Context(), "asynq:{default}:pending").Val()+client.LLen(t.Context(), "asynq:{default}:active").Val() > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the task is still there")
		}
	}
}

func TestRun_direct(t *testing.T) {
	relay, err := catcher.Start(catcher.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	start(t, "direct", "-smtp", relay.Addr(), "-connections", "2", "-mails", "250")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := relay.Wait(ctx, 250); err != nil {
		t.Fatal(err)
	}
}

func TestRun_handover(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	const mails = 7
	if err := run(t.Context(), []string{"handover", "-redis", server.URL(), "-concurrency", "3", "-mails", fmt.Sprint(mails)}); err != nil {
		t.Fatal(err)
	}
	if got := server.Client(t).LLen(t.Context(), "asynq:{default}:pending").Val(); got != mails {
		t.Errorf("%d tasks, want %d", got, mails)
	}
}

func TestPool(t *testing.T) {
	p := newPool[*connection](1)
	opened := 0
	open := func() (*connection, error) {
		opened++
		return new(connection), nil
	}
	var first, second *connection
	_ = p.use(t.Context(), open, func(c *connection) error { first = c; return nil })
	failed := errors.New("failed")
	err := p.use(t.Context(), open, func(c *connection) error { second = c; return failed })
	if first != second || !errors.Is(err, failed) || !second.closed {
		t.Errorf("a connection is kept open until something fails: %v, closed %v", err, second.closed)
	}
	if err := p.use(t.Context(), func() (*connection, error) { return nil, failed }, nil); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	if err := p.use(t.Context(), open, func(*connection) error { return nil }); err != nil || opened != 2 {
		t.Errorf("after failures: %v, %d opened", err, opened)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = p.use(t.Context(), open, func(*connection) error { return p.use(ctx, open, nil) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a task waits for a connection until its time is over: %v", err)
	}
}

type connection struct{ closed bool }

func (c *connection) Close() error {
	c.closed = true
	return nil
}

func TestRun_usage(t *testing.T) {
	for _, args := range [][]string{nil, {"fast"}, {"empty", "-redis", "nonsense"}, {"empty", "-speed", "9"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%s: no error", strings.Join(args, " "))
		}
	}
}
