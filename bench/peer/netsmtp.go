package main

import (
	"context"
	"io"
	"net/smtp"

	"github.com/mailpouch/mailpouch/bench/baseline"
)

// netSMTP sends over connections that stay open. It is as lean as can be: no NOOP and no
// RSET between mails.
type netSMTP struct {
	addr        string
	connections pool[*smtp.Client]
}

func newNetSMTP(o options) *netSMTP {
	return &netSMTP{addr: o.smtp, connections: newPool[*smtp.Client](o.connections)}
}

func (n *netSMTP) send(ctx context.Context, m baseline.Mail) error {
	return n.connections.use(ctx, func() (*smtp.Client, error) { return connect(n.addr) }, func(c *smtp.Client) error {
		return deliver(c, m.From, m.To, func(w io.Writer) error {
			_, err := w.Write(m.Render())
			return err
		})
	})
}

func connect(addr string) (*smtp.Client, error) {
	c, err := smtp.Dial(addr)
	if err != nil {
		return nil, err
	}
	return c, c.Hello("peer.example")
}

// transaction is what a client of net/smtp does for a mail. That of go-mail has the same
// methods.
type transaction interface {
	Mail(from string) error
	Rcpt(to string) error
	Data() (io.WriteCloser, error)
}

func deliver(c transaction, from, to string, write func(io.Writer) error) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if err := write(w); err != nil {
		return err
	}
	return w.Close()
}
