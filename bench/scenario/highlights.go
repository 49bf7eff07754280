package scenario

import "github.com/mailpouch/mailpouch/bench/report"

// Highlights are the few results that README shows: ratios, since these hold on other
// machines too, of which more is better. What is slower here stands beside what is faster,
// and what was not measured is left out.
func Highlights(r *report.Run) []report.Highlight {
	drain, mass, enqueue, distance := r.Scenario("drain"), r.Scenario("mass"), r.Scenario("enqueue"), r.Scenario("distance")
	idle, busy, same := r.Scenario("idle"), r.Scenario("saturated"), r.Scenario("attachment")
	best, single := bestBaseline(drain), enqueue.Contender("asynq's client, 1 goroutine")
	far := distance.Contender("4 connections, net/smtp")
	const p50, memory = "p50_ms", "redis_mb"
	var all []report.Highlight
	add := func(what, beside, key string, ours, other *report.Contender) {
		if ratio := report.Ratio(ours.Samples[key], other.Samples[key]); ratio.N > 0 {
			all = append(all, report.Highlight{What: what, Beside: beside, Ratio: report.Number(ratio.Median)})
		}
	}
	add("mails a second, 4 connections", "asynq and an SMTP client, 20 open connections", rate, drain.Contender(nameWorker), best)
	add("mails a second, 20 connections", "asynq and an SMTP client, 20 open connections", rate, drain.Contender(nameMore), best)
	add("mails a second, 4 connections, EMAIL_CHUNKING=auto", "asynq and an SMTP client, 20 open connections", rate, drain.Contender(nameChunked), best)
	add("mails a second, 4 connections", "an asynq server whose handler sends nothing", rate, drain.Contender(nameWorker), drain.Contender(nameEmpty))
	add("mails a second, bulk", "Mailpouch, one task a mail", rate, mass.Contender(nameBulk), mass.Contender(nameWorker))
	add("mails a second, bulk, EMAIL_CHUNKING=auto", "Mailpouch, one task a mail", rate, mass.Contender(nameBulkChunked), mass.Contender(nameWorker))
	add("mails a second, relay 20 ms away", "asynq and net/smtp, as many connections", rate, distance.Contender("4 connections, pipelined"), far)
	add("mails a second, relay 20 ms away, EMAIL_CHUNKING=auto", "asynq and net/smtp, as many connections", rate, distance.Contender("4 connections, chunked"), far)
	add("less memory in Redis, 1,000 mails with the same file of 1 MB", "the file in each task", memory, same.Contender(nameNetSMTP), same.Contender(nameWorker))
	add("hand-overs a second, one mail a call", "asynq's client", rate, enqueue.Contender("Enqueue, 1 goroutine"), single)
	add("hand-overs a second, 1,000 mails a call", "asynq's client", rate, enqueue.Contender("SendMessages of 1,000, 1 goroutine"), single)
	add("sooner accepted, a single mail, nothing else to do", "asynq with its defaults", p50, idle.Contender(nameBaseline), idle.Contender(nameWorker))
	add("sooner accepted, a critical mail under bulk", "asynq with its defaults", p50, busy.Contender(nameBaseline), busy.Contender(nameUnderBulk))
	return all
}

// bestBaseline is the faster one of the handlers that people usually write.
func bestBaseline(drain *report.Scenario) *report.Contender {
	best := drain.Contender(nameNetSMTP)
	if other := drain.Contender(nameGoMail); other.Stat(rate).Median > best.Stat(rate).Median {
		return other
	}
	return best
}
