package webhook

import (
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/events"
)

// hand is the events in hand: those whose turn has come, first come first served, those that wait for it, and those that are being posted. The events
// of a message for a recipient are tried one after the other at first, so they come in their order unless one fails.
type hand struct {
	all   map[string]*item // by the ID of the event
	last  map[string]*item // of a message for a recipient, if it has not been tried yet
	due   []*item          // in the order in which they came due
	later []*item          // by when they are due, the first one first
}

// item is an event in hand.
type item struct {
	event   events.Event
	body    []byte
	tries   int
	settled bool      // delivered or given up, and to be acknowledged
	began   time.Time // the last try
	at      time.Time // not before then the next one
	then    *item     // the next event of the message for the recipient, which waits for the end of the first try
}

func newHand() hand { return hand{all: map[string]*item{}, last: map[string]*item{}} }

// about is the message and the recipient.
func (it *item) about() string { return it.event.EmailID + " " + it.event.Recipient }

// add takes a new event, whose turn is now. One that is in hand already it leaves out.
func (h *hand) add(it *item) {
	if h.all[it.event.ID] != nil {
		return
	}
	h.all[it.event.ID] = it
	before := h.last[it.about()]
	h.last[it.about()] = it
	if before != nil {
		before.then = it
	} else {
		h.due = append(h.due, it)
	}
}

// tried lets the next event go that has waited for this one.
func (h *hand) tried(it *item) {
	if h.last[it.about()] == it {
		delete(h.last, it.about())
	}
	if it.then != nil {
		h.due = append(h.due, it.then)
		it.then = nil
	}
}

// remove lets go of an item that next has returned.
func (h *hand) remove(it *item) {
	h.tried(it)
	delete(h.all, it.event.ID)
}

// wait takes back an item that next has returned, until its time has come.
func (h *hand) wait(it *item, at time.Time) {
	h.tried(it)
	it.at = at
	i, _ := slices.BinarySearchFunc(h.later, at, func(other *item, at time.Time) int {
		if other.at.After(at) {
			return 1
		}
		return -1 // behind those of the same time
	})
	h.later = slices.Insert(h.later, i, it)
}

// next takes the item whose turn it is: nil if there is none. What fails again and again waits behind what came due before.
func (h *hand) next(now time.Time) *item {
	if h.ready(now) == 0 {
		return nil
	}
	it := h.due[0]
	h.due = h.due[1:]
	return it
}

// ready is how many items there are whose turn it is.
func (h *hand) ready(now time.Time) int {
	n := 0
	for n < len(h.later) && !h.later[n].at.After(now) {
		n++
	}
	h.due = append(h.due, h.later[:n]...)
	h.later = slices.Delete(h.later, 0, n)
	return len(h.due)
}

// wakes is when the next item comes due that is not. ok is false if there is none.
func (h *hand) wakes() (at time.Time, ok bool) {
	if len(h.later) == 0 {
		return time.Time{}, false
	}
	return h.later[0].at, true
}

// hurry has it be the turn of those that wait and of which that is true.
func (h *hand) hurry(which func(*item) bool) {
	h.later = slices.DeleteFunc(h.later, func(it *item) bool {
		if !which(it) {
			return false
		}
		h.due = append(h.due, it)
		return true
	})
}

// oldest is when the oldest event happened that is not settled; zero if there is none.
func (h *hand) oldest() (at time.Time) {
	for _, it := range h.all {
		if !it.settled && (at.IsZero() || it.event.At.Before(at)) {
			at = it.event.At
		}
	}
	return at
}
