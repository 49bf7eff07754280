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
	"go.uber.org/goleak"
)

// What stands here is the comparison: an asynq worker as articles show it and many
// services run it. It does several things right: its connections stay open, a mail
// that is refused for good is not tried again, it stops in order.

const (
	usualEnv  = "CHAOS_USUAL_WORKER" // makes this program the worker, of that name
	usualType = "email:send"
)

// TestMain makes the test program the usual worker if it was started as one.
func TestMain(m *testing.M) {
	if name := os.Getenv(usualEnv); name != "" {
		usualWorker(name, os.Getenv("REDIS_ADDR"), os.Getenv("SMTP_ADDR"))
		return
	}
	redis.SetLogger(silence{}) // a Redis that is away is what the tests are about
	goleak.VerifyTestMain(m)
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

type usualMail struct {
	From, To, ID, Subject, Body string
}

func newUsualTask(number int) *asynq.Task {
	m := message(number)
	data, err := json.Marshal(usualMail{From: "shop@example.com", To: m.To[0], ID: m.MessageID, Subject: fmt.Sprint("no. ", number), Body: m.Body})
	if err != nil {
		panic(err) // five strings
	}
	return asynq.NewTask(usualType, data)
}

// usualWorker runs until it is told to stop, which asynq sees to.
func usualWorker(name, redisAddr, smtpAddr string) {
	pool := &usualPool{addr: smtpAddr, name: name, idle: make(chan *smtp.Client, 20)}
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: redisAddr}, asynq.Config{Concurrency: 20, LogLevel: asynq.WarnLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc(usualType, func(_ context.Context, task *asynq.Task) error {
		var m usualMail
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

// usualPool keeps connections open between mails.
type usualPool struct {
	addr, name string
	idle       chan *smtp.Client
}

func (p *usualPool) send(m usualMail) error {
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
func (p *usualPool) get() (*smtp.Client, error) {
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

func deliver(c *smtp.Client, m usualMail) error {
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
