package mailertest

import (
	"context"

	"github.com/mailpouch/mailpouch/mailer"
)

// check tests one sentence of the contract.
type check struct {
	name  string // of the subtest
	rule  string // what a backend must do, for the one who broke it
	needs need   // what the harness must have
	run   func(p *probe)
}

// need names what a Harness may lack.
type need string

const (
	nothing         need = ""
	needBreak       need = "Break"
	needDown        need = "Down"
	needRefuses     need = "Refuses"
	needReceived    need = "Received"
	needBatchSender need = "Backend that is a mailer.BatchSender"
	needTurns       need = "Backend that is a mailer.BatchSender without WholeBatch"
)

func (c check) applies(h Harness) bool {
	switch c.needs {
	case needBreak:
		return h.Break != nil
	case needDown:
		return h.Down != nil
	case needRefuses:
		return h.Refuses != ""
	case needReceived:
		return h.Received != nil
	case needBatchSender:
		return isBatchSender(h)
	case needTurns:
		return isBatchSender(h) && !h.WholeBatch
	default:
		return true
	}
}

func isBatchSender(h Harness) bool {
	_, ok := h.Backend.(mailer.BatchSender)
	return ok
}

// test returns what is wrong.
func (c check) test(ctx context.Context, h Harness) []string {
	p := &probe{Harness: h, ctx: ctx}
	c.run(p)
	return p.failures
}
