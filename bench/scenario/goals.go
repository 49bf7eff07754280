package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/report"
)

// Goals compares the results with what is wanted.
func Goals(r *report.Run) []report.Goal {
	g := goals{run: r}
	g.oneTask()
	g.bulkMail()
	g.handingOver()
	g.latency()
	g.memory()
	return g.all
}

type goals struct {
	run *report.Run
	all []report.Goal
}

// commandsBefore is how many commands a second Redis got from an idle worker, those inside of scripts too, before hints
// woke it.
const commandsBefore = 200

func (g *goals) oneTask() {
	ratio := func(ours, other string) measured {
		return g.twice(drainName, func(s *report.Scenario) report.Stat { return ratioOf(rate, s.Contender(ours), s.Contender(other)) })
	}
	cost := func(key string) measured {
		return g.twice(drainName, func(s *report.Scenario) report.Stat { return s.Contender(single).Stat(key) })
	}
	g.atLeast("rate", "One task a mail, 20 connections: the rate of asynq + net/smtp over as many", 1.7, "times", ratio(single, netSMTP))
	g.atLeast("rate-empty", "One task a mail, 20 connections: the rate of an asynq server whose handler sends nothing", 1, "times", ratio(single, empty))
	g.atLeast("rate4", "One task a mail, 4 connections: the rate of asynq + net/smtp over 20", 1.5, "times", ratio(single4, netSMTP))
	g.atMost("worker-time", "One task a mail, 20 connections: processor time of the worker", 85, "us a mail", cost(worker))
	g.atMost("redis-time", "One task a mail, 20 connections: processor time of Redis", 32, "us a mail", cost(server))
	g.atLeast("distance", "One task a mail, a mail server at 20 ms, 20 connections: of one mail a round trip on each", 95, "%", g.once(distanceName, single, share))
	g.atLeast("growth", "One task a mail, a mail server at 20 ms, connections that grow to 20: of one mail a round trip on each", 95, "%", g.once(growthName, growing, share))
}

func (g *goals) bulkMail() {
	ofClient := func(ours, alone string) measured {
		return g.twice(bulkName, func(s *report.Scenario) report.Stat {
			return percent(ratioOf(rate, s.Contender(ours), s.Contender(alone)))
		})
	}
	g.atLeast("bulk", "Bulk mail, 20 connections: of what our SMTP client reaches without a queue", 85, "%", ofClient(bulk, client))
	g.atLeast("bulk4", "Bulk mail, 4 connections: of what our SMTP client reaches without a queue", 85, "%", ofClient(bulk4, client4))
}

func (g *goals) memory() {
	g.atMost("bulk-bytes", "Bulk mail: memory in Redis", 300, "bytes a mail", g.twice(bulkName, func(s *report.Scenario) report.Stat {
		return s.Contender(bulk).Stat(waiting)
	}))
	newsletters := g.run.Scenario(waitingName)
	g.atMost("html-bytes", "One task a mail, HTML of 20 kB: memory in Redis, of the usual payload's", 100.0/3, "%",
		measured{percent(ratioOf(waiting, newsletters.Contender(html), newsletters.Contender(usualHTML)))})
	g.atMost("memory", "Memory of a worker at full speed, mails of 2 kB", 120, "MB", g.twice(drainName, func(s *report.Scenario) report.Stat {
		return s.Contender(single).Stat(memory)
	}))
	g.atMost("memory-big", "Memory of a worker, mails of 10 MB", 600, "MB", g.once(bigName, single4, memory))
}

func (g *goals) handingOver() {
	g.atLeast("command-one", "enqueue bulk, one task a mail: the rate of asynq's client with 32 goroutines", 1, "times",
		g.twice(enqueueName, func(s *report.Scenario) report.Stat {
			return ratioOf(rate, s.Contender(commandOne), s.Contender(asynqProgram))
		}))
	g.atLeast("command", "enqueue bulk, many mails a task", 120_000, "mails/s",
		g.twice(enqueueName, func(s *report.Scenario) report.Stat { return s.Contender(command).Stat(rate) }))
	handedIn := func(clients int) string {
		return fmt.Sprintf("Handing in over SMTP, %d connections, appendfsync everysec", clients)
	}
	g.atLeast("intake", handedIn(manyClients), 8000, "mails/s", g.once(intakeName, everySec, rate))
	g.atLeast("intake20", handedIn(fewClients), 8000, "mails/s", g.once(intakeName, everySec20, rate))
}

func (g *goals) latency() {
	g.atMost("idle", "A single mail, the worker idle: half are accepted after", 5, "ms", g.once(idleName, single4, p50))
	g.atMost("idle99", "A single mail, the worker idle: 99 % are accepted after", 15, "ms", g.once(idleName, single4, p99))
	g.atMost("idle-commands", "Commands that Redis gets from an idle worker, no more than before it was woken by hints", commandsBefore, "a second",
		g.once(idleName, single4, commands))
	g.atMost("critical", "A critical mail under bulk mail, one task a mail: half are accepted after", 1.5, "ms", g.once(saturatedName, single4, p50))
}

// measured is a value with Redis's append-only file, and one without it where that was
// measured too.
type measured []report.Stat

// twice is a value of a scenario and of its twin whose Redis has no file.
func (g *goals) twice(name string, of func(*report.Scenario) report.Stat) measured {
	return measured{of(g.run.Scenario(name)), of(g.run.Scenario(name + memoryOnly))}
}

// once is a value of a scenario that has no twin.
func (g *goals) once(name, contender, key string) measured {
	return measured{g.run.Scenario(name).Contender(contender).Stat(key)}
}

func (g *goals) atLeast(key, text string, bound float64, unit string, m measured) {
	g.add(key, text, "at least "+report.Number(bound)+" "+unit, m, func(v float64) bool { return v >= bound })
}

func (g *goals) atMost(key, text string, bound float64, unit string, m measured) {
	g.add(key, text, "at most "+report.Number(bound)+" "+unit, m, func(v float64) bool { return v <= bound })
}

// add adds a goal, which is met if it is with and without the file.
func (g *goals) add(key, text, wanted string, m measured, met func(float64) bool) {
	goal := report.Goal{Key: key, Text: text, Wanted: wanted, Met: true, Missing: true}
	for _, stat := range m {
		goal.Measured = append(goal.Measured, fmt.Sprint(stat))
		if stat.N > 0 {
			goal.Missing = false
			goal.Met = goal.Met && met(stat.Median)
		}
	}
	goal.Met = goal.Met && !goal.Missing
	g.all = append(g.all, goal)
}

func ratioOf(key string, ours, other *report.Contender) report.Stat {
	return report.Ratio(ours.Samples[key], other.Samples[key])
}

func percent(s report.Stat) report.Stat {
	return report.Stat{Median: 100 * s.Median, Min: 100 * s.Min, Max: 100 * s.Max, N: s.N}
}
