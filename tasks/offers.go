package tasks

import (
	"slices"
	"time"
)

// offers are the messages of a bulk task while they are offered to senders. They go in parts, so that all connections
// have some, and each part goes its way. Where the mailer has members, and one of them takes no mail, those of its messages
// that no sender has begun are offered to another one.
type offers struct {
	task  *taskMessage
	via   *dispatcher
	moves <-chan struct{} // closed when a member has gone away, or is back; nil without members

	parts [][]*delivery     // not offered yet
	first *way              // that the first of them goes, nil if that is not chosen yet
	ways  map[*delivery]way // of the others that are not through
}

func newOffers(task *taskMessage, via *dispatcher, deliveries []*delivery) *offers {
	o := &offers{task: task, via: via, moves: via.moves(), ways: make(map[*delivery]way, len(deliveries))}
	o.parts = chunks(deliveries, via.shared())
	return o
}

// next is the part to be offered next, and where. If there is none, or no member to take it, the channel is nil; and if it is to go
// later, due ticks then.
func (o *offers) next() (part []*delivery, to chan<- []*delivery, due <-chan time.Time) {
	if len(o.parts) == 0 {
		return nil, nil, nil
	}
	part = o.parts[0]
	if early := time.Until(part[len(part)-1].from); early > 0 {
		return nil, nil, time.After(early)
	}
	if o.first == nil {
		to, take, ok := o.via.way(len(part))
		if !ok {
			return nil, nil, nil
		}
		o.first = &to
		if take < len(part) {
			o.parts = slices.Insert(o.parts, 1, part[take:])
			o.parts[0] = part[:take:take]
			part = o.parts[0]
		}
	}
	return part, o.first.to.channel(o.task.name), nil
}

// taken notes that a sender has the part that was offered.
func (o *offers) taken() {
	for _, d := range o.parts[0] {
		o.ways[d] = *o.first
	}
	o.parts, o.first = o.parts[1:], nil
}

// through notes that a delivery has its outcome.
func (o *offers) through(d *delivery) {
	o.ways[d].leave(1)
	delete(o.ways, d)
}

// again offers a message that has come back, as a new delivery.
func (o *offers) again(d, fresh *delivery) {
	o.through(d)
	o.parts = append(o.parts, []*delivery{fresh})
}

// move offers the messages that are to go another way, as far as no sender has begun them, as new deliveries. What is being sent comes
// back if nothing of it was accepted.
func (o *offers) move(renew func(*delivery) *delivery) {
	o.moves = o.via.moves()
	if o.first != nil && o.first.isAway() {
		o.first.leave(len(o.parts[0]))
		o.first = nil
	}
	var part []*delivery
	for d, to := range o.ways {
		if to.isAway() && d.giveUp() {
			o.through(d)
			part = append(part, renew(d))
		}
	}
	if len(part) > 0 {
		slices.SortFunc(part, func(a, b *delivery) int { return a.index - b.index })
		o.parts = append(o.parts, part)
	}
}

// giveUp takes back what no sender has begun, and returns how many messages that are.
func (o *offers) giveUp() (n int) {
	for _, part := range o.parts {
		n += len(part)
	}
	if o.first != nil {
		o.first.leave(len(o.parts[0]))
	}
	o.parts, o.first, o.moves = nil, nil, nil
	for d := range o.ways {
		if d.giveUp() {
			o.through(d)
			n++
		}
	}
	return n
}

// end notes that the run is over.
func (o *offers) end() {
	for d := range o.ways {
		o.through(d)
	}
}

// chunks are deliveries as senders get them: spread over all of them, and those that may go later together with what may go at
// about the same time.
func chunks(deliveries []*delivery, connections int) (list [][]*delivery) {
	const together = 50 * time.Millisecond
	now := time.Now()
	n := 0
	for n < len(deliveries) && !deliveries[n].from.After(now) {
		n++
	}
	list = slices.AppendSeq(list, slices.Chunk(deliveries[:n], max((n+connections-1)/connections, 1)))
	for later := deliveries[n:]; len(later) > 0; later = later[n:] {
		for n = 1; n < len(later) && later[n].from.Sub(later[0].from) < together; n++ {
		}
		list = append(list, later[:n])
	}
	return list
}
