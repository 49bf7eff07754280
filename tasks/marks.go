package tasks

import (
	"errors"

	"github.com/mailpouch/mailpouch/mailer"
)

// marks decides which messages of a batch are marked together, so that a message is marked no earlier than it needs to
// be and without a round trip of its own. A backend that has one message under way has the next one marked
// with the report of the last. One that has several under way, as with CHUNKING, has as many marked as were reported:
//
//	deliveries  | reported | committed | marked ahead |          |
//	              no doubt   under way
//
// How many a backend has under way is seen when it asks: each message that is not marked then takes a round trip, in
// which as many more are marked as are under way. The next batch begins with what the last one came to.
type marks struct {
	deliveries []*delivery
	under      map[int]bool // committed and not reported, by index
	reported   []bool       // or dropped: another sender may have it
	next       int          // those before were committed or reported, or marked
	most       int          // that were under way at once
}

// mostAhead is how many messages are under way and marked at most, but for a backend that asks for more before it reports any.
const mostAhead = 16

func newMarks(deliveries []*delivery) *marks {
	return &marks{deliveries: deliveries, under: map[int]bool{}, reported: make([]bool, len(deliveries)), most: 1}
}

// from returns the delivery i, which is to be committed and is not marked, and those to be marked with it.
func (m *marks) from(i int) []*delivery {
	n := max(len(m.under), 1)
	if n < mostAhead {
		n = min(n, mostAhead-len(m.under))
	}
	m.next = max(m.next, i+1)
	return append([]*delivery{m.deliveries[i]}, m.ahead(n-1)...)
}

// commit notes that a message is about to be written.
func (m *marks) commit(i int) {
	m.under[i] = true
	m.next = max(m.next, i+1)
	m.most = max(m.most, len(m.under))
}

// after notes a report and returns the deliveries to be marked with it.
func (m *marks) after(group []mailer.Report) []*delivery {
	ended := 0
	for _, r := range group {
		if m.reported[r.Index] = true; m.under[r.Index] {
			delete(m.under, r.Index)
			ended++
		}
	}
	if len(m.under) == 0 {
		ended = max(ended, 1)
	}
	return m.ahead(ended - m.waiting())
}

// drop notes that a message has left the batch.
func (m *marks) drop(i int) { m.reported[i] = true }

// waiting is how many are marked and neither under way nor reported.
func (m *marks) waiting() int {
	n := 0
	for i, d := range m.deliveries {
		if !m.reported[i] && !m.under[i] && d.marked && !d.over {
			n++
		}
	}
	return n
}

// ahead returns the next n deliveries that may be sent and are not marked.
func (m *marks) ahead(n int) []*delivery {
	var list []*delivery
	for ; len(list) < n && m.next < len(m.deliveries); m.next++ {
		if d := m.deliveries[m.next]; !m.reported[m.next] && !d.marked && !d.over {
			list = append(list, d)
		}
	}
	return list
}

// errTooSlow is why a message is not sent although Redis has answered.
var errTooSlow = errors.New("tasks: Redis takes so long to answer that its answer says nothing of now")

// errOver is the result of a message that has ended before it was sent.
var errOver = errors.New("tasks: not to be sent any more")

// unknownError is the result of a message that could not be marked. It waits until Redis is back.
type unknownError struct{ cause error }

func (e *unknownError) Error() string { return e.cause.Error() }
func (e *unknownError) Unwrap() error { return e.cause }
