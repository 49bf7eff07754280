package tasks

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// sender owns one backend and its open connection. It takes what is waiting, sends it
// as one batch, and meanwhile the next batch forms: no timers, and no waiting when
// there is little to do.
type sender struct {
	conn         *connection // with the backend
	normal       chan []*delivery
	priority     chan []*delivery // nil if there is one queue
	dedicated    bool             // to the priority channel
	remaining    []*delivery      // taken, but too many for the last batch
	share        float64          // of its batches that a sender with both begins with priority mail
	breaker      *breaker
	rates        *rates
	probing      bool // it is this sender that finds out whether the relay takes mail again
	session      session
	busy         *busy
	ledger       *ledger
	policy       policy
	batchSize    int
	most         int           // of messages in the next batch
	batchTimeout time.Duration // after that no message of a batch begins
	turnPatience time.Duration // how long a message may take until others may have those behind it
	openPatience time.Duration
	inHand       func() int // messages that handlers have
	opened       error      // why there is no connection for the batch
	observers    observers
	tracer       Tracer
	hooks        hooks
	mailer       string
	number       int // among the worker's senders, from 1
	window       int // how many messages its backend had under way at once in the last batch
	log          zerolog.Logger
	view         redact.View
}

// run sends until stop ends. work ends what is on the wire: everything but the reply
// to a message that has been sent whole.
func (s *sender) run(stop, work context.Context) {
	defer s.closes()
	defer func() { s.putBack(deliveriesOf(s.session.take())) }()
	defer s.session.endTrial()
	for s.ready(stop, work) {
		batch := s.next(stop, work)
		for len(batch) > 0 && (s.probing || !s.breaker.tripped()) {
			if stop.Err() != nil {
				return // the handlers still hold these tasks and give them back
			}
			n, replace := s.session.room(min(len(batch), s.batchSize))
			if replace {
				s.closes()
				s.session.begin("")
			}
			if s.probing {
				n = 1
			}
			n, away := s.rates.take(stop, s.breaker.tripping(s.probing), batch[:n])
			if s.noMail(work, away); n == 0 {
				continue
			}
			s.remaining = slices.Concat(batch[n:], s.remaining)
			batch = s.send(work, batch[:n])
			s.session.endTrial()
			batch = append(s.decide(stop), batch...)
			if s.conn.isParked() {
				batch = s.handBack(stop, batch)
			}
		}
		s.session.endTrial() // of which nothing came
		if s.breaker.tripped() && !s.probing {
			s.remaining = nil // as what is left of the batch, the handlers give these back
		}
	}
}

// closes closes the connection.
func (s *sender) closes() {
	if err := s.conn.backend.Close(); err != nil {
		s.log.Debug().Str("error", s.view.Reason(err.Error())).Msg("closing the connection")
	}
}

// decide ends the deliveries that were put off by a connection that may have reached a limit of the relay, or returns them if they
// are to be tried over another one.
func (s *sender) decide(stop context.Context) (again []*delivery) {
	judged, fresh := s.session.decide(stop)
	if len(judged) > 0 {
		return s.settle(judged)
	}
	again = deliveriesOf(fresh)
	s.putBack(again)
	return again
}

// settle ends deliveries whose judgement had to wait, and returns those that wait for the relay.
func (s *sender) settle(list []tried) (waiting []*delivery) {
	var ended []*delivery
	for _, t := range list {
		if _, wait := s.judge(t.delivery, t.result); wait {
			t.delivery.fresh = true // what it is answered next counts
			waiting = append(waiting, t.delivery)
		} else {
			ended = append(ended, t.delivery)
		}
	}
	s.putBack(waiting)
	s.ledger.finish(ended, nil, func() {})
	return waiting
}

// next waits for one delivery and takes what else is waiting, up to a batch. Where both channels
// have mail, chance decides by the queues' weights which is first. While the relay allows no
// connection for this sender it takes nothing. It returns nothing if the mailer is held meanwhile, and if
// there is nothing to probe a relay with that greets us: then it is taken to be back.
func (s *sender) next(stop, work context.Context) []*delivery {
	var quiet, lone <-chan time.Time
	tripping := s.breaker.tripping(s.probing)
	if s.session.pending() {
		lone = time.After(lonePatience)
	}
	if s.probing {
		quiet = time.After(quietFor)
	}
	for {
		first, second, changed := s.channels()  // first: what changes from now on ends the wait below
		if !s.session.pending() && !s.probing { // all others wait for one that probes
			s.rest(stop)
			s.conn.await(stop, work)
		}
		s.most = s.evenPart()
		batch := s.take(s.add(nil, s.remaining), first)
		if len(batch) == 0 {
			var whole bool
			if batch, whole = s.wait(stop, first, second, changed, tripping, quiet, lone); whole {
				return batch
			}
			if len(batch) == 0 {
				continue
			}
			s.most = s.evenPart() // there may be more by now
			batch = s.add(batch, s.remaining)
		}
		return s.take(s.take(batch, first), second)
	}
}

// rest closes the connection if there are enough without it. What is left of what was taken goes to the others then: it would
// wait for as long as this sender.
func (s *sender) rest(stop context.Context) {
	if s.conn.rests() {
		s.closes()
		s.session.begin("")
		s.conn.rest()
	}
	if ok, _ := s.conn.mayOpen(); !ok && len(s.remaining) > 0 {
		batch := s.handBack(stop, nil)
		s.remaining = append(batch, s.remaining...)
	}
}

// wait waits for deliveries, or until the channels may be others. whole is when nothing is to be added.
func (s *sender) wait(stop context.Context, first, second chan []*delivery, changed, tripping <-chan struct{}, quiet, lone <-chan time.Time) (batch []*delivery, whole bool) {
	defer s.busy.rest(first == s.normal || second == s.normal, s.priority != nil && (first == s.priority || second == s.priority))()
	select {
	case <-stop.Done():
		return nil, true
	case <-tripping:
		return nil, true
	case <-changed:
		return nil, false
	case deliveries := <-first:
		return s.add(nil, came(deliveries, first == s.priority)), false
	case deliveries := <-second:
		return s.add(nil, came(deliveries, second == s.priority)), false
	case <-lone:
		batch = s.settle(s.session.alone())
		return batch, len(batch) > 0
	case <-quiet:
		if s.inHand() == 0 {
			s.works()
		}
		return nil, true
	}
}

// channels are those to take from. A sender that is dedicated to one takes from the other too while the relay
// allows no connection but its own; changed, for such a sender, is closed when that may have changed.
func (s *sender) channels() (first, second chan []*delivery, changed <-chan struct{}) {
	first, second, changed = s.normal, s.priority, s.conn.mayRest()
	if s.dedicated && !s.probing { // a probe takes what there is
		var all bool
		if all, changed = s.conn.servesAll(); !all {
			return s.priority, nil, changed
		}
	}
	if second != nil && rand.Float64() < s.share { //nolint:gosec // fairness needs no cryptographic chance
		first, second = second, first
	}
	return first, second, changed
}

// quietFor is how long a relay that may be back waits for a message, until nothing is held any more: there is none.
const quietFor = time.Second

// evenPart is how many messages a batch has at most: as many as the worker has in hand for each connection. If one took
// all that waits, the others would have nothing when they are through, and the last messages of a queue would go out over few
// connections.
func (s *sender) evenPart() int {
	connections := s.conn.pool.shared()
	return min(max((s.inHand()+connections-1)/connections, 1), s.batchSize)
}

// take adds what is waiting, up to a batch.
func (s *sender) take(batch []*delivery, from chan []*delivery) []*delivery {
	for len(batch) < s.most {
		select {
		case deliveries := <-from:
			batch = s.add(batch, came(deliveries, from == s.priority))
		default:
			return batch
		}
	}
	return batch
}

// add adds deliveries to a batch. Those that are too many for it wait for the next one.
func (s *sender) add(batch, deliveries []*delivery) []*delivery {
	n := min(max(max(s.most, 1)-len(batch), 0), len(deliveries))
	s.remaining = deliveries[n:]
	return append(batch, deliveries[:n]...)
}

// handBack offers what this sender has to the others, which have connections. It returns what is left
// when the sender may open one after all.
func (s *sender) handBack(stop context.Context, batch []*delivery) []*delivery {
	urgent, other := apart(slices.Concat(batch, s.remaining))
	s.remaining = nil
	for len(urgent)+len(other) > 0 {
		ok, changed := s.conn.mayOpen()
		if ok {
			return s.add(nil, append(urgent, other...))
		}
		var normal, priority chan []*delivery
		if len(other) > 0 {
			normal = s.normal
		}
		if len(urgent) > 0 {
			priority = s.priority
		}
		select {
		case normal <- other:
			other = nil
		case priority <- urgent:
			urgent = nil
		case <-changed:
		case <-s.breaker.tripping(false):
			return nil // the handlers give them back
		case <-stop.Done():
			return nil
		}
	}
	return nil
}

// ready returns true when the relay may be used, and probes it when that is due. It is false at the end.
func (s *sender) ready(stop, work context.Context) bool {
	if s.session.pending() && !s.probing {
		if !s.breaker.tripped() {
			return stop.Err() == nil
		}
		s.putBack(deliveriesOf(s.session.take())) // the handlers have them while the relay is held
	}
	for !s.probing {
		probe, ok := s.breaker.wait(stop)
		if !ok {
			return false
		}
		if !probe {
			return true
		}
		if s.conn.rests() { // another one probes
			s.breaker.due()
			return true
		}
		if err := s.conn.Open(work); err != nil {
			s.stillHeld(err)
			continue
		}
		s.probing = true
		s.breaker.ask()
	}
	return stop.Err() == nil
}

// stillHeld notes that a probe has failed.
func (s *sender) stillHeld(err error) {
	s.probing = false
	if isParked(err) {
		err = s.breaker.held() // it was not the relay that was asked
	}
	s.breaker.trip(err, true, s.conn.pool.loginPause())
	s.log.Warn().Str("error", s.view.Reason(err.Error())).Msg("relay still takes no mail")
}

// send puts the batch on the wire and returns the deliveries that wait: for the relay, or for another turn.
func (s *sender) send(work context.Context, batch []*delivery) (held []*delivery) {
	ctx, cancel := within(work, s.conn.backend, s.batchTimeout)
	defer cancel()
	s.opened = s.open(ctx) // before the messages are taken for the wire: until then they may go back
	deliveries, err := s.unsent(ctx, claim(batch))
	s.rates.unused(batch, deliveries)
	if err != nil {
		s.noMail(work, err)
		return batch
	}
	if len(deliveries) == 0 {
		return nil
	}
	start := time.Now()
	stats := Batch{Mailer: s.mailer, Sender: s.number}
	marks := newMarks(deliveries)
	turns := newTurns(deliveries, marks, s.batchTimeout)
	var untried []*delivery
	var reason, away error
	judge := func(group []mailer.Report, late []*delivery) {
		s.busy.note(time.Now())
		if n := accepted(group); n > 0 {
			s.breaker.accepted()
			s.conn.pool.hasAccepted(n)
		}
		ended, waiting := make([]*delivery, 0, len(group)), []*delivery(nil)
		for _, r := range group {
			d := deliveries[r.Index]
			known, kept := s.session.sift(d, r.Result)
			if kept {
				s.ledger.released([]*delivery{d}) // nothing of it was accepted
			}
			for _, t := range known {
				if why, wait := s.judge(t.delivery, t.result); wait {
					reason = why
					waiting = append(waiting, t.delivery)
					continue
				}
				if t.result.Err == nil {
					stats.Accepted++
				}
				ended = append(ended, t.delivery)
			}
		}
		s.putBack(slices.Concat(waiting, late))
		held, untried = append(held, waiting...), append(untried, late...)
		known := s.ledger.finish(ended, marks.after(group), func() { s.busy.wires.Add(-1) }) // the relay waits for us now
		s.busy.wires.Add(1)
		if !known {
			cancel() // the others wait until Redis is back
		}
	}
	s.busy.note(start)
	s.busy.wires.Add(1)
	passed := turns.passOn(s.turnPatience, s.busy, s.normal, s.priority, s.remaining, s.putBack)
	err = s.guarded(withSpans(ctx, s.tracer, deliveries), s.hooks.around(ctx, deliveries, mailer.Batch{
		Messages: messages(deliveries),
		Begin:    func(i int) (*mailer.EmailMessage, error) { return deliveries[i].message, turns.begin(i, s.inTime) },
		Commit: func(i int) error {
			err := turns.commit(func() error { return s.commit(ctx, marks, i) })
			if errors.As(err, new(*unknownError)) {
				away = err
				cancel() // as above
			}
			return err
		},
		Report: func(group []mailer.Report) { turns.report(ownEnd(ctx, group), judge) },
	}))
	turns.report(turns.unreported(err), judge)
	s.busy.wires.Add(-1)
	back, remaining := passed()
	untried, s.remaining = append(untried, back...), remaining
	s.window = marks.most
	elsewhere := turns.elsewhere()
	s.rates.unused(elsewhere, nil)
	stats.Size, stats.Duration = len(deliveries)-len(elsewhere), time.Since(start)
	s.observers.batch(stats)
	if len(held) < stats.Size {
		s.works()
	}
	// A batch of which some messages were judged is tried on at once, over a new connection.
	switch {
	case away != nil:
		s.noMail(work, away)
	case work.Err() != nil:
		turns.logCutOff(s.log, held)
	case len(held) > 0 && len(held) == stats.Size:
		s.takesNone(reason)
	}
	return append(held, untried...)
}

// takesNone notes that the relay has taken no message of a batch.
func (s *sender) takesNone(reason error) {
	_ = s.conn.backend.Close() // it may be this connection that has carried enough: a probe takes another one
	switch {
	case s.probing:
		s.stillHeld(reason)
	case isParked(reason): // it takes those of others
	case s.breaker.trip(reason, false, s.conn.pool.loginPause()):
		s.conn.pool.held()
		s.observers.held(s.mailer, reason)
		s.log.Error().Str("error", s.view.Reason(reason.Error())).Msg("relay takes no mail: holding all messages until it does")
	}
}

// putBack puts deliveries back of which nothing was accepted. First their marks go: another worker may be given the
// tasks as soon as they are back.
func (s *sender) putBack(deliveries []*delivery) {
	s.ledger.released(deliveries)
	for _, d := range deliveries {
		d.putBack()
	}
}

// commit marks a message that is about to be written, and those behind it that will soon be, unless it is marked and its task
// is surely ours. The error is why it is not to be written.
func (s *sender) commit(ctx context.Context, m *marks, i int) error {
	d := m.deliveries[i]
	if d.over || s.ledger.committed(d) {
		return s.committed(m, i, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, s.batchTimeout)
	defer cancel()
	var err error
	for tries := 0; tries < 3 && !d.over && !s.ledger.committed(d); tries++ { // it may have stood still while it asked
		if err = s.ledger.mark(ctx, m.from(i)); err != nil {
			break
		}
	}
	return s.committed(m, i, err)
}

// committed notes that a message is about to be written, unless it is over, or not marked because of err.
func (s *sender) committed(m *marks, i int, err error) error {
	switch d := m.deliveries[i]; {
	case d.over:
		return errOver
	case !s.ledger.committed(d):
		return &unknownError{cmp.Or(err, errTooSlow)}
	}
	m.commit(i)
	return nil
}

// judge decides on a delivery that has its result. wait says that it waits for the relay, or for Redis.
func (s *sender) judge(d *delivery, r mailer.Result) (why error, wait bool) {
	if errors.As(r.Err, new(*unknownError)) || errors.Is(r.Err, errReplaced) {
		return r.Err, true
	}
	r = redact.Result(r, d.message)
	if s.rates.heard(r.Err); isParked(r.Err) || s.spare(d, r) {
		return parkedError(), true
	}
	if mailer.ClassOf(r.Err) == mailer.Unavailable && !s.breaker.relayRefuses(d.name(), r.Err) {
		r.Err = deliverypolicy.OfMessage(r.Err)
	}
	d.attempt.Now = time.Now()
	v := s.policy.Decide(r.Err, d.attempt)
	if v.Action == hold {
		return v.Reason, true
	}
	d.outcome = outcome{result: r, verdict: v, sender: s.number, relay: s.mailer, soon: d.soon}
	return nil, false
}

// spare reports whether a delivery is to go on over another connection: the relay has said goodbye to it on one that
// had carried nothing, and others are open. It may have no room for another connection; if it
// does not want the message it says so again.
func (s *sender) spare(d *delivery, r mailer.Result) bool {
	var e *mailer.SendError
	if d.spared || !errors.As(r.Err, &e) || e.Code != 421 || e.Step != mailer.StepMail ||
		r.Connection == "" || s.session.carries(r.Connection) || s.breaker.blames(d.name()) {
		return false
	}
	d.spared = s.conn.refusedMail(r.Err)
	return d.spared
}

// works reports to everybody that the relay takes mail again, if it did not.
func (s *sender) works() {
	if s.probing {
		s.probing = false
		s.breaker.reset()
	}
	if s.breaker.works() {
		s.observers.held(s.mailer, nil)
		s.log.Info().Msg("relay is back")
	}
}

// inTime refuses a message whose time is up when it is its turn, that has ended, that is to go over another connection, or
// that the relay would refuse as it has refused those before.
func (s *sender) inTime(d *delivery) error {
	if d.over {
		return errOver
	}
	if s.session.replace {
		return errReplaced
	}
	a := d.attempt
	a.Now = time.Now()
	if reason := s.policy.Expired(a, 0); reason != nil {
		return &expiredError{Reason: reason}
	}
	return s.breaker.refuses(s.probing)
}

var errNoReport = errors.New("tasks: the backend said nothing of this message")

// guarded opens the backend first, so that its connection outlives the batch. Whatever the backend does, it returns the
// error of the messages that are not reported: a message that makes a backend panic costs itself a try and
// not the worker its life.
func (s *sender) guarded(ctx context.Context, batch mailer.Batch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(p)
		}
	}()
	if s.opened != nil {
		return s.opened
	}
	if err := s.conn.Open(ctx); err != nil { // it is open, unless it was closed just now
		return err
	}
	mailer.SendBatch(ctx, s.conn.backend, batch)
	return errNoReport
}

// panicked closes a backend that has panicked and returns the error of its messages.
func (s *sender) panicked(p any) error {
	what := redact.Panic(p)
	s.log.Error().Bytes("stack", debug.Stack()).Msg("the backend panicked: " + what)
	_ = s.conn.backend.Close() // whatever was half said on it is not said further
	return errors.New("tasks: the backend panicked: " + what)
}

// open opens the connection, if it is not open. While none of the mailer's is, and that takes long, messages go back: a
// relay that is silent, or behind a firewall that is, would keep them from other workers for as long as EMAIL_TIMEOUT.
func (s *sender) open(ctx context.Context) (err error) {
	attempt := new(opening)
	timer := time.AfterFunc(s.openPatience, func() {
		if !s.conn.othersOpen() {
			s.breaker.takesLong(attempt)
		}
	})
	defer func() {
		timer.Stop()
		s.breaker.ended(attempt)
		if p := recover(); p != nil {
			err = s.panicked(p)
		}
	}()
	return s.conn.Open(ctx)
}

// unsent asks the ledger which of the claimed deliveries may be sent, and puts all of them
// back if it does not know.
func (s *sender) unsent(ctx context.Context, deliveries []*delivery) ([]*delivery, error) {
	if len(deliveries) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.batchTimeout)
	defer cancel()
	left, err := s.ledger.unsent(ctx, deliveries, max(s.window, 1))
	if err != nil {
		s.putBack(slices.DeleteFunc(slices.Clone(deliveries), func(d *delivery) bool { return d.over }))
	}
	return left, err
}

// noMail says that no mail is sent since Redis does not answer, and keeps it from being asked without end.
func (s *sender) noMail(work context.Context, away error) {
	if away == nil {
		return
	}
	s.log.Error().Err(away).Msg("no mail is sent until Redis answers")
	select {
	case <-work.Done():
	case <-time.After(probeMin):
	}
}
