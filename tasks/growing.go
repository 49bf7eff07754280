package tasks

import (
	"context"
	"fmt"
	"time"
)

// grow lets the number of connections grow and shrink until stop ends. busy tells how many messages the worker has in hand, and
// how many connections have nothing to do; one more adds the sender of another connection.
func (p *connections) grow(stop context.Context, busy func() (inHand, idle int), more func() error) {
	tick := time.NewTicker(growEvery)
	defer tick.Stop()
	for stop.Err() == nil {
		if !p.moves() {
			select {
			case <-stop.Done():
				return
			case <-p.lively:
			}
		}
		select {
		case <-stop.Done():
			return
		case <-tick.C:
		}
		inHand, idle := busy()
		if !p.look(inHand, idle) {
			continue
		}
		if err := more(); err != nil {
			p.log.Error().Str("error", p.view.Reason(err.Error())).Msg("no further connection: its backend cannot be made")
			p.held()
		}
	}
}

// moves reports whether there is something to be looked at, though no message is accepted.
func (p *connections) moves() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.growth.now > p.growth.base
}

// look decides whether there are to be more connections or fewer. lacks says that there is no sender yet for one of them.
func (p *connections) look(inHand, idle int) (lacks bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	c := p.growth.look(moment{
		at: now, open: p.countShared(), waits: inHand > 2*p.growth.now, idle: idle,
		free: p.allowed >= p.configured() && p.doubt == nil,
	})
	switch {
	case c.useless > 0:
		p.backTo(-c.by).Str("rate", fmt.Sprintf("%.2f times that of fewer", c.useless)).Msg("more connections bring too little: going on with fewer")
	case c.through && p.growth.now > p.most:
		p.most = p.growth.now
		p.log.Info().Int("connections", p.growth.now).Int("most", p.growth.most).Msg("more connections bring more: going on with those")
	}
	if c.by != 0 {
		p.observers.grown(p.mailer, p.growth.now, p.growth.most)
		p.wake()
	}
	return p.growth.now > len(p.all)-p.dedicated()
}
