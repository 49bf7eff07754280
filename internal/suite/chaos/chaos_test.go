package chaos

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

var (
	fullRun  = flag.Bool("chaos.full", false, "break everything, for minutes, and compare with the usual asynq handler")
	seedFlag = flag.Uint64("chaos.seed", 1, "what happens when")
	chunked  = flag.String("chaos.chunking", "off", "EMAIL_CHUNKING of the full run: off or auto")
	logDir   = flag.String("chaos.logs", "", "`directory` to keep the workers' logs in")
)

// TestChaos holds the promise against a run in which everything goes wrong that may.
func TestChaos(t *testing.T) {
	t.Parallel()
	stacks := map[string]func(*testing.T, string, *relay) *stack{"off": ours, "auto": chunking}
	if !*fullRun {
		for name, with := range stacks {
			t.Run("chunking "+name, func(t *testing.T) {
				t.Parallel()
				r := run(t, short(), with)
				t.Logf("\n%s", table(short(), *seedFlag, r...))
				check(t, r)
			})
		}
		return
	}
	our, ok := stacks[*chunked]
	if !ok {
		t.Fatalf("-chaos.chunking=%s: neither off nor auto", *chunked)
	}
	var us, them []*report
	t.Run("both", func(t *testing.T) {
		t.Run("mailpouch", func(t *testing.T) { t.Parallel(); us = run(t, full(), our) })
		t.Run("usual", func(t *testing.T) { t.Parallel(); them = run(t, full().usual(), baselineStack) })
	})
	if us == nil || them == nil {
		t.Fatal("a run did not come to its end")
	}
	_, _ = os.Stdout.WriteString("\n" + table(full(), *seedFlag, append(us, them...)...) + "\n")
	check(t, us)
}

// run does what the plan says and counts, the messages handed over in bulk apart from the others.
func run(t *testing.T, p plan, with func(*testing.T, string, *relay) *stack) []*report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), p.deadline)
	defer cancel()
	server := redistest.Start(t, redistest.Options{AppendOnly: redistest.Always})
	relay := startRelay(t, *seedFlag, p.relay)
	s := with(t, server.URL(), relay)
	l := newLoad(s, p)
	fleet := startFleet(t, s, p, logsOf(t, s), 4*time.Minute)

	start, happened := time.Now(), map[action]int{}
	var producing sync.WaitGroup
	producing.Go(func() { l.run(ctx) })
	for _, e := range p.schedule(*seedFlag) {
		if !until(ctx, start.Add(e.at)) {
			break
		}
		act(e, p, server, relay, fleet, nil)
		happened[e.do]++
	}
	producing.Wait()
	inspector := asynq.NewInspectorFromRedisClient(server.Client(t))
	finished := waitFor(ctx, func() bool { return idle(inspector) })
	took := time.Since(start)
	fleet.stop()
	happened[killWorker], happened[termWorker], happened[stallWorker] = fleet.ends()
	reports := newReports(t, l, relay, fleet, inspector)
	for _, r := range reports {
		r.took, r.finished, r.happened = took, finished, happened
	}
	return reports
}

func logsOf(t *testing.T, s *stack) string {
	t.Helper()
	if *logDir == "" {
		return t.TempDir()
	}
	dir := filepath.Join(*logDir, t.Name(), s.name) // each test has workers with the same names
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// until waits for a time. It is false if ctx ends first.
func until(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func act(e event, p plan, server *redistest.Server, relay *relay, fleet, intakes *fleet) {
	switch e.do {
	case killWorker:
		fleet.kill(e.slot)
	case termWorker:
		fleet.term(e.slot)
	case stallWorker:
		fleet.stall(e.slot, p.stall)
	case killIntake:
		intakes.kill(e.slot)
	case termIntake:
		intakes.term(e.slot)
	case crashRedis:
		fleet.redisGone()
		server.Kill()
	case startRedis:
		server.Restart()
		fleet.redisBack()
	case pauseRedis:
		fleet.redisGone()
		server.Pause()
	case resumeRedis:
		server.Resume()
		fleet.redisBack()
	case relayLeaves:
		relay.leave()
	case relayBack:
		relay.back()
	}
}

// idle reports whether no task is waiting, held or to be tried again.
func idle(inspector *asynq.Inspector) bool {
	queues, err := inspector.Queues()
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(queues, func(name string) bool {
		q, err := inspector.GetQueueInfo(name)
		return err != nil || q.Pending+q.Active+q.Scheduled+q.Retry > 0
	})
}
