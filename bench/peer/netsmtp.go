package main

import (
	"context"
	"net/smtp"

	"github.com/mailpouch/mailpouch/bench/baseline"
)

// netSMTP sends over connections that stay open, one for each task at once. It is as lean
// as can be: no NOOP and no RSET between mails.
type netSMTP struct {
	addr string
	idle chan *smtp.Client
}

func newNetSMTP(o options) *netSMTP {
	return &netSMTP{addr: o.smtp, idle: make(chan *smtp.Client, o.connections)}
}

func (n *netSMTP) send(_ context.Context, m baseline.Mail) error {
	c, err := n.get()
	if err != nil {
		return err
	}
	if err := deliver(c, m); err != nil {
		_ = c.Close()
		return err
	}
	n.idle <- c // there is room: no more connections than tasks at once
	return nil
}

func (n *netSMTP) get() (*smtp.Client, error) {
	select {
	case c := <-n.idle:
		return c, nil
	default:
		return connect(n.addr)
	}
}

func connect(addr string) (*smtp.Client, error) {
	c, err := smtp.Dial(addr)
	if err != nil {
		return nil, err
	}
	return c, c.Hello("peer.example")
}

func deliver(c *smtp.Client, m baseline.Mail) error {
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
	if _, err := w.Write(m.Render()); err != nil {
		return err
	}
	return w.Close()
}

// dialEach sends each mail over a connection of its own, as smtp.SendMail does.
func dialEach(o options) sender {
	return func(_ context.Context, m baseline.Mail) error {
		c, err := connect(o.smtp)
		if err != nil {
			return err
		}
		if err := deliver(c, m); err != nil {
			_ = c.Close()
			return err
		}
		return c.Quit()
	}
}
