// Package mailertest is the conformance suite of mailer.Backend, for our backends and for those
// that other people write. A backend's test calls [Run], and each sentence of the contract
// becomes a subtest:
//
//	func TestConformance(t *testing.T) {
//		mailertest.Run(t, func(t *testing.T) mailertest.Harness {
//			return mailertest.Harness{Backend: mybackend.New(mybackend.Config{})}
//		})
//	}
//
// docs/writing-a-backend.md has a whole backend with its tests.
//
// The more fields of a [Harness] are set, the more is tested. Run it with the race detector, which
// alone sees whether reports come from one goroutine at a time.
//
// A backend's own tests have to check what cannot be seen from outside: that a message is not
// tried again once it may have been accepted, that a report does not wait for the next message,
// and that Batch.Begin is asked again for a message that is tried again.
package mailertest

import (
	"testing"
)

// Run tests the backends that newHarness makes, a new one for each subtest. newHarness may call
// t.Cleanup to stop what it started, t.Parallel to let the subtests run in parallel, and t.Fatal.
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

func checks() []check {
	var all []check
	all = append(all, connectionChecks()...)
	all = append(all, batchChecks()...)
	all = append(all, senderChecks()...)
	all = append(all, faultChecks()...)
	return append(all, messageChecks()...)
}
