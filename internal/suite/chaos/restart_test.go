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

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// A rolling restart of all workers under load, several times, is not to be seen in what
// arrives, and costs no message a try.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	p := plan{
		mails: 1500, together: 750, bulkSize: 250, workers: 3, span: 10 * time.Second, terms: 9, deadline: 5 * time.Minute, producers: 2,
		relay: faults{slowest: 60 * time.Millisecond},
	}
	reports := run(t, p, ours)
	check(t, reports) // nothing was cut off and nobody killed: not one copy too many is allowed
	for _, r := range reports {
		if r.accepted != p.mails/2 || r.delivered != p.mails/2 {
			t.Errorf("%s: %d accepted and %d delivered, want %d", r.name, r.accepted, r.delivered, p.mails/2)
		}
		if r.tries != 0 || r.dead != 0 {
			t.Errorf("%s: %d tries spent, %d dead letters, want none", r.name, r.tries, r.dead)
		}
		if r.happened[termWorker] != p.terms || len(r.endings) > 0 {
			t.Errorf("%d workers stopped, want %d, and not in order: %v", r.happened[termWorker], p.terms, r.endings)
		}
	}
}

// A worker that waits for a silent relay ends at once when it is told so twice, and
// what it held arrives once all the same.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := plan{mails: 20, workers: 1, span: 100 * time.Millisecond, producers: 1}
	server := redistest.Start(t, redistest.Options{AppendOnly: redistest.Always})
	relay := startRelay(t, *seedFlag, faults{})
	relay.setMute(true)
	s := ours(t, server.URL(), relay)
	l := newLoad(s, p)
	logs := t.TempDir()
	fleet := startFleet(t, s, p, logs, time.Minute)
	l.run(t.Context())
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
	if took := time.Since(told); took > 10*time.Second { // it may take 90 s to stop after one
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
	r := newReports(t, l, relay, fleet, inspector)[0]
	r.finished = finished
	r.check(t)
	if r.delivered != p.mails || r.twice != 0 || r.tries != 0 {
		t.Errorf("%d delivered, %d again, %d tries spent: want %d, 0, 0", r.delivered, r.twice, r.tries, p.mails)
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

// A worker with nothing to do ends in order when Redis is away, be it silent or gone: it has nothing to write. It took
// more than two minutes.
func TestStop_redisAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*redistest.Server){
		"silent": (*redistest.Server).Pause,
		"gone":   (*redistest.Server).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Options{})
			s := ours(t, server.URL(), startRelay(t, *seedFlag, faults{}))
			logs := t.TempDir()
			fleet := startFleet(t, s, plan{workers: 1}, logs, time.Minute)
			w := fleet.take(0)
			says := func(line string) func() bool {
				return func() bool {
					log, err := os.ReadFile(filepath.Join(logs, w.name+".log"))
					return err == nil && strings.Contains(string(log), line)
				}
			}
			client := server.Client(t)
			if !waitFor(t.Context(), says("worker started")) || !waitFor(t.Context(), func() bool { return client.SCard(t.Context(), wire.WorkersKey).Val() > 0 }) {
				t.Fatal("the worker does not start")
			}
			away(server)
			told := time.Now()
			tell(t, w)
			select {
			case <-w.gone:
			case <-time.After(30 * time.Second):
				t.Fatal("the worker does not end")
			}
			t.Logf("ended after %v", time.Since(told).Round(time.Millisecond))
			if state := w.cmd.ProcessState.String(); state != "exit status 0" {
				t.Errorf("it has ended with %s", state)
			}
			if !says("worker stopped")() { // it may have needed nothing of Redis, so that it has nothing to say of it
				t.Error("it does not say that it has stopped")
			}
		})
	}
}
