package tasks

import (
	"errors"
	"sync"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redact"
)

// route chooses the member that a message goes to, for a mailer that has members instead of a relay. It knows of each
// whether its breaker holds, and whether it gets on.
//
//	breaker of a member  -> see -> away: what waits for it goes another way
//	a look now and then  -> stillness, pause
//	all members away            -> holds: what waits goes back to Redis, as for a relay that takes no mail
//
// A member that is probed gets one message. When the relay has judged that, its breaker lets all through again.
type route struct {
	mailer   string
	weighted bool
	changed  chan<- struct{} // gets a token when something is to be told

	mu      sync.Mutex
	members []*routeMember
	holding bool          // no member takes mail
	lets    chan struct{} // closed while that is so
	moved   chan struct{} // closed, and replaced, when a member goes away or comes back
}

// routeMember is a member as its route sees it. Its fields are guarded by route.mu.
type routeMember struct {
	Member

	breaker breakerState
	still   bool // it has said nothing for long, over all its connections
	paused  bool // by somebody's hand
	isAway  bool
	away    chan struct{} // closed while that is so
	has     int           // messages
	credit  int           // how much of its share it has not had
}

var (
	errMemberPaused  = errors.New("it is paused")
	errMemberSilent  = errors.New("it has said nothing for a while, over all its connections")
	errMemberOpening = errors.New("it opens no connection")
)

func newRoute(mailer string, f Failover, changed chan<- struct{}) *route {
	r := &route{mailer: mailer, weighted: f.Weighted, changed: changed, lets: make(chan struct{}), moved: make(chan struct{})}
	for _, m := range f.Members {
		r.members = append(r.members, &routeMember{Member: m, away: make(chan struct{})})
	}
	return r
}

// sees notes how the breaker of a member is.
func (r *route) sees(i int, s breakerState) {
	r.set(i, func(m *routeMember) { m.breaker = s })
}

// stands notes whether a member stands still.
func (r *route) stands(i int, still bool) {
	r.set(i, func(m *routeMember) { m.still = still })
}

// pauses notes whether a member is paused.
func (r *route) pauses(i int, paused bool) {
	r.set(i, func(m *routeMember) { m.paused = paused })
}

func (r *route) set(i int, change func(m *routeMember)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := *r.members[i]
	change(r.members[i])
	if m := r.members[i]; m.breaker.same(before.breaker) && m.still == before.still && m.paused == before.paused {
		return
	}
	r.update()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// takes reports whether the member takes mail, as far as is known.
func (m *routeMember) takes() bool { return !m.breaker.holding && !m.paused }

// update is called when what the members are has changed. One that stands still is left only if another one gets on. r.mu is held.
func (r *route) update() {
	getsOn, moved := false, false
	for _, m := range r.members {
		getsOn = getsOn || m.takes() && !m.still
	}
	holding := true
	for _, m := range r.members {
		away := !m.takes() || m.still && getsOn
		holding = holding && away
		switch {
		case away && !m.isAway:
			close(m.away)
		case !away && m.isAway:
			m.away, m.credit = make(chan struct{}), 0
		default:
			continue
		}
		m.isAway, moved = away, true
	}
	switch {
	case holding && !r.holding:
		close(r.lets)
	case !holding && r.holding:
		r.lets = make(chan struct{})
	}
	if r.holding = holding; moved {
		close(r.moved)
		r.moved = make(chan struct{})
	}
}

// choose returns the member that so many messages are to go to, and how many of them: all, or one if it is probed. away is closed
// when they are to go another way. ok is false if no member takes mail.
func (r *route) choose(messages int) (i, take int, away <-chan struct{}, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holding {
		return 0, 0, nil, false
	}
	i = r.next(messages)
	m := r.members[i]
	if take = messages; m.breaker.asks {
		take = 1
	}
	m.has += take
	return i, take, m.away, true
}

// next is the member whose turn it is. One that is probed has its message first; it gets more only if nobody else is there. r.mu
// is held, and one is there.
func (r *route) next(messages int) int {
	last, best, sum := 0, -1, 0
	for i, m := range r.members {
		switch {
		case m.isAway:
		case m.breaker.asks && m.has > 0:
			last = i
		case m.breaker.asks, !r.weighted:
			return i
		case best < 0:
			best = i
		}
	}
	if best < 0 {
		return last
	}
	for i, m := range r.members {
		if m.isAway || m.breaker.asks {
			continue
		}
		sum += m.Weight * messages
		if m.credit += m.Weight * messages; m.credit > r.members[best].credit {
			best = i
		}
	}
	r.members[best].credit -= sum
	return best
}

// left notes that messages have left a member.
func (r *route) left(i, messages int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[i].has -= messages
}

// moves is closed when a member goes away or comes back.
func (r *route) moves() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.moved
}

// holds reports whether what waits is to wait in Redis: no member takes mail.
func (r *route) holds() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holding
}

// holdsNow is closed while holds is true.
func (r *route) holdsNow() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lets
}

// asking reports whether one message is to be fetched and no more: members are probed, and no other one takes mail.
func (r *route) asking() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	asks := false
	for _, m := range r.members {
		if !m.isAway && !m.breaker.asks {
			return false
		}
		asks = asks || !m.isAway
	}
	return asks
}

// held returns why no mail goes through, nil if some does.
func (r *route) held() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all membersError
	for _, m := range r.members {
		switch {
		case m.paused:
			all = append(all, &memberError{m.Mailer, errMemberPaused})
		case m.breaker.trouble != nil:
			all = append(all, &memberError{m.Mailer, m.breaker.trouble})
		default:
			return nil
		}
	}
	return all
}

// state is how the members are.
func (r *route) state() FailoverState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := FailoverState{Mailer: r.mailer, Weighted: r.weighted, Members: make([]MemberState, len(r.members))}
	for i, m := range r.members {
		s.Members[i] = MemberState{Member: m.Member, Serves: r.serves(i), Reason: m.reason()}
	}
	return s
}

// reason is why the member is passed over, nil if it is not. r.mu is held.
func (m *routeMember) reason() error {
	switch {
	case m.paused:
		return errMemberPaused
	case m.breaker.trouble != nil:
		return m.breaker.trouble
	case m.breaker.holding:
		return errMemberOpening
	case m.still && m.isAway:
		return errMemberSilent
	}
	return nil
}

// serves reports whether messages go to a member: all but those that others are probed with. r.mu is held.
func (r *route) serves(i int) bool {
	if r.members[i].reason() != nil {
		return false
	}
	for _, before := range r.members[:i] {
		if !r.weighted && before.reason() == nil {
			return false
		}
	}
	return true
}

// serving are the members that messages go to, by their indexes.
func (r *route) serving() (list []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.members {
		if r.serves(i) {
			list = append(list, i)
		}
	}
	return list
}

// news tells log and observers how the members of a mailer are, when that has changed.
type news struct {
	log       zerolog.Logger
	view      redact.View
	observers observers
	told      FailoverState
	held      error
}

// tell tells what has changed.
func (n *news) tell(s FailoverState, held error) {
	if (held == nil) != (n.held == nil) {
		n.observers.held(s.Mailer, held)
		if held != nil {
			n.log.Error().Str("error", n.view.Reason(held.Error())).Msg("no member takes mail: holding all messages until one does")
		} else {
			n.log.Info().Msg("members take mail again")
		}
	}
	if n.held = held; s.same(n.told) {
		return
	}
	before := n.told
	n.told = s
	n.observers.failover(s)
	if before.Members == nil && s.PassedOver() == 0 || held != nil {
		return
	}
	line := n.log.Info()
	if s.PassedOver() > before.PassedOver() {
		line = n.log.Warn()
	}
	line.Strs("serves", s.serving())
	if why := s.reasons(); why != nil {
		line.Str("passed_over", n.view.Reason(why.Error()))
	}
	line.Msg("which members serve has changed")
}
