package chaos

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// report is what came of the messages of one kind in a run.
type report struct {
	name     string
	stack    *stack
	finished bool // nothing was left to do before the time was up
	took     time.Duration
	happened map[action]int // what was really done to the parts

	accepted   int // messages that Redis has accepted
	repeated   int // hand-overs that had to be repeated
	unanswered int // messages whose hand-over had no answer, and was not repeated
	unasked    int // of which the relay has kept this many
	carriers   int // tasks as which the accepted messages were queued
	delivered  int // different messages, accepted by Redis, that the relay has kept
	waiting    int // neither delivered nor dead, and still in the queue
	lost       []int
	twice      int // copies beyond the first of each message
	altered    []int
	strange    []string // messages with a copy after one that nothing excuses

	cutOff   int // copies whose final reply was cut off
	lastWord int // copies that were the last on a connection open when its worker was killed
	onWire   int // copies that were on the wire of a worker that stood still

	dead      int   // messages that are dead letters
	deadWrong []int // of them those that the relay did not refuse for good
	undead    []int // refused for good, and no dead letter
	tries     int   // spent beyond each message's first

	endings map[string]int // of workers, but the expected ones
	crashed int
}

// newReports counts. Messages handed over singly and those in bulk are counted apart.
func newReports(t *testing.T, l *load, relay *relay, fleet *fleet, inspector *asynq.Inspector) []*report {
	t.Helper()
	q := readQueues(t, inspector)
	q.tries(t, l, fleet.logs)
	single := newReport(l, relay, fleet, q, false)
	single.name, single.repeated = l.stack.name, l.again
	if l.plan.together == 0 {
		return []*report{single}
	}
	single.name += ", singly"
	mass := newReport(l, relay, fleet, q, true)
	mass.name = fmt.Sprintf("%s, %d at once", l.stack.name, l.plan.bulkSize)
	mass.unanswered = len(l.unanswered)
	return []*report{single, mass}
}

func newReport(l *load, relay *relay, fleet *fleet, q *queues, inBulk bool) *report {
	r := &report{stack: l.stack, crashed: fleet.crashed, endings: fleet.ended("exit status 0", sigkilled, "signal: terminated")}
	books, carriers := relay.books(), map[string]bool{}
	for number, task := range l.accepted() {
		if l.inBulk(number) != inBulk {
			continue
		}
		r.accepted++
		carriers[carrier(task)] = true
		refused := relay.faults.refuses(number)
		switch {
		case len(books[number]) > 0:
			r.delivered++
		case q.dead[number]:
		case q.waits(task):
			r.waiting++
		case refused:
			r.undead = append(r.undead, number)
		default:
			r.lost = append(r.lost, number)
		}
	}
	r.carriers = len(carriers)
	for number := range q.dead {
		if l.inBulk(number) != inBulk {
			continue
		}
		r.dead++
		if !relay.faults.refuses(number) && !partly(relay.faults, number) {
			r.deadWrong = append(r.deadWrong, number)
		}
	}
	for number, n := range q.spent {
		if l.inBulk(number) == inBulk {
			r.tries += n
		}
	}
	trouble := fleet.trouble()
	for number, copies := range books {
		if l.inBulk(number) != inBulk {
			continue
		}
		if l.unanswered[number] {
			r.unasked++
		}
		for _, to := range recipientsOf(copies) {
			own := slices.DeleteFunc(slices.Clone(copies), func(c keptCopy) bool { return !slices.Contains(c.to, to) })
			split := min(relay.splits(to, trouble.killed), len(own)-1)
			r.lastWord += split
			r.twice += split
			r.countCopies(number, own[split:], trouble)
		}
	}
	slices.Sort(r.lost)
	return r
}

// recipientsOf are all that copies of a message went to.
func recipientsOf(copies []keptCopy) (all []string) {
	for _, c := range copies {
		for _, to := range c.to {
			if !slices.Contains(all, to) {
				all = append(all, to)
			}
		}
	}
	return all
}

// carrier is the task as which a message was queued.
func carrier(task string) string {
	id, _, _ := strings.Cut(task, ".")
	return id
}

// countCopies looks at all copies of one message. Each but the last must be excused: its
// sender cannot have known of the relay's reply.
func (r *report) countCopies(number int, copies []keptCopy, of trouble) {
	r.twice += len(copies) - 1
	want := copies[0].sum
	if r.stack.sum != nil {
		want = r.stack.sum(number)
	}
	// A worker that stood still right before it wrote a message writes it, however long that was and whoever has sent it meanwhile.
	own := slices.DeleteFunc(slices.Clone(copies), func(c keptCopy) bool { return of.resumed(c, r.stack.window) })
	if len(own) == 0 {
		own = copies[:1]
	}
	r.onWire += len(copies) - len(own)
	strange := false
	for i, c := range own {
		switch {
		case c.cutOff:
			r.cutOff++
		case of.unsaid(c, r.stack.window):
			r.lastWord++
		case of.stopped(c, r.stack.window):
			r.onWire++
		case i < len(own)-1:
			strange = true
		}
	}
	if slices.ContainsFunc(copies, func(c keptCopy) bool { return c.sum != want }) {
		r.altered = append(r.altered, number)
	}
	if strange {
		r.strange = append(r.strange, fmt.Sprintf("message %d: %s", number, describe(copies)))
	}
}

func describe(copies []keptCopy) string {
	var parts []string
	for _, c := range copies {
		parts = append(parts, fmt.Sprintf("%s by %s (no. %d of %d over its connection, which was open until %s; cut off %t, unread %t)",
			c.at.Format("15:04:05.000"), c.line.worker, c.nth, len(c.line.kept), c.line.ended.Format("15:04:05.000"), c.cutOff, c.unread))
	}
	return strings.Join(parts, ", ")
}

// allowed is how many copies too many the promise allows.
func (r *report) allowed() int { return r.cutOff + r.lastWord + r.onWire }

// check fails the test if the promise was broken.
func check(t *testing.T, reports []*report) {
	t.Helper()
	for _, r := range reports {
		r.check(t)
	}
}

func (r *report) check(t *testing.T) {
	t.Helper()
	if !r.finished {
		t.Errorf("%s: %d messages were still waiting when the time was up", r.name, r.waiting)
	}
	if len(r.lost) > 0 {
		t.Errorf("%s: lost: %v", r.name, r.lost[:min(20, len(r.lost))])
	}
	if r.twice > r.allowed() {
		t.Errorf("%s: %d copies too many, at most %d may be", r.name, r.twice, r.allowed())
	}
	for _, s := range r.strange[:min(20, len(r.strange))] {
		t.Errorf("%s: delivered again without a cause: %s", r.name, s)
	}
	if len(r.altered) > 0 {
		t.Errorf("%s: bytes changed of messages %v", r.name, r.altered)
	}
	if len(r.deadWrong) > 0 {
		t.Errorf("%s: dead letters that the relay had not refused for good: %v", r.name, r.deadWrong)
	}
	if len(r.undead) > 0 {
		t.Errorf("%s: refused for good, and no dead letter: %v", r.name, r.undead)
	}
	if len(r.endings) > 0 || r.crashed > 0 {
		t.Logf("%s: workers that ended otherwise: %v, by themselves: %d", r.name, r.endings, r.crashed)
	}
}

// table is the reports side by side, in Markdown.
func table(p plan, seed uint64, reports ...*report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d mails over %v, %d workers, Redis silent for %v, relay away for %v,\n", p.mails, p.span, p.workers, p.silence, p.absence)
	fmt.Fprintf(&b, "421 for every %dth transaction, one connection in %d lost; seed %d\n\n", p.relay.laterEvery, p.relay.cutOneIn, seed)
	row := func(label string, value func(*report) string) {
		fmt.Fprintf(&b, "| %-56s |", label)
		for _, r := range reports {
			fmt.Fprintf(&b, " %23s |", value(r))
		}
		b.WriteString("\n")
	}
	row("", func(r *report) string { return r.name })
	b.WriteString("|" + strings.Repeat("-", 58) + "|" + strings.Repeat(strings.Repeat("-", 24)+":|", len(reports)) + "\n")
	count := func(label string, value func(*report) int) {
		row(label, func(r *report) string { return fmt.Sprint(value(r)) })
	}
	count("accepted by Redis", func(r *report) int { return r.accepted })
	count("  as so many tasks", func(r *report) int { return r.carriers })
	count("delivered", func(r *report) int { return r.delivered })
	count("dead letters", func(r *report) int { return r.dead })
	count("dead letters that the relay had not refused for good", func(r *report) int { return len(r.deadWrong) })
	count("still waiting when the time was up", func(r *report) int { return r.waiting })
	count("lost", func(r *report) int { return len(r.lost) })
	count("delivered again (copies too many)", func(r *report) int { return r.twice })
	count("  at most: final replies cut off", func(r *report) int { return r.cutOff })
	count("         + last ones on connections of killed workers", func(r *report) int { return r.lastWord })
	count("         + on the wire of workers that stood still", func(r *report) int { return r.onWire })
	count("  messages with a copy too many that has no such cause", func(r *report) int { return len(r.strange) })
	count("messages whose bytes changed between copies", func(r *report) int { return len(r.altered) })
	count("tries spent beyond the first", func(r *report) int { return r.tries })
	count("hand-overs repeated", func(r *report) int { return r.repeated })
	count("messages handed over without an answer, not repeated", func(r *report) int { return r.unanswered })
	count("  of which were delivered all the same", func(r *report) int { return r.unasked })
	for _, a := range []action{killWorker, termWorker, stallWorker, crashRedis, pauseRedis, relayLeaves} {
		count("what happened: "+string(a), func(r *report) int { return r.happened[a] })
	}
	row("until nothing was left to do", func(r *report) string {
		if !r.finished {
			return "longer than " + r.took.Round(time.Second).String()
		}
		return r.took.Round(time.Second).String()
	})
	return b.String()
}
