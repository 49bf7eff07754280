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
		taken := turns.withdraw(func(_ int, d *delivery) bool { return d.index == 2 }, func([]*delivery) {})
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
		if n := len(turns.elsewhere()); n != 2 {
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

// Senders that have nothing to do get half of what would take another one long, though that gets on.
func TestTurns_spare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		deliveries := make([]*delivery, 10)
		for i := range deliveries {
			deliveries[i] = &delivery{index: i}
		}
		turns := newTurns(deliveries, newMarks(deliveries), time.Hour)
		admit := func(*delivery) error { return nil }
		want := func(when string, from int) {
			t.Helper()
			if got := turns.spare(time.Second); got != from {
				t.Errorf("%s: others may have those from %d on, want %d", when, got, from)
			}
		}
		_ = turns.begin(0, admit)
		time.Sleep(500 * time.Millisecond)
		want("nothing is known of its pace", 10)
		turns.report([]mailer.Report{{Index: 0}}, func([]mailer.Report, []*delivery) {})
		_ = turns.begin(1, admit)
		want("eight are left at half a second each", 6)
		turns.withdraw(func(i int, _ *delivery) bool { return i >= 6 }, func([]*delivery) {})
		want("four are left", 4)
		turns.withdraw(func(i int, _ *delivery) bool { return i >= 3 }, func([]*delivery) {})
		want("one is left", 10)
	})
}
