package scenario

import (
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/bench/harness"
)

const roundTrip = 20 * time.Millisecond

func distance(size Size) Scenario {
	limit := time.Duration(size.of(3000, 700)) * time.Millisecond
	s := Scenario{
		Name:  "distance",
		Title: "A mail server at 20 ms",
		About: fmt.Sprintf("Each reply of the mail server is 20 ms late, as that of a server at such a round trip. Mails of 2 kB, for %v, over 1, 4 and "+
			"20 connections: as the worker does it if it is not told otherwise (pipelined), with EMAIL_CHUNKING=auto (chunked), and with "+
			"asynq and net/smtp over as many connections that stay open.", limit),
		Metrics: metrics(rate, worker),
		Rounds:  3,
	}
	for _, n := range []int{1, 4, 20} {
		connections := "1 connection"
		if n > 1 {
			connections = fmt.Sprintf("%d connections", n)
		}
		ways := []struct {
			name  string
			ours  bool
			trips float64 // mails a round trip and connection, not less than in truth
			fill  func(*harness.Bench, *harness.Redis, int)
			start func(*harness.Bench, *harness.Redis, *harness.Sink) []*harness.Process
		}{
			{"pipelined", true, 1.5, singly, workers(1, fmt.Sprint("EMAIL_CONNECTIONS=", n))},
			{"chunked", true, 40, singly, workers(1, fmt.Sprint("EMAIL_CONNECTIONS=", n), chunked)},
			{"net/smtp", false, 0.5, baselineTasks, peer("netsmtp", n)},
		}
		for _, w := range ways {
			mails := min(int(w.trips*float64(n)*limit.Seconds()/roundTrip.Seconds())+10, int(limit.Seconds()*12_000))
			s.Entries = append(s.Entries, Entry{connections + ", " + w.name, w.ours,
				emptying{mails: mails, limit: limit, distance: roundTrip, fill: w.fill, start: w.start}.measure})
		}
	}
	return s
}
