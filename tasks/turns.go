package tasks

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/mailer"
)

// turns are those of the messages of a batch. A message whose turn has come goes on for as long as it gets on, which is
// for its backend to see; all others can go elsewhere. When the batch's time is up they do, untried. Before that
// they do when one message takes long and other senders have nothing to do.
//
//	deliveries  | reported | begun    | waiting for their turn |
//	              through    the wire   may be withdrawn
//
// What the backend asks and reports comes with the lock held, and so does what withdraws: the ledger knows no locks.
type turns struct {
	mu         sync.Mutex
	deliveries []*delivery
	marks      *marks
	begun      []bool
	withdrawn  []bool
	reported   []bool
	start      time.Time
	last       time.Time // when a message has begun, or was reported
	until      time.Time // from when on none begins
}

// errNoTurn is the result of a message whose turn has not come in its batch: nothing was tried.
var errNoTurn = errors.New("tasks: its turn has not come")

func newTurns(deliveries []*delivery, m *marks, limit time.Duration) *turns {
	now, n := time.Now(), len(deliveries)
	return &turns{
		deliveries: deliveries, marks: m, begun: make([]bool, n), withdrawn: make([]bool, n), reported: make([]bool, n),
		start: now, last: now, until: now.Add(limit),
	}
}

// begin is asked when it is the turn of a message. If that is to be sent, admit says so too.
func (t *turns) begin(i int, admit func(d *delivery) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.withdrawn[i] || !now.Before(t.until) {
		return errNoTurn
	}
	if err := admit(t.deliveries[i]); err != nil {
		return err
	}
	t.begun[i], t.last = true, now
	return nil
}

// commit calls ask with the lock held.
func (t *turns) commit(ask func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return ask()
}

// report gives judge, with the lock held, what of a group this batch still has, and each message once, whatever the backend
// does. Those whose turn has not come are apart.
func (t *turns) report(group []mailer.Report, judge func(tried []mailer.Report, untried []*delivery)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = time.Now()
	group = slices.DeleteFunc(group, func(r mailer.Report) bool {
		again := t.reported[r.Index]
		t.reported[r.Index] = true
		return again
	})
	if len(group) == 0 {
		return
	}
	if !slices.ContainsFunc(group, func(r mailer.Report) bool { return t.withdrawn[r.Index] || errors.Is(r.Err, errNoTurn) }) {
		judge(group, nil)
		return
	}
	var untried []*delivery
	tried := make([]mailer.Report, 0, len(group))
	for _, r := range group {
		switch {
		case t.withdrawn[r.Index]: // others have it by now
		case errors.Is(r.Err, errNoTurn):
			t.withdrawn[r.Index] = true
			untried = append(untried, t.deliveries[r.Index])
		default:
			tried = append(tried, r)
		}
	}
	judge(tried, untried)
}

// unreported are the results of the messages that the backend has said nothing of.
func (t *turns) unreported(err error) (group []mailer.Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, reported := range t.reported {
		if !reported {
			group = append(group, mailer.Report{Index: i, Result: mailer.Result{Err: err}})
		}
	}
	return group
}

// withdraw takes deliveries out of the batch, and returns them after they were put back: those whose turn has not come, and of
// which which says so.
func (t *turns) withdraw(which func(i int, d *delivery) bool, putBack func([]*delivery)) []*delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*delivery
	for i, d := range t.deliveries {
		if t.begun[i] || t.withdrawn[i] || t.reported[i] || d.over || !which(i, d) {
			continue
		}
		t.withdrawn[i] = true
		t.marks.drop(i)
		list = append(list, d)
	}
	putBack(list)
	return list
}

// spare is the first message that others may have which have nothing to do, though the batch gets on: the last half of those
// whose turn has not come, if at its pace these take longer than patience. It is the number of all if there is none.
func (t *turns) spare(patience time.Duration) (from int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ended, left := 0, make([]int, 0, len(t.deliveries))
	for i := range t.deliveries {
		switch {
		case t.withdrawn[i]:
		case t.reported[i]:
			ended++
		case !t.begun[i]:
			left = append(left, i)
		}
	}
	if ended == 0 || time.Since(t.start)/time.Duration(ended)*time.Duration(len(left)) < patience {
		return len(t.deliveries)
	}
	return left[len(left)/2]
}

// since is for how long no message has begun or ended, and overdue says that the batch's time is up.
func (t *turns) since() (still time.Duration, overdue bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	return now.Sub(t.last), !now.Before(t.until)
}

// elsewhere are those that have left the batch untried.
func (t *turns) elsewhere() (list []*delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, w := range t.withdrawn {
		if w {
			list = append(list, t.deliveries[i])
		}
	}
	return list
}

// logCutOff says how many of the deliveries that wait were cut off, since the worker has to end.
func (t *turns) logCutOff(log zerolog.Logger, waiting []*delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for i, d := range t.deliveries {
		if t.begun[i] && slices.Contains(waiting, d) {
			n++
		}
	}
	if n > 0 {
		log.Warn().Int("messages", n).Msg("cut off while they were being sent, for the worker has to end (EMAIL_SHUTDOWN_TIMEOUT): " +
			"they go back to their queue and begin anew")
	}
}

// ownEnd is a group of results in which those of which nothing was tried, since the batch's own deadline has ended ctx, say so:
// it tells nothing about the relay.
func ownEnd(ctx context.Context, group []mailer.Report) []mailer.Report {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return group
	}
	group = slices.Clone(group)
	for i, r := range group {
		if mailer.ClassOf(r.Err) == mailer.Unavailable && errors.Is(r.Err, context.DeadlineExceeded) {
			group[i].Result = mailer.Result{Err: errNoTurn}
		}
	}
	return group
}

// passOn lets other senders have what waits for its turn in the batch, and what waits behind the batch: when no message of it
// has begun or ended for so long and others have nothing to do, or when its time is up. If it gets on they have half of what
// would take it longer than that. What handlers want back, for it is
// paused for example, they get. end is to be called when the batch has ended. It returns what nobody has taken, and what
// is behind yet.
func (t *turns) passOn(patience time.Duration, b *busy, normal, priority chan []*delivery, behind []*delivery, putBack func([]*delivery)) (end func() (back, remaining []*delivery)) {
	if len(t.deliveries)+len(behind) < 2 {
		return func() ([]*delivery, []*delivery) { return nil, behind }
	}
	var back []*delivery
	ended, through := make(chan struct{}), make(chan struct{})
	look := time.NewTicker(max(patience/4, time.Millisecond))
	go func() {
		defer close(through)
		defer look.Stop()
		for {
			select {
			case <-ended:
				return
			case <-look.C:
			}
			t.withdraw(func(_ int, d *delivery) bool { return d.unwanted.Load() }, putBack)
			still, overdue := t.since()
			from := 0
			if still < patience && !overdue {
				if from = t.spare(patience); from == len(t.deliveries) && len(behind) == 0 {
					continue
				}
			}
			wanted := func(d *delivery) bool { return overdue || b.idle(d.urgent) > 0 }
			list := t.withdraw(func(i int, d *delivery) bool { return i >= from && wanted(d) }, putBack)
			if slices.ContainsFunc(behind, wanted) {
				list, behind = append(list, behind...), nil
			}
			back = append(back, offer(list, max(b.idle(false), 1), normal, priority, ended)...)
		}
	}()
	return func() (_, remaining []*delivery) {
		close(ended)
		<-through
		return back, behind
	}
}

// offer offers deliveries, in so many parts, by the channels that they came by. It returns what nobody has taken when
// ended is closed.
func offer(deliveries []*delivery, parts int, normal, priority chan []*delivery, ended <-chan struct{}) []*delivery {
	var urgent, other [][]*delivery
	for chunk := range slices.Chunk(deliveries, max((len(deliveries)+parts-1)/parts, 1)) {
		u, o := apart(chunk)
		if len(u) > 0 {
			urgent = append(urgent, u)
		}
		if len(o) > 0 {
			other = append(other, o)
		}
	}
	for len(urgent)+len(other) > 0 {
		var toNormal, toPriority chan []*delivery // nil: nothing to offer
		var o, u []*delivery
		if len(other) > 0 {
			toNormal, o = normal, other[0]
		}
		if len(urgent) > 0 {
			toPriority, u = priority, urgent[0]
		}
		select {
		case toNormal <- o:
			other = other[1:]
		case toPriority <- u:
			urgent = urgent[1:]
		case <-ended:
			return slices.Concat(append(urgent, other...)...)
		}
	}
	return nil
}

// came notes whether deliveries came by the priority channel.
func came(deliveries []*delivery, urgent bool) []*delivery {
	for _, d := range deliveries {
		d.urgent = urgent
	}
	return deliveries
}

// apart returns the deliveries that came by the priority channel, and the others.
func apart(deliveries []*delivery) (urgent, other []*delivery) {
	for _, d := range deliveries {
		if d.urgent {
			urgent = append(urgent, d)
		} else {
			other = append(other, d)
		}
	}
	return urgent, other
}

// accepted is how many messages of a group the relay has accepted.
func accepted(group []mailer.Report) int {
	n := 0
	for _, r := range group {
		if r.Err == nil && !r.Skipped {
			n++
		}
	}
	return n
}

// within is the context of a batch. It has no deadline for a backend that is asked before each message: that limits each step
// itself, and a message that gets on is not cut off. Of another backend nothing is known until its batch is through.
func within(work context.Context, b mailer.Backend, batchTimeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := b.(mailer.BatchSender); ok {
		return context.WithCancel(work)
	}
	return context.WithTimeout(work, batchTimeout)
}
