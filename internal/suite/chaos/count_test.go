package chaos

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/tasks"
)

// Each copy but the last needs an excuse of its own.
func TestCountCopies(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	later, before := noon.Add(time.Second), noon.Add(-time.Second)
	of := trouble{
		killed:  map[string]time.Time{"killed": noon, "without": noon, "late": noon.Add(time.Minute)},
		stalled: []stalled{{"stalled", noon, noon.Add(time.Minute)}},
		without: []span{{noon.Add(-10 * time.Second), noon.Add(10 * time.Second)}},
	}
	// stood is a copy over a connection of a worker that stood still for the minute after noon.
	stood := func(at time.Time, others ...time.Time) keptCopy {
		kept := append(slices.Clone(others), at)
		slices.SortFunc(kept, time.Time.Compare)
		return keptCopy{line: &line{worker: "stalled", kept: kept}, at: at, nth: 1 + slices.Index(kept, at)}
	}
	minute := noon.Add(time.Minute)
	on := func(worker string, nth, kept int, ended time.Time) keptCopy {
		return keptCopy{line: &line{worker: worker, kept: make([]time.Time, kept), ended: ended}, nth: nth}
	}
	cut := func(l keptCopy) keptCopy { l.cutOff = true; return l }
	fine := on("other", 3, 9, later)
	tests := []struct {
		name             string
		copies           []keptCopy
		twice            int
		cutOff, lastWord int
		strange          bool
		window           int // 1 if zero
	}{
		{"one", []keptCopy{fine}, 0, 0, 0, false, 0},
		{"two, and no reason why", []keptCopy{fine, fine}, 1, 0, 0, true, 0},
		{"the first reply was cut off", []keptCopy{cut(fine), fine}, 1, 1, 0, false, 0},
		{"the second reply was cut off", []keptCopy{fine, cut(fine)}, 1, 1, 0, true, 0},
		{"the last one before the kill", []keptCopy{on("killed", 9, 9, later), fine}, 1, 0, 1, false, 0},
		{"the last one, and the connection still open", []keptCopy{on("killed", 9, 9, time.Time{}), fine}, 1, 0, 1, false, 0},
		{"the last but one before the kill", []keptCopy{on("killed", 8, 9, later), fine}, 1, 0, 0, true, 0},
		{"the last but one, where two may be in doubt", []keptCopy{on("killed", 8, 9, later), fine}, 1, 0, 1, false, 2},
		{"the last but two, where two may be in doubt", []keptCopy{on("killed", 7, 9, later), fine}, 1, 0, 0, true, 2},
		{"over a connection that ended before the kill", []keptCopy{on("killed", 9, 9, noon.Add(-11*time.Second)), fine}, 1, 0, 0, true, 0},
		{"over one that ended before the kill, and after Redis went away", []keptCopy{on("without", 9, 9, noon.Add(-8*time.Second)), fine}, 1, 0, 1, false, 0},
		{"the last but one over that", []keptCopy{on("without", 8, 9, noon.Add(-8*time.Second)), fine}, 1, 0, 0, true, 0},
		{"over one that ended before Redis went away", []keptCopy{on("without", 9, 9, noon.Add(-11*time.Second)), fine}, 1, 0, 0, true, 0},
		{"killed when Redis was back", []keptCopy{on("late", 9, 9, noon.Add(-8*time.Second)), fine}, 1, 0, 0, true, 0},
		{"one excuse for three copies", []keptCopy{cut(fine), fine, fine}, 2, 1, 0, true, 0},
		{"on the wire when its worker stood still", []keptCopy{stood(later, minute.Add(1)), fine}, 1, 0, 0, false, 0},
		{"the last but one before that", []keptCopy{stood(before.Add(-1), before), fine}, 1, 0, 0, true, 0},
		{"about to be sent when its worker stood still", []keptCopy{fine, stood(minute.Add(1), before)}, 1, 0, 0, false, 0},
		{"the second one after that", []keptCopy{fine, stood(minute.Add(2), minute.Add(1))}, 1, 0, 0, true, 0},
		{"about to be sent, after two", []keptCopy{fine, fine, stood(minute.Add(1))}, 2, 0, 0, true, 0},
		{"two for three", []keptCopy{cut(fine), on("killed", 9, 9, later), fine}, 2, 1, 1, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &report{stack: &stack{window: cmp.Or(tt.window, 1)}}
			r.countCopies(1, tt.copies, of)
			if r.twice != tt.twice || r.cutOff != tt.cutOff || r.lastWord != tt.lastWord || len(r.strange) > 0 != tt.strange {
				t.Errorf("%d too many, %d cut off, %d last, strange %v", r.twice, r.cutOff, r.lastWord, r.strange)
			}
		})
	}
}

// Every message of a plan is handed over once, in one way.
func TestPlan_bulks(t *testing.T) {
	t.Parallel()
	for _, p := range []plan{full(), short(), full().usual(), {mails: 700, together: 600, bulkSize: 250, span: time.Minute}} {
		var numbers []int
		for _, l := range append(p.singles(), p.bulks()...) {
			if l.at < 0 || l.at >= p.span {
				t.Errorf("handed over at %v of %v", l.at, p.span)
			}
			if len(l.numbers) > max(p.bulkSize, 1) {
				t.Errorf("%d messages at once, at most %d are expected", len(l.numbers), p.bulkSize)
			}
			numbers = append(numbers, l.numbers...)
		}
		slices.Sort(numbers)
		if !slices.Equal(numbers, sequence(0, p.mails)) {
			t.Errorf("%d numbers for %d mails", len(numbers), p.mails)
		}
	}
}

// What is wrong with what events tell is found.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	const number = 28 // one of its two recipients is refused
	taken, refused := recipients(number)[0], recipients(number)[1]
	good := func() (told []tasks.Event) {
		for _, e := range []struct {
			to   string
			kind tasks.EventType
		}{{taken, tasks.EventQueued}, {refused, tasks.EventQueued}, {taken, tasks.EventSent}, {refused, tasks.EventFailed}} {
			told = append(told, tasks.Event{ID: e.to + string(e.kind), Type: e.kind, MessageID: message(number).MessageID, EmailID: "a", Recipient: e.to})
		}
		return told
	}
	tests := []struct {
		name   string
		change func(told []tasks.Event) []tasks.Event
		denied bool
		wrong  bool
	}{
		{"as it is", func(told []tasks.Event) []tasks.Event { return told }, false, false},
		{"with a delay", func(told []tasks.Event) []tasks.Event {
			delay := told[0]
			delay.Type, delay.ID = tasks.EventDelayed, "delay"
			return append(told, delay)
		}, false, false},
		{"none", func([]tasks.Event) []tasks.Event { return nil }, false, true},
		{"never queued", func(told []tasks.Event) []tasks.Event { return told[1:] }, false, true},
		{"no end", func(told []tasks.Event) []tasks.Event { return told[:3] }, false, true},
		{"two ends", func(told []tasks.Event) []tasks.Event {
			end := told[2]
			end.Type, end.ID = tasks.EventFailed, "end"
			return append(told, end)
		}, false, true},
		{"an end that is not so", func(told []tasks.Event) []tasks.Event { told[3].Type = tasks.EventSent; return told }, false, true},
		{"written twice", func(told []tasks.Event) []tasks.Event { return append(told, told[2]) }, false, true},
		{"of somebody else", func(told []tasks.Event) []tasks.Event {
			other := told[0]
			other.Recipient, other.ID = "u7@example.com", "other"
			return append(told, other)
		}, false, true},
		{"of another email", func(told []tasks.Event) []tasks.Event { told[2].EmailID = "b"; return told }, false, true},
		{"it was said not to be queued", func(told []tasks.Event) []tasks.Event { return told }, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLoad(nil, plan{mails: 100})
			l.tasks[number] = "a"
			copies := map[int][]keptCopy{number: {{line: new(line), to: []string{taken}}}}
			by, twice := stories(tt.change(good()))
			wrong := append(verdicts(l, map[int]bool{number: tt.denied}, copies, nil, by), twice...)
			if len(wrong) > 0 != tt.wrong {
				t.Errorf("found wrong: %v", wrong)
			}
		})
	}
}
