package scenario

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
	"github.com/mailpouch/mailpouch/bench/profile"
	"github.com/mailpouch/mailpouch/bench/report"
	"github.com/mailpouch/mailpouch/internal/testserver"
)

// Profiles takes CPU profiles of a worker. The processor time of a mail comes from the
// scenarios instead, because profiling itself takes time.
func Profiles(ctx context.Context, programs harness.Programs, size Size, r *report.Run) ([]report.Profile, error) {
	seconds := size.of(4, 1)
	var profiles []report.Profile
	for _, p := range []struct {
		title, scenario, contender string
		emptying                   emptying
	}{
		{"One task a mail", drainName, single, emptying{span: span{mails: size.of(60_000, 6_000)}, stack: stack{fill: singly}}},
		{"Bulk mail", bulkName, bulk, emptying{span: span{mails: size.of(160_000, 16_000)}, stack: stack{fill: inBatches}}},
	} {
		var parts []report.Part
		err := harness.Run(ctx, "profile, "+p.title, programs, func(b *harness.Bench) {
			var err error
			parts, err = profile.Parts(profiled(b, p.emptying, seconds))
			b.Check(err)
		})
		if err != nil {
			return nil, err
		}
		taken := report.Profile{Title: p.title, Parts: parts}
		if cost := r.Scenario(p.scenario).Contender(p.contender).Stat(worker); cost.N > 0 {
			taken.PerMail = cost.Median
		}
		profiles = append(profiles, taken)
	}
	return profiles, nil
}

// profiled takes a profile of a worker at full speed. If the queue is empty before the time
// is up, the rest of it adds nothing: a worker that waits takes no time.
func profiled(b *harness.Bench, e emptying, seconds int) []byte {
	addr := testserver.FreeAddr(b)
	e.into = ownSink
	e.start = func(b *harness.Bench, r *harness.Redis, s harness.MailServer) crew {
		return held(b, r, func() []*harness.Process {
			return []*harness.Process{startWorker(b, r, s, []string{"--pprof", addr}, connections(manyConnections))}
		})
	}
	w := e.begin(b)
	for since := time.Now(); w.mailServer.Taken() == 0; {
		stalled(b, w.processes, since, 0, e.mails)
		pause(b, time.Millisecond)
	}
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, seconds), nil)
	b.Check(err)
	response, err := http.DefaultClient.Do(request)
	b.Check(err)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	b.Check(err)
	if response.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s", response.Status, data)
	}
	return data
}
