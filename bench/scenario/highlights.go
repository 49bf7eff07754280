package scenario

import "github.com/mailpouch/mailpouch/bench/report"

// Highlights are the few results that README shows: ratios, since these hold on other
// machines too, of which more is better. What is slower here stands beside what is faster,
// and what was not measured is left out. Of what was measured with Redis's append-only file
// and without it, into smtp-sink and into our own mail server, it is the least ratio.
func Highlights(r *report.Run) []report.Highlight {
	h := highlights{run: r}
	drains := []string{drainName, drainName + memoryOnly, chunkingName}
	enqueues := []string{enqueueName, enqueueName + memoryOnly}
	sender, asynqs := "the fastest of asynq + net/smtp, asynq + go-mail and BullMQ + Nodemailer, 20 open connections", "asynq's client, as many goroutines"
	h.add("mails a second, 20 connections", sender, drains, single, netSMTP, goMail, bullMQ)
	h.add("mails a second, 4 connections", sender, drains, single4, netSMTP, goMail, bullMQ)
	h.add("mails a second, 20 connections", "an asynq server whose handler sends nothing", drains, single, empty)
	h.add("mails a second, bulk, 20 connections", "our SMTP client alone, without a queue", []string{bulkName, bulkName + memoryOnly}, bulk, client)
	h.add("mails a second, 4 connections, EMAIL_CHUNKING=auto", "Mailpouch without it", drains, chunked4, single4)
	h.add("mails a second, relay 20 ms away, 20 connections", "asynq + net/smtp or BullMQ + Nodemailer, as many", []string{distanceName}, single, netSMTP, bullMQ)
	h.less("less memory in Redis, 1,000 mails with the same file of 1 MB", "the file in each task", filled, sameName, single4, netSMTP)
	h.add("hand-overs a second, one mail a call", asynqs, enqueues, one, asynqOne)
	h.add("hand-overs a second, 1,000 mails a call", asynqs, enqueues, batches, asynqOne)
	h.add("hand-overs a second, enqueue bulk, one task a mail", "asynq's client, 32 goroutines", enqueues, commandOne, asynqProgram)
	h.less("sooner accepted, a single mail, nothing else to do", "asynq + net/smtp, asynq's defaults", p50, idleName, single4, netSMTP)
	h.less("sooner accepted, a critical mail under bulk", "asynq + net/smtp, 20 open connections", p50, saturatedName, single4, netSMTP)
	return h.all
}

type highlights struct {
	run *report.Run
	all []report.Highlight
}

// add adds the least ratio of our rate to that of the fastest of the others, of those in the scenarios.
func (h *highlights) add(what, beside string, scenarios []string, ours string, others ...string) {
	var least report.Stat
	for _, name := range scenarios {
		s := h.run.Scenario(name)
		if ratio := ratioOf(rate, s.Contender(ours), fastest(s, others)); ratio.N > 0 && (least.N == 0 || ratio.Median < least.Median) {
			least = ratio
		}
	}
	h.show(what, beside, least)
}

// less adds a ratio of what it is better to have less of.
func (h *highlights) less(what, beside, key, scenario, ours, other string) {
	s := h.run.Scenario(scenario)
	h.show(what, beside, ratioOf(key, s.Contender(other), s.Contender(ours)))
}

func (h *highlights) show(what, beside string, ratio report.Stat) {
	if ratio.N > 0 {
		h.all = append(h.all, report.Highlight{What: what, Beside: beside, Ratio: report.Number(ratio.Median)})
	}
}

// fastest is the contender with the greatest rate.
func fastest(s *report.Scenario, contenders []string) *report.Contender {
	first := s.Contender(contenders[0])
	for _, other := range contenders[1:] {
		if c := s.Contender(other); c.Stat(rate).N > 0 && (first.Stat(rate).N == 0 || c.Stat(rate).Median > first.Stat(rate).Median) {
			first = c
		}
	}
	return first
}
