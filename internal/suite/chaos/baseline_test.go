package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/smtp"
	"net/textproto"
	"os"
	"strings"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// What stands here is the comparison: an asynq worker as articles show it and many
// services run it. It does several things right: its connections stay open, a mail
// that is refused for good is not tried again, it stops in order.

const (
	baselineEnv  = "CHAOS_BASELINE_WORKER" // makes this program the worker, of that name
	baselineType = "email:send"
)

// TestMain makes the test program the baseline worker if it was started as one.
func TestMain(m *testing.M) {
	if name := os.Getenv(baselineEnv); name != "" {
		baselineWorker(name, os.Getenv("REDIS_ADDR"), os.Getenv("SMTP_ADDR"))
		return
	}
	redis.SetLogger(silence{}) // a Redis that is away is what the tests are about
	redistest.VerifyTestMain(m)
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

type baselineMail struct {
	From, To, ID, Subject, Body string
}

func newBaselineTask(number int) *asynq.Task {
	m := message(number)
	data, err := json.Marshal(baselineMail{From: "shop@example.com", To: m.To[0], ID: m.MessageID, Subject: fmt.Sprint("no. ", number), Body: m.Body})
	if err != nil {
		panic(err) // five strings
	}
	return asynq.NewTask(baselineType, data)
}

// baselineWorker runs until it is told to stop, which asynq sees to.
func baselineWorker(name, redisAddr, smtpAddr string) {
	pool := &baselinePool{addr: smtpAddr, name: name, idle: make(chan *smtp.Client, 20)}
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: redisAddr}, asynq.Config{Concurrency: 20, LogLevel: asynq.WarnLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc(baselineType, func(_ context.Context, task *asynq.Task) error {
		var m baselineMail
		if err := json.Unmarshal(task.Payload(), &m); err != nil {
			return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
		}
		err := pool.send(m)
		var reply *textproto.Error
		if errors.As(err, &reply) && reply.Code/100 == 5 {
			return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
		}
		return err
	})
	if err := server.Run(mux); err != nil {
		log.Fatal(err)
	}
}

// baselinePool keeps connections open between mails.
type baselinePool struct {
	addr, name string
	idle       chan *smtp.Client
}

func (p *baselinePool) send(m baselineMail) error {
	c, err := p.get()
	if err != nil {
		return err
	}
	if err := deliver(c, m); err != nil {
		_ = c.Close()
		return err
	}
	select {
	case p.idle <- c:
		return nil
	default:
		return c.Quit()
	}
}

// get takes an idle connection that still answers, or a new one.
func (p *baselinePool) get() (*smtp.Client, error) {
	for {
		select {
		case c := <-p.idle:
			if c.Noop() == nil {
				return c, nil
			}
			_ = c.Close()
		default:
			c, err := smtp.Dial(p.addr)
			if err != nil {
				return nil, err
			}
			return c, c.Hello(p.name)
		}
	}
}

func deliver(c *smtp.Client, m baselineMail) error {
	if err := c.Mail(m.From); err != nil {
		return err
	}
	if err := c.Rcpt(m.To); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("From: %s\nTo: %s\nSubject: %s\nMessage-ID: %s\n\n%s", m.From, m.To, m.Subject, m.ID, m.Body)
	if _, err := w.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n"))); err != nil {
		return err
	}
	return w.Close()
}
