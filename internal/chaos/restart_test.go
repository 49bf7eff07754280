package chaos

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/redistest"
)

// A rolling restart of all workers under load, several times, is not to be seen in what
// arrives, and costs no message a try.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	p := plan{
		mails: 1500, workers: 3, span: 10 * time.Second, terms: 9, deadline: 2 * time.Minute, producers: 2,
		relay: faults{slowest: 60 * time.Millisecond},
	}
	r := run(t, p, ours)
	r.check(t) // nothing was cut off and nobody killed: not one copy too many is allowed
	if r.accepted != p.mails || r.delivered != p.mails {
		t.Errorf("%d accepted and %d delivered, want %d", r.accepted, r.delivered, p.mails)
	}
	if r.tries != 0 || r.dead != 0 {
		t.Errorf("%d tries spent, %d dead letters, want none", r.tries, r.dead)
	}
	if r.termed != p.terms || len(r.endings) > 0 {
		t.Errorf("%d workers stopped, want %d, and not in order: %v", r.termed, p.terms, r.endings)
	}
}

// A worker that waits for a silent relay ends at once when it is told so twice, and
// what it held arrives once all the same.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	const mails = 20
	server := redistest.Start(t, redistest.Options{AppendOnly: redistest.Always})
	relay := startRelay(t, *seedFlag, faults{})
	relay.setMute(true)
	s := ours(t, server.URL(), relay)
	l := &load{stack: s, tasks: map[int]string{}}
	logs := t.TempDir()
	fleet := startFleet(t, s, 1, logs, time.Minute)
	l.run(t.Context(), mails, 1, 100*time.Millisecond)
	<-relay.held

	w := fleet.take(0)
	tell(t, w)
	stopping := func() bool {
		log, err := os.ReadFile(filepath.Join(logs, w.name+".log"))
		return err == nil && strings.Contains(string(log), "worker stopping")
	}
	if !waitFor(t.Context(), stopping) {
		t.Fatal("the worker does not notice SIGTERM")
	}
	told := time.Now()
	insist(t, w)
	if took := time.Since(told); took > 3*time.Second {
		t.Errorf("the worker took %v to end after the second SIGTERM", took)
	}
	if n, _ := relay.delivered(); n != 0 {
		t.Fatalf("%d messages were kept, the relay was to be silent", n)
	}

	relay.setMute(false)
	fleet.start(0)
	inspector := asynq.NewInspectorFromRedisClient(server.Client(t))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	finished := waitFor(ctx, func() bool { return idle(inspector) })
	fleet.stop()
	r := newReport(t, s, l, relay, fleet, inspector)
	r.finished = finished
	r.check(t)
	if r.delivered != mails || r.twice != 0 || r.tries != 0 {
		t.Errorf("%d delivered, %d again, %d tries spent: want %d, 0, 0", r.delivered, r.twice, r.tries, mails)
	}
}

func tell(t *testing.T, w *worker) {
	t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// insist repeats SIGTERM until the worker is gone: one that comes while the worker
// turns from the first to the second may go unnoticed.
func insist(t *testing.T, w *worker) {
	t.Helper()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-w.gone:
			return
		case <-t.Context().Done():
			t.Fatal("the worker does not end")
		case <-again.C:
		}
	}
}
