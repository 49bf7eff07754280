package tasks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/mailer"
)

// This file is about relays that take so many messages over one connection and answer each further one with 4yz,
// as `451 4.4.5 too many messages in this session` to DATA, or 452 to MAIL. Such a reply looks like
// one about the message. So when two messages in a row get the same one over a connection that has carried
// others, these are tried once over a new connection, at no cost:
//
//	they are accepted     the relay has a limit: connections are replaced before they reach it
//	the same reply        it is about the messages, as with greylisting: they are put off, and that
//	                      reply is believed at once for a while
//
// One connection at a time is tried so for a mailer. Those that meet the same meanwhile wait for what comes of it.

// The pauses after which a reply that was about the messages may be tried so again, and after which one connection
// carries more than the limit, to see whether that is there. They double each time. What one trial says of a limit may be
// chance, so that is looked at soon.
const (
	ownPauseMin   = 10 * time.Minute
	limitPauseMin = time.Minute
	tryPauseMax   = 6 * time.Hour
)

// trialPatience is how long a connection waits at most for what another one finds out.
const trialPatience = 10 * time.Second

// lonePatience is how long a message that was put off waits for the one after it, whose reply may explain its own.
const lonePatience = time.Second

// mostTried is how many messages a trial has: where they are streamed, many are put off at once.
const mostTried = 2

// sayingPause is how often a limit is logged at most.
const sayingPause = time.Hour

// maxOwn is how many replies are remembered that were about the messages.
const maxOwn = 1000

// errReplaced is the result of a message that is to go over another connection.
var errReplaced = errors.New("tasks: the connection is replaced first")

// sessions is what is known of how many messages a mailer's relay takes over one connection.
type sessions struct {
	mailer    string
	log       zerolog.Logger
	observers observers

	mu       sync.Mutex
	most     int           // 0: no limit is known
	reply    relayReply    // that says so
	said     bool          // the limit was logged
	saying   time.Time     // when another one may be
	pause    time.Duration // before one connection carries more
	due      time.Time     // when one may
	explorer *session      // the one that does
	trial    *trial        // the one under way
	own      map[relayReply]ownReply
}

// relayReply is what of a reply is the same each time. The text may name a recipient, or the time.
type relayReply struct {
	step     mailer.Step
	code     int
	enhanced string
}

func (r relayReply) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s: %d %s", r.step, r.code, r.enhanced))
}

// ownReply is a reply that is about the messages: it is believed until then.
type ownReply struct {
	until time.Time
	pause time.Duration
}

// trial is the attempt to send messages over a new connection that were put off over one that had carried others.
type trial struct {
	reply    relayReply
	carried  int // by the connection before
	messages int
	taken    int  // of them, for all recipients that the relay had put off
	again    bool // the same reply has come again
	ended    chan struct{}
}

func newSessions(mailerName string, log zerolog.Logger, told observers) *sessions {
	return &sessions{mailer: mailerName, log: log, observers: told, own: map[relayReply]ownReply{}}
}

// session is what a sender knows of its connection. One goroutine uses it.
type session struct {
	all     *sessions
	id      string // of the connection, as the backend names it
	settled int    // messages that the relay has judged there
	took    int    // of them accepted
	whole   int    // of these, with no recipient put off

	reply    relayReply // the last one, if it put a message off
	before   string     // the message that got it and was judged; "" if there is none
	suspects []tried    // those that got it since, in a row, and are not judged yet
	replace  bool       // the connection carries no more
	trial    *trial     // what the next batch is
}

// tried is a delivery with its result.
type tried struct {
	delivery *delivery
	result   mailer.Result
}

func deliveriesOf(list []tried) []*delivery {
	all := make([]*delivery, len(list))
	for i, t := range list {
		all[i] = t.delivery
	}
	return all
}

// replyOf returns the reply that put a message or a recipient off, if it may be for the connection's sake. A server that
// says 421 closes, but for Exim, which may say it of a recipient.
func replyOf(err error) (r relayReply, ok bool) {
	var e *mailer.SendError
	if !errors.As(err, &e) || e.Code/100 != 4 && !isPassing(e) {
		return r, false
	}
	switch e.Step {
	case mailer.StepMail, mailer.StepData, mailer.StepEnd:
		ok = e.Code != 421
	case mailer.StepRcpt:
		ok = true
	}
	return relayReply{e.Step, e.Code, e.Enhanced}, ok
}

// isPassing reports whether a permanent code means a refusal that passes: by its enhanced code, or because the operator
// says so. Those that want a login or TLS (53x) and 503 are about neither message nor session.
func isPassing(e *mailer.SendError) bool {
	return e.Code/100 == 5 && e.Code/10 != 53 && e.Code != 503 && (e.Class == mailer.Temporary || e.Class == mailer.Unavailable)
}

// sift takes the result of a delivery and returns those that are to be judged now. What may be for the connection's
// sake is kept until the next one is known.
func (s *session) sift(d *delivery, r mailer.Result) (known []tried, kept bool) {
	if d.over { // it has ended when its turn came
		return nil, false
	}
	var e *mailer.SendError
	if r.Connection == "" || r.Err != nil && (!errors.As(r.Err, &e) || e.Code == 0) {
		return []tried{{d, r}}, false // the relay has said nothing
	}
	if r.Connection != s.id {
		known = s.suspects
		s.begin(r.Connection)
	}
	s.settled++
	reply, deferred := replyOf(r.Err)
	if t := s.trial; t != nil && deferred && reply == t.reply {
		t.again = true
	}
	switch {
	case deferred && s.whole > 0 && !d.fresh && !s.all.isOwn(reply):
		if reply != s.reply {
			known = append(known, s.take()...)
			s.reply, s.before = reply, ""
		}
		s.suspects = append(s.suspects, tried{d, r})
		s.replace = len(s.suspects) > 1 || s.before != "" && s.before != d.name() || s.all.reached(s)
		return known, true
	case r.Err == nil:
		known = append(known, s.accepted(d, r)...)
	case deferred:
		known = append(known, s.take()...)
		s.before = ""
	default: // refused for good, which says nothing of the connection
		known = append(known, s.alone()...)
	}
	return append(known, tried{d, r}), false
}

// begin begins with a new connection.
func (s *session) begin(id string) {
	s.id, s.settled, s.took, s.whole = id, 0, 0, 0
	s.suspects, s.before, s.replace = nil, "", false
	s.all.leaves(s)
}

// accepted notes that the relay has taken a message, and returns those that are to be judged now. If it has put recipients
// off, that is the same as if it had put the message off. They are tried again at once if that seems to be for the connection's sake.
func (s *session) accepted(d *delivery, r mailer.Result) (known []tried) {
	s.took++
	reply, partly := partlyOff(r.Refused)
	switch {
	case !partly:
		s.whole++
		if s.trial != nil {
			s.trial.taken++
		}
		s.all.carried(s)
	case s.trial != nil && reply == s.trial.reply:
		s.trial.again = true
	case s.whole == 0 || d.fresh || s.all.isOwn(reply):
	case reply == s.reply && s.pending(): // one that was on the wire behind it is known of before
		d.soon, s.replace = true, true
		return nil
	case s.all.limits(reply, s.whole):
		d.soon = true
	default:
		known, s.reply, s.before = s.take(), reply, d.name()
		return known
	}
	s.before = ""
	return s.take()
}

// partlyOff returns the reply with which a relay has put recipients off.
func partlyOff(refused []*mailer.SendError) (r relayReply, ok bool) {
	for _, e := range refused {
		if r, ok = replyOf(e); ok {
			break
		}
	}
	return r, ok
}

// take takes all that is not judged yet.
func (s *session) take() []tried {
	list := s.suspects
	s.suspects = nil
	return list
}

// alone takes the one message that was put off, if there is no other to compare it with.
func (s *session) alone() []tried {
	list := s.take()
	if len(list) > 0 {
		s.before = list[0].delivery.name()
	}
	return list
}

// carries reports whether a connection has carried an accepted message.
func (s *session) carries(id string) bool { return s.id == id && s.took > 0 }

// pending reports whether there are messages that are not judged yet.
func (s *session) pending() bool { return len(s.suspects) > 0 }

// decide returns the messages that were put off by the connection if they are to be judged, or if they are to be
// tried once over another one. It waits while another connection is tried so.
func (s *session) decide(ctx context.Context) (judged, again []tried) {
	if !s.replace || !s.pending() {
		return nil, nil
	}
	timer := time.NewTimer(trialPatience)
	defer timer.Stop()
	for waits := true; waits; {
		own, running := s.all.suspect(s)
		if own {
			s.replace = false
			return s.alone(), nil
		}
		waits = running != nil
		if !waits {
			break
		}
		select {
		case <-running:
		case <-timer.C:
			waits = false // it says what it says over another connection too
		case <-ctx.Done():
			waits = false
		}
	}
	again = s.take()
	if s.trial != nil {
		for _, t := range again[:s.trial.messages] {
			t.delivery.fresh = true
		}
	}
	return nil, again
}

// room is how many of n messages are to be sent next, and whether the connection is to be replaced first.
func (s *session) room(n int) (room int, replace bool) {
	switch most := s.all.limit(); {
	case s.trial != nil:
		return min(n, s.trial.messages), true
	case !s.replace && (s.pending() || s.before != ""): // the next one says whether the limit is lower by now
		return min(n, 1), false
	case most == 0:
		return n, s.replace
	case s.replace:
		return min(n, most), true
	case s.settled < most:
		return min(n, most-s.settled), false
	case s.all.explores(s):
		return n, false
	default:
		return min(n, most), true
	}
}

// endTrial ends the trial, whatever came of it.
func (s *session) endTrial() {
	if s.trial != nil {
		s.all.end(s.trial)
		s.trial = nil
	}
}

func (p *sessions) isOwn(r relayReply) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.own[r].until)
}

func (p *sessions) limit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

// reached reports whether s has come to the known limit, in the words that say so.
func (p *sessions) reached(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isReached(s)
}

func (p *sessions) isReached(s *session) bool {
	return p.most > 0 && s.reply == p.reply && s.whole >= p.most
}

// suspect decides on a connection that has put messages off, one after the other. own says that it is about them. If
// running is not nil, another connection is tried meanwhile. Else this one is to be replaced, as the trial
// that s has from then on, or because the limit is known.
func (p *sessions) suspect(s *session) (own bool, running <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case time.Now().Before(p.own[s.reply].until):
		return true, nil
	case p.isReached(s):
		if p.explorer == s { // it is still there
			p.wait()
		}
		return false, nil
	case p.trial != nil:
		return false, p.trial.ended
	}
	s.trial = &trial{reply: s.reply, carried: s.whole, ended: make(chan struct{})}
	s.trial.messages = min(len(s.suspects), s.whole, mostTried) // more than it has carried a connection may not carry
	p.trial = s.trial
	return false, nil
}

// end draws the conclusion from a trial. If its messages came to nothing there is none.
func (p *sessions) end(t *trial) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trial = nil
	close(t.ended)
	switch {
	case t.again:
		if len(p.own) >= maxOwn {
			clear(p.own)
		}
		pause := min(max(2*p.own[t.reply].pause, ownPauseMin), tryPauseMax)
		p.own[t.reply] = ownReply{time.Now().Add(pause), pause}
	case t.taken > 0:
		delete(p.own, t.reply)
		p.learn(t.reply, t.carried)
	}
}

// learn notes the limit. p.mu is held.
func (p *sessions) learn(r relayReply, most int) {
	p.most, p.reply = most, r
	p.wait()
	p.observers.sessionLimit(p.mailer, most)
	line := p.log.Debug()
	if now := time.Now(); !p.said && !now.Before(p.saying) {
		p.said, p.saying, line = true, now.Add(sayingPause), p.log.Warn()
	}
	line.Int("messages", most).Stringer("reply", r).
		Msg("relay takes only so many messages over one connection: replacing connections in time")
}

// wait puts off when one connection may carry more than the limit. p.mu is held.
func (p *sessions) wait() {
	p.explorer = nil
	p.pause = min(max(2*p.pause, limitPauseMin), tryPauseMax)
	p.due = time.Now().Add(p.pause)
}

// limits reports whether recipients that were put off with r after so many messages were so for the limit's sake.
func (p *sessions) limits(r relayReply, carried int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.most == 0 || r != p.reply {
		return false
	}
	if carried < p.most {
		p.learn(r, carried)
	}
	return true
}

// explores reports whether s is the connection that carries more than the limit now.
func (p *sessions) explores(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.explorer == nil && !time.Now().Before(p.due) {
		p.explorer = s
	}
	return p.explorer == s
}

// leaves notes that the connection of s has ended.
func (p *sessions) leaves(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.explorer == s {
		p.explorer = nil
	}
}

// carried notes that s has carried another message. If those are more than the limit there is none, or a higher one.
func (p *sessions) carried(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.most == 0 || s.whole <= p.most {
		return
	}
	line := p.log.Debug()
	if p.said {
		line = p.log.Info()
	}
	line.Int("messages", s.whole).Int("before", p.most).Msg("relay takes more messages over one connection than before")
	p.most, p.said, p.explorer = 0, false, nil
	p.observers.sessionLimit(p.mailer, 0)
}
