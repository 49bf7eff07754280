package tasks

import (
	"sync"
	"time"
)

// handed are the tasks of one mailer that handlers have. What no sender has begun may have to go back: the relay takes
// no mail here, and another worker may reach it. All of it goes back at once, to the head of the queues and in
// the old order: asynq's retry set would put it behind everything else.
//
//	handler   waits for memory ...... hold -> goBack -+
//	handler   waits for a sender .... hold -> goBack -+-> one script, then all return
//	handler   is on the wire ........ hold -> stays          goBack, if the relay has taken nothing
//
// If a queue or a mailing is paused, the same is done with the tasks of that alone.
type handed struct {
	// unbegun takes what no handler has yet, if all is to go back, or if some is halted. giveBack gives tasks back.
	unbegun  func(halted bool) (keys []string, all bool)
	giveBack func(keys []string)

	turn sync.Mutex // of the one who gives back for all

	mu       sync.Mutex
	tasks    map[*handedTask]struct{}
	messages int           // of these tasks
	changed  chan struct{} // holds a token when one has left, or has said that it stays
}

// handedTask is a task that a handler has.
type handedTask struct {
	of       *handed
	key      string
	queue    string        // asynq's
	mailing  string        // of.mu is held, as for what follows
	halt     chan struct{} // closed when the task is to go back since it is paused
	halted   bool
	state    handedState
	messages int
}

type handedState int

const (
	handedWaits  handedState = iota // it may go back
	handedStays                     // it is on the wire, or is to run alone
	handedLeaves                    // it is to go back
	handedIsGone                    // it is back, or another one's
)

// gatherFor is how long the others are waited for that are to go back too, at most: those of which a handler is about
// to end take their time.
const gatherFor = 2 * time.Second

func newHanded(unbegun func(halted bool) ([]string, bool), giveBack func([]string)) *handed {
	return &handed{unbegun: unbegun, giveBack: giveBack, tasks: map[*handedTask]struct{}{}, changed: make(chan struct{}, 1)}
}

// begin notes that a handler has begun a task. end has to be called when it returns.
func (h *handed) begin(key, queue string) *handedTask {
	t := &handedTask{of: h, key: key, queue: queue, halt: make(chan struct{}), messages: 1}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tasks[t] = struct{}{}
	h.messages++
	return t
}

// has notes how many messages of the task are to be sent.
func (t *handedTask) has(messages int) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.of.messages += messages - t.messages
	t.messages = messages
}

func (t *handedTask) end() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	delete(t.of.tasks, t)
	t.of.messages -= t.messages
	t.of.notify()
}

// belongs notes which mailing the task belongs to.
func (t *handedTask) belongs(mailing string) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.mailing = mailing
}

// haltAll tells the handlers of paused tasks to give them back.
func (h *handed) haltAll(paused func(queue, mailing string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.tasks {
		if paused(t.queue, t.mailing) {
			t.doHalt()
		}
	}
}

// haltLike tells the handlers of tasks of the same "queue", or in it of the same "mailing", that this is paused. They then go
// back together, and so in their order.
func (t *handedTask) haltLike(what string) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	for other := range t.of.tasks {
		if other.queue == t.queue && (what == "queue" || other.mailing == t.mailing) {
			other.doHalt()
		}
	}
}

// doHalt has the handler give its task back. of.mu is held.
func (t *handedTask) doHalt() {
	if !t.halted {
		t.halted = true
		close(t.halt)
	}
}

// stays says that the task cannot go back now.
func (t *handedTask) stays() { t.become(handedStays) }

// waits says that the task may go back again.
func (t *handedTask) waits() { t.become(handedWaits) }

// goBack returns when the task is in its queue again, with all others that go back at the same time.
func (t *handedTask) goBack() {
	t.become(handedLeaves)
	h := t.of
	h.turn.Lock()
	defer h.turn.Unlock()
	if !h.isGone(t) {
		h.together()
	}
}

func (h *handed) isGone(t *handedTask) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return t.state == handedIsGone
}

func (t *handedTask) become(s handedState) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.state = s
	t.of.notify()
}

// notify wakes the one who gives back. h.mu is held.
func (h *handed) notify() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// count is how many messages the handlers have.
func (h *handed) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.messages
}

// together gives back what is to go back.
func (h *handed) together() {
	keys, all := h.unbegun(h.anyHalted())
	h.gather(all)
	h.mu.Lock()
	for t := range h.tasks {
		if t.state == handedLeaves {
			t.state = handedIsGone
			keys = append(keys, t.key)
		}
	}
	h.mu.Unlock()
	h.giveBack(keys)
}

// gather waits until all, or all that are halted, have said whether they go back.
func (h *handed) gather(all bool) {
	timer := time.NewTimer(gatherFor)
	defer timer.Stop()
	for h.undecided(all) {
		select {
		case <-h.changed:
		case <-timer.C:
			return
		}
	}
}

func (h *handed) anyHalted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.tasks {
		if t.halted {
			return true
		}
	}
	return false
}

func (h *handed) undecided(all bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.tasks {
		if t.state == handedWaits && (all || t.halted) {
			return true
		}
	}
	return false
}
