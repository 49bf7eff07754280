package main

import (
	"bytes"
	"context"
	"net"
	"strconv"

	"github.com/wneessen/go-mail"

	"github.com/mailpouch/mailpouch/bench/baseline"
)

// goMail sends over connections that stay open, without the NOOP that go-mail says
// before each mail by default.
type goMail struct {
	addr string
	idle chan *mail.Client
}

func newGoMail(o options) *goMail {
	return &goMail{addr: o.smtp, idle: make(chan *mail.Client, o.connections)}
}

func (g *goMail) send(ctx context.Context, m baseline.Mail) error {
	message, err := compose(m)
	if err != nil {
		return err
	}
	c, err := g.get(ctx)
	if err != nil {
		return err
	}
	if err := c.Send(message); err != nil {
		_ = c.Close()
		return err
	}
	g.idle <- c // there is room: no more connections than tasks at once
	return nil
}

func compose(m baseline.Mail) (*mail.Msg, error) {
	message := mail.NewMsg()
	if err := message.From(m.From); err != nil {
		return nil, err
	}
	if err := message.To(m.To); err != nil {
		return nil, err
	}
	message.Subject(m.Subject)
	message.SetBodyString(mail.TypeTextPlain, m.Body)
	if m.Attachment != nil {
		if err := message.AttachReader("data.bin", bytes.NewReader(m.Attachment)); err != nil {
			return nil, err
		}
	}
	return message, nil
}

func (g *goMail) get(ctx context.Context) (*mail.Client, error) {
	select {
	case c := <-g.idle:
		return c, nil
	default:
	}
	host, port, err := net.SplitHostPort(g.addr)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	c, err := mail.NewClient(host, mail.WithPort(number), mail.WithTLSPolicy(mail.NoTLS), mail.WithHELO("peer.example"), mail.WithoutNoop())
	if err != nil {
		return nil, err
	}
	// The connection outlives the task that it is opened for.
	return c, c.DialWithContext(context.WithoutCancel(ctx))
}
