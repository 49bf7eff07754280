// Package mailertest tests whether a mailer.Backend keeps its contract: ours, and
// those that other people write. A backend's test calls [Run], and each sentence of
// the contract becomes a subtest:
//
//	func TestConformance(t *testing.T) {
//		mailertest.Run(t, func(t *testing.T) mailertest.Harness {
//			return mailertest.Harness{Backend: mybackend.New(mybackend.Config{})}
//		})
//	}
//
// docs/writing-a-backend.md has a whole backend with its tests.
//
// The more a [Harness] can tell of what the backend did, the more is tested. Run it
// with the race detector: that reports come from one goroutine at a time is left to it.
//
// What no suite can see from outside is left to the backend's own tests: that a
// message is not tried again once it may have been accepted, that a report does
// not wait for the next message, and that a message which is tried anew is asked for anew.
package mailertest

import (
	"context"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// Harness is a backend under test, with the means to see what it did and to put
// difficulties in its way. Only Backend is required; what depends on a nil field is
// not tested, which the log of the test says.
type Harness struct {
	// Backend is new, not open, and used by this one subtest alone. A message it
	// takes must be sent as it is: with the Defaults of the zero value.
	Backend mailer.Backend

	// Received returns what has arrived at the next hop so far, in any order. It must
	// hold all that the backend was told is accepted.
	Received func() []Mail

	// NoEnvelope says that Received cannot tell senders and recipients, as the
	// backend keeps the message but not its envelope. They are not compared then.
	NoEnvelope bool

	// WholeBatch says that the backend sends a batch of any size in one call, so that it
	// asks for all of its messages before that. It is not tested then that it does not.
	WholeBatch bool

	// Connections returns how many connections the backend has opened so far.
	Connections func() int

	// Break makes the open connection die without the backend's knowledge.
	Break func()

	// Down makes the next hop unreachable from now on: a connection cannot be opened.
	Down func()

	// Refuses is an address that the next hop refuses, while it accepts the message
	// for other recipients. "" means that there is none.
	Refuses string
}

// Mail is a message that has arrived.
type Mail struct {
	Envelope mailer.Envelope // UTF8 is not compared

	// Data is the message (RFC 5322). Lines may end with CRLF or LF, and header
	// fields that a server puts before the message, such as Received, may be there.
	Data []byte
}

// Run tests the backends that newHarness makes, one for each subtest. newHarness may
// call t.Cleanup to stop what it started, t.Parallel to let the subtests run side by
// side, and t.Fatal.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			if !c.applies(h) {
				t.Logf("not tested: the harness has no %s", c.needs)
				return
			}
			for _, failure := range c.test(t.Context(), h) {
				t.Errorf("%s: %s", c.rule, failure)
			}
		})
	}
}

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

func checks() []check {
	var all []check
	all = append(all, connectionChecks()...)
	all = append(all, batchChecks()...)
	all = append(all, senderChecks()...)
	all = append(all, faultChecks()...)
	return append(all, messageChecks()...)
}
