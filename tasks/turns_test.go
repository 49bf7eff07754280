package tasks

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// What has not begun when the batch's time is up, or when others may have it, is out of the batch; what has begun stays.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		deliveries := make([]*delivery, 4)
		for i := range deliveries {
			deliveries[i] = &delivery{index: i}
		}
		turns := newTurns(deliveries, newMarks(deliveries), time.Minute)
		admit := func(*delivery) error { return nil }
		if err := turns.begin(0, admit); err != nil {
			t.Fatal(err)
		}
		taken := turns.withdraw(func(d *delivery) bool { return d.index == 2 }, func([]*delivery) {})
		if len(taken) != 1 || taken[0] != deliveries[2] {
			t.Errorf("withdrawn: %d", len(taken))
		}
		if err := turns.begin(2, admit); !errors.Is(err, errNoTurn) {
			t.Errorf("one that others have: %v", err)
		}
		time.Sleep(time.Minute)
		if err := turns.begin(1, admit); !errors.Is(err, errNoTurn) {
			t.Errorf("after its time: %v", err)
		}
		late := mailer.Result{Err: errNoTurn}
		turns.report([]mailer.Report{{Index: 0}, {Index: 0}, {Index: 1, Result: late}, {Index: 2, Result: late}}, func(tried []mailer.Report, untried []*delivery) {
			if len(tried) != 1 || tried[0].Index != 0 || len(untried) != 1 || untried[0] != deliveries[1] {
				t.Errorf("tried %v, untried %d", tried, len(untried))
			}
		})
		if left := turns.unreported(errNoReport); len(left) != 1 || left[0].Index != 3 {
			t.Errorf("not reported: %v", left)
		}
		if n := turns.elsewhere(); n != 2 {
			t.Errorf("%d left untried, want 2", n)
		}
	})
}

// The deadline that a backend without SendBatch has says nothing of the relay; all else that it says counts.
func TestOwnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		away := mailer.Report{Result: mailer.Result{Err: sendError(mailer.Unavailable, 421, "closing")}}
		if got := ownEnd(ctx, []mailer.Report{{Result: mailer.Result{Err: mailer.ContextErr(ctx)}}, away}); !errors.Is(got[1].Err, away.Err) {
			t.Error("changed before the deadline")
		}
		<-ctx.Done()
		got := ownEnd(ctx, []mailer.Report{{Result: mailer.Result{Err: mailer.ContextErr(ctx)}}, away})
		if !errors.Is(got[0].Err, errNoTurn) || !errors.Is(got[1].Err, away.Err) {
			t.Errorf("after it: %v, %v", got[0].Err, got[1].Err)
		}
	})
}
