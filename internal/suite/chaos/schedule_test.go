package chaos

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// plan says how much is broken, and for how long.
type plan struct {
	mails    int
	together int // of which this many are handed over in bulk, the others singly
	bulkSize int // messages handed over at once
	workers  int
	span     time.Duration // within which the mails are handed over and things break

	kills     int           // workers ended with SIGKILL
	killsEnd  time.Duration // within this time from the start, span if zero
	terms     int           // workers ended with SIGTERM
	renew     time.Duration // when each worker is replaced once more, if not zero
	stalls    int           // workers that stand still (SIGSTOP)
	stall     time.Duration // for which each does: longer than a lease, so that others take its tasks over
	crashes   int           // of Redis, killed and restarted
	silence   time.Duration // for which Redis is paused, once
	absence   time.Duration // for which the relay is away, once
	deadline  time.Duration // for everything
	relay     faults
	producers int

	clocks   []time.Duration // by how much the clocks of the workers are ahead, by their slots
	stranded int             // workers beside the others that cannot reach the relay

	intakes     int    // processes that take mail in
	intakeKills int    // of them ended with SIGKILL
	intakeTerms int    // and with SIGTERM
	between     func() // see fleet, of the workers
}

// full is what the promise is held against.
func full() plan {
	return plan{
		mails: 20_000, together: 10_000, bulkSize: 250, workers: 3, span: 4 * time.Minute, kills: 30, terms: 30, crashes: 5,
		silence: 40 * time.Second, absence: 30 * time.Second, stalls: 6, stall: 75 * time.Second,
		clocks: []time.Duration{90 * time.Second, 0, -90 * time.Second}, stranded: 1, deadline: 20 * time.Minute, producers: 4,
		relay: faults{laterEvery: 50, cutOneIn: 60, refuseOne: 200, slowest: 80 * time.Millisecond},
	}
}

// short is for every day. Workers are killed at the beginning only, for asynq looks for
// their tasks a minute later, when workers start.
func short() plan {
	return plan{
		mails: 2_000, together: 1_000, bulkSize: 250, workers: 3, span: 20 * time.Second, kills: 3, killsEnd: 4 * time.Second, terms: 4,
		renew: 68 * time.Second, crashes: 1, stalls: 1, stall: 75 * time.Second,
		clocks: []time.Duration{90 * time.Second, 0, -90 * time.Second}, stranded: 1, deadline: 8 * time.Minute, producers: 4,
		relay: faults{laterEvery: 50, cutOneIn: 60, refuseOne: 200, slowest: 60 * time.Millisecond},
	}
}

// usual is the plan for the worker that people usually write: each message is handed over by itself, and no worker has a
// wrong clock or cannot reach the relay. With these it loses mail by the thousand, and there is nothing left to compare.
func (p plan) usual() plan {
	p.together, p.clocks, p.stranded = 0, nil, 0
	return p
}

// action is something that is done to one of the parts.
type action string

const (
	killWorker  action = "kill worker"
	termWorker  action = "stop worker"
	killIntake  action = "kill intake"
	termIntake  action = "stop intake"
	stallWorker action = "worker stands still"
	crashRedis  action = "kill redis"
	startRedis  action = "start redis"
	pauseRedis  action = "pause redis"
	resumeRedis action = "resume redis"
	relayLeaves action = "relay leaves"
	relayBack   action = "relay is back"
)

// event is an action and its time, from the beginning.
type event struct {
	at   time.Duration
	do   action
	slot int // of the worker, or of the intake
}

// schedule lays the plan's events out. The same seed gives the same ones.
func (p plan) schedule(seed uint64) []event {
	rng := rand.New(rand.NewPCG(seed, 2))
	within := func(from, to time.Duration) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from))) }
	var events []event
	bulks := p.bulkTimes()
	for i := range p.kills {
		at := within(time.Second, cmp.Or(p.killsEnd, p.span))
		if i%2 == 1 && len(bulks) > 0 { // while bulk mail is on its way, or there would be few such kills
			at = min(bulks[rng.IntN(len(bulks))]+within(100*time.Millisecond, time.Second), cmp.Or(p.killsEnd, p.span))
		}
		events = append(events, event{at, killWorker, rng.IntN(p.workers)})
	}
	for range p.terms {
		events = append(events, event{within(time.Second, p.span), termWorker, rng.IntN(p.workers)})
	}
	for range p.stalls {
		events = append(events, event{within(time.Second, max(p.span-p.stall, p.span/4)), stallWorker, rng.IntN(p.workers)})
	}
	for slot := range p.workers {
		if p.renew > 0 {
			events = append(events, event{p.renew, termWorker, slot})
		}
	}
	away := within(p.span/8, p.span/4)
	if p.absence > 0 {
		events = append(events, event{away, relayLeaves, 0}, event{away + p.absence, relayBack, 0})
	}
	silent := within(p.span/2, p.span*5/8)
	if p.silence > 0 {
		events = append(events, event{silent, pauseRedis, 0}, event{silent + p.silence, resumeRedis, 0})
	}
	// The crashes share what is left of the time. Each lasts up to three seconds.
	for i := range p.crashes {
		part := p.span / time.Duration(p.crashes)
		at := within(part*time.Duration(i), part*time.Duration(i+1)-4*time.Second)
		back := within(at+200*time.Millisecond, at+3*time.Second)
		if p.silence > 0 && back > silent-time.Second && at < silent+p.silence+time.Second {
			at, back = silent+p.silence+time.Second, silent+p.silence+3*time.Second
		}
		events = append(events, event{at, crashRedis, 0}, event{back, startRedis, 0})
	}
	for i := range p.intakeKills + p.intakeTerms {
		do := killIntake
		if i >= p.intakeKills {
			do = termIntake
		}
		events = append(events, event{within(time.Second, p.span), do, rng.IntN(p.intakes)})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events
}
