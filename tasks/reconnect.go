package tasks

import (
	"context"
	"errors"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// Reconnect makes new backends with WorkerConfig.Connect, which may have other passwords by now, and replaces each connection by
// one of theirs. What is on the wire goes on over the old one: a connection is replaced before the next batch, one that has
// no mail before its next message. If the new login is refused, that is found out with one login. A mailer that is held is tried
// at once, unless its relay has said how long to wait; so is a login that has to wait since others were refused.
//
// The error is that of Connect. The mailers whose backends it made all are reconnected nevertheless.
func (w *Worker) Reconnect() error {
	all := make([]error, 0, len(w.dispatchers))
	for _, d := range w.dispatchers {
		all = append(all, d.reconnect())
	}
	return errors.Join(all...)
}

func (d *dispatcher) reconnect() error {
	if d.route != nil {
		return nil // its members are reconnected
	}
	d.making.Lock()
	defer d.making.Unlock()
	backends := make([]mailer.Backend, d.pool.len())
	for i := range backends {
		var err error
		if backends[i], err = d.cfg.Connect(d.mailer); err != nil {
			return err
		}
	}
	d.pool.replace(backends)
	d.breaker.again()
	return nil
}

func (p *connections) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// replace gives each connection another backend. None counts as open any more: so one is opened first, and the others wait for what
// becomes of it.
func (p *connections) replace(backends []mailer.Backend) {
	l := &logins{redis: p.loginsOf(nil).redis, fresh: true}
	for _, b := range backends {
		if via, ok := b.(mailer.Connector); ok {
			l.of(via.Account())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), loginPoll*20)
	defer cancel()
	l.start(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.all {
		if via, ok := backends[i].(mailer.Connector); ok {
			via.ConnectVia(c.via)
		}
		c.next, c.open = backends[i], false
	}
	p.logins = l
	p.sure, p.loggedIn, p.refused, p.loginDue = time.Time{}, false, nil, time.Time{}
	p.wake()
}
