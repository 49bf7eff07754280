package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"github.com/mailpouch/mailpouch/bench/baseline"
)

// goMail composes with go-mail and sends with go-mail's SMTP client over connections that
// stay open. Its Client.Send would say RSET after each mail, which is left out here, and so
// is NOOP.
type goMail struct {
	client      *mail.Client
	connections pool[*smtp.Client]
}

func newGoMail(o options) (*goMail, error) {
	host, port, err := net.SplitHostPort(o.smtp)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	c, err := mail.NewClient(host, mail.WithPort(number), mail.WithTLSPolicy(mail.NoTLS), mail.WithHELO("peer.example"), mail.WithoutNoop())
	return &goMail{client: c, connections: newPool[*smtp.Client](o.connections)}, err
}

func (g *goMail) send(ctx context.Context, m baseline.Mail) error {
	message, err := compose(m)
	if err != nil {
		return err
	}
	return g.connections.use(ctx, func() (*smtp.Client, error) { return g.open(ctx) }, func(c *smtp.Client) error {
		return deliver(c, m.From, m.To, func(w io.Writer) error {
			_, err := message.WriteTo(w)
			return err
		})
	})
}

// open opens a connection that outlives the task that it is opened for, and the time that
// go-mail gives a connection.
func (g *goMail) open(ctx context.Context) (*smtp.Client, error) {
	c, err := g.client.DialToSMTPClientWithContext(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	return c, c.UpdateDeadline(time.Hour)
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
