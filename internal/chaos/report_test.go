package chaos

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// report is what came of a run.
type report struct {
	stack    *stack
	finished bool // nothing was left to do before the time was up
	took     time.Duration

	accepted  int // messages that Redis has accepted
	repeated  int // hand-overs that had to be repeated
	delivered int // different messages that the relay has kept
	waiting   int // neither delivered nor dead, and still in the queue
	lost      []int
	twice     int // copies beyond the first of each message
	altered   []int
	strange   []string // copies beyond the first without a cause that explains them

	cutOff    int // messages kept whose final reply was cut off
	openKills int // connections open of workers that were killed

	dead      int   // messages that are dead letters
	deadWrong []int // of them those that the relay did not refuse for good
	undead    []int // refused for good, and no dead letter
	tries     int   // that tasks spent beyond their first

	killed, termed, crashed int
	endings                 map[string]int // of workers, but the expected ones
}

func newReport(t *testing.T, s *stack, l *load, relay *relay, fleet *fleet, inspector *asynq.Inspector) *report {
	t.Helper()
	accepted, books := l.accepted(), relay.books()
	tasks, dead := tasksOf(t, inspector)
	r := &report{
		stack: s, accepted: len(accepted), repeated: l.again, delivered: len(books), dead: len(dead),
		killed: len(fleet.killed), termed: fleet.termed, crashed: fleet.crashed,
		endings: fleet.ended("exit status 0", "signal: killed", "signal: terminated"),
	}
	since := map[string]time.Time{}
	for _, k := range fleet.killed {
		r.openKills += relay.openSince(k.name, k.at)
		since[k.name] = k.at
	}
	for number, task := range accepted {
		refused := relay.faults.refuses(number)
		switch {
		case len(books[number]) > 0:
		case dead[task] && !refused:
			r.deadWrong = append(r.deadWrong, number)
		case dead[task]:
		case tasks[task] != nil && tasks[task].State != asynq.TaskStateCompleted:
			r.waiting++
		case refused:
			r.undead = append(r.undead, number)
		default:
			r.lost = append(r.lost, number)
		}
	}
	for _, task := range tasks {
		r.tries += task.Retried
	}
	for number, copies := range books {
		r.countCopies(number, copies, since)
	}
	slices.Sort(r.lost)
	return r
}

// countCopies looks at all copies of one message.
func (r *report) countCopies(number int, copies []letter, killed map[string]time.Time) {
	r.twice += len(copies) - 1
	explained := 0
	want := copies[0].sum
	if r.stack.sum != nil {
		want = r.stack.sum(number)
	}
	for _, c := range copies {
		at, wasKilled := killed[c.line.worker]
		if c.cutOff {
			r.cutOff++
		}
		if c.cutOff || wasKilled && (c.line.ended.IsZero() || c.line.ended.After(at)) {
			explained++
		}
		if c.sum != want && !slices.Contains(r.altered, number) {
			r.altered = append(r.altered, number)
		}
	}
	if len(copies)-1 > explained {
		r.strange = append(r.strange, fmt.Sprintf("message %d: %s", number, describe(copies)))
	}
}

func describe(copies []letter) string {
	var parts []string
	for _, c := range copies {
		parts = append(parts, fmt.Sprintf("%s by %s (connection until %s, cut off %t, unread %t)",
			c.at.Format("15:04:05.000"), c.line.worker, c.line.ended.Format("15:04:05.000"), c.cutOff, c.unread))
	}
	return strings.Join(parts, ", ")
}

// tasksOf returns all tasks by their IDs, and which are dead letters.
func tasksOf(t *testing.T, inspector *asynq.Inspector) (tasks map[string]*asynq.TaskInfo, dead map[string]bool) {
	t.Helper()
	tasks, dead = map[string]*asynq.TaskInfo{}, map[string]bool{}
	queues, err := inspector.Queues()
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range queues {
		for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
			inspector.ListPendingTasks, inspector.ListActiveTasks, inspector.ListScheduledTasks,
			inspector.ListRetryTasks, inspector.ListCompletedTasks, inspector.ListArchivedTasks,
		} {
			for page := 1; ; page++ {
				found, err := list(queue, asynq.Page(page), asynq.PageSize(1000))
				if err != nil {
					t.Fatal(err)
				}
				for _, task := range found {
					tasks[task.ID] = task
					if task.State == asynq.TaskStateArchived {
						dead[task.ID] = true
					}
				}
				if len(found) < 1000 {
					break
				}
			}
		}
	}
	return tasks, dead
}

// allowed is how many copies too many the promise allows.
func (r *report) allowed() int { return r.cutOff + r.openKills }

// check fails the test if the promise was broken.
func (r *report) check(t *testing.T) {
	t.Helper()
	if !r.finished {
		t.Errorf("%d messages were still waiting when the time was up", r.waiting)
	}
	if len(r.lost) > 0 {
		t.Errorf("lost: %v", r.lost[:min(20, len(r.lost))])
	}
	if r.twice > r.allowed() {
		t.Errorf("%d copies too many, at most %d may be", r.twice, r.allowed())
	}
	for _, s := range r.strange[:min(20, len(r.strange))] {
		t.Errorf("delivered again without a cause: %s", s)
	}
	if len(r.altered) > 0 {
		t.Errorf("octets changed of messages %v", r.altered)
	}
	if len(r.deadWrong) > 0 {
		t.Errorf("dead letters that the relay had not refused for good: %v", r.deadWrong)
	}
	if len(r.undead) > 0 {
		t.Errorf("refused for good, and no dead letter: %v", r.undead)
	}
	if len(r.endings) > 0 || r.crashed > 0 {
		t.Logf("workers that ended otherwise: %v, by themselves: %d", r.endings, r.crashed)
	}
}

// table is the reports side by side, in Markdown.
func table(p plan, seed uint64, reports ...*report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d mails over %v, %d workers, %d SIGKILLs, %d SIGTERMs, Redis killed %d times and silent for %v,\n",
		p.mails, p.span, p.workers, p.kills, p.terms, p.crashes, p.silence)
	fmt.Fprintf(&b, "relay away for %v, 421 for every %dth, one connection in %d lost; seed %d\n\n", p.absence, p.relay.laterEvery, p.relay.cutOneIn, seed)
	row := func(label string, value func(*report) string) {
		fmt.Fprintf(&b, "| %-56s |", label)
		for _, r := range reports {
			fmt.Fprintf(&b, " %20s |", value(r))
		}
		b.WriteString("\n")
	}
	row("", func(r *report) string { return r.stack.name })
	b.WriteString("|" + strings.Repeat("-", 58) + "|" + strings.Repeat(strings.Repeat("-", 21)+":|", len(reports)) + "\n")
	count := func(label string, value func(*report) int) {
		row(label, func(r *report) string { return fmt.Sprint(value(r)) })
	}
	count("accepted by Redis", func(r *report) int { return r.accepted })
	count("delivered", func(r *report) int { return r.delivered })
	count("dead letters", func(r *report) int { return r.dead })
	count("dead letters that the relay had not refused for good", func(r *report) int { return len(r.deadWrong) })
	count("still waiting when the time was up", func(r *report) int { return r.waiting })
	count("lost", func(r *report) int { return len(r.lost) })
	count("delivered again (copies too many)", func(r *report) int { return r.twice })
	count("  at most: final replies cut off", func(r *report) int { return r.cutOff })
	count("         + open connections of workers killed", func(r *report) int { return r.openKills })
	count("  without such a cause", func(r *report) int { return len(r.strange) })
	count("messages whose octets changed between copies", func(r *report) int { return len(r.altered) })
	count("tries spent beyond the first", func(r *report) int { return r.tries })
	count("hand-overs repeated", func(r *report) int { return r.repeated })
	row("until nothing was left to do", func(r *report) string {
		if !r.finished {
			return "longer than " + r.took.Round(time.Second).String()
		}
		return r.took.Round(time.Second).String()
	})
	return b.String()
}
