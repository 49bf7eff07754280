package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// The pauses between attempts to open one more connection than the relay has allowed before.
const (
	growMin = 30 * time.Second
	growMax = 10 * time.Minute
)

// opened is how long after one connection was opened others may be at the same time. Later, one is first
// and the others wait for what becomes of it.
const opened = 10 * time.Second

// lively is how long after a message was accepted the mailer has use for another connection, and
// how often that is looked at.
const (
	lively     = 5 * time.Second
	livelyPoll = time.Second
)

// settled is how long after the last refusal it is said how many connections the relay allows: one that
// refuses at MAIL does so one after the other.
const settled = 500 * time.Millisecond

// errParked is why a sender has no connection while others have: the relay allows no more.
var errParked = errors.New("tasks: the relay allows no further connection for now")

// connections decides which of a mailer's senders may open a connection, and when.
//
// One is opened first, login included. Only when that has worked the others are, at the same time:
// a wrong password costs one refused login, however many connections there are to be.
//
// A relay that refuses a further connection while others work does not take mail any less. Its sender
// is parked: it hands back what it has, to the others, and takes nothing until there is a place for
// it. Now and then one of the parked, without mail, tries whether the relay allows one more.
//
// Where their number grows by itself, as growth decides, some senders rest: they take nothing, and have no connection.
// A relay that refuses one of more connections than there were at first makes the number smaller.
type connections struct {
	mailer    string
	logins    *logins
	log       zerolog.Logger
	view      redact.View
	observers observers

	mu       sync.Mutex
	all      []*connection
	growth   growth
	most     int           // the greatest number that was logged
	lively   chan struct{} // holds a token after a message was accepted, for grow
	allowed  int           // how many the relay is believed to allow: all of them until it refuses one
	leased   leased        // how many there may be of those of all workers
	doubt    *limit        // what was believed before it refused one; nil if messages were accepted since
	said     int           // the number that was logged last
	first    *turn         // that the others wait for
	sure     time.Time     // when a connection was opened last, if none was refused since
	accepted time.Time     // when a message was, last
	due      time.Time     // when one more connection may be tried than are allowed
	pause    time.Duration // before the next such attempt
	scout    *connection   // of who makes it
	changed  chan struct{} // closed, and replaced, when one who waits may go on

	loggedIn bool      // the last login has worked
	refused  error     // or why it was refused
	loginDue time.Time // until when none is tried
}

// limit is how many connections were believed to be allowed, and the pause before another attempt.
type limit struct {
	allowed int
	pause   time.Duration
	last    time.Time // when the relay refused one since
}

// turn is the opening of a connection that others wait for.
type turn struct {
	ended chan struct{}
	err   error // that of the others too, if it is not nil
}

// connection is that of one sender. Its fields are guarded by pool.mu.
type connection struct {
	pool      *connections
	backend   mailer.Backend
	next      mailer.Backend // to be used instead from when it is opened next; nil: none
	dedicated bool           // to the priority channel
	rank      int            // among those that are not: 0 is there always
	open      bool           // as far as is known: who has opened one may open it again
	opening   bool           // the first time
	parked    bool
}

func newConnections(mailerName string, client redis.UniversalClient, cfg WorkerConfig, log zerolog.Logger) *connections {
	return &connections{
		mailer: mailerName, logins: &logins{redis: client}, log: log, view: redact.View{Addresses: cfg.ShowAddresses}, observers: cfg.Observers,
		changed: make(chan struct{}), lively: make(chan struct{}, 1), leased: notLeased(),
	}
}

// add adds a sender's connection, which the backend opens.
func (p *connections) add(b mailer.Backend, dedicated bool) *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &connection{pool: p, backend: b, dedicated: dedicated}
	if !dedicated {
		c.rank = len(p.all) - p.dedicated()
	}
	if via, ok := b.(mailer.Connector); ok {
		via.ConnectVia(c.via)
		p.logins.of(via.Account())
	}
	if p.allowed == len(p.all) {
		p.allowed++
	}
	p.all = append(p.all, c)
	p.said = p.configured()
	return c
}

// Open opens the connection, if it is not open.
func (c *connection) Open(ctx context.Context) error {
	c.renew()
	open := func() error {
		_, err := c.backend.Open(ctx)
		return err
	}
	if _, ok := c.backend.(mailer.Connector); ok {
		return open()
	}
	return c.via(ctx, open)
}

// renew puts the next backend in the place of the one before, whose connection it closes.
func (c *connection) renew() {
	p := c.pool
	p.mu.Lock()
	next := c.next
	c.next = nil
	p.mu.Unlock()
	if next == nil {
		return
	}
	if err := c.backend.Close(); err != nil {
		p.log.Debug().Str("error", p.view.Reason(err.Error())).Msg("closing the connection")
	}
	c.backend = next
}

// via opens the connection with connect, if and when it may be opened.
func (c *connection) via(ctx context.Context, connect func() error) error {
	p := c.pool
	first, agree, err := p.enter(ctx, c)
	if err != nil {
		return err
	}
	began := time.Now()
	l := p.loginsOf(agree)
	if agree != nil {
		err = p.mayLogIn(ctx, l)
	}
	if err == nil {
		if err = connect(); agree != nil || loginRefused(err) {
			err = p.loginEnded(ctx, l, err)
		}
	}
	return p.leave(ctx, c, first, began, err)
}

// enter waits until c may be opened. first, if not nil, is that of c, which others wait for; agree, if not nil, is
// for an agreement on the login.
func (p *connections) enter(ctx context.Context, c *connection) (first *turn, agree *logins, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		agree = p.agreement()
		switch {
		case c.next != nil: // it is the backend before that breaks off
			return nil, agree, parkedError()
		case p.refused != nil && time.Now().Before(p.loginDue):
			return nil, agree, p.withoutLogin(c)
		case !c.open && (p.scout != c && p.taken() >= p.allowed || c.restsNow() && p.count() > 0 || !c.isLeased()):
			c.parked = true
			return nil, agree, parkedError()
		case p.first == nil:
			c.opening = !c.open
			if agree != nil || time.Since(p.sure) >= opened {
				p.first = &turn{ended: make(chan struct{})}
				return p.first, agree, nil
			}
			return nil, agree, nil
		}
		other := p.first
		p.mu.Unlock()
		select {
		case <-other.ended:
			err = other.err
		case <-ctx.Done():
			err = mailer.ContextErr(ctx)
		}
		p.mu.Lock()
		if err != nil {
			return nil, agree, err
		}
	}
}

// agreement is for the next login, nil if it needs none: others are logged in. p.mu is held.
func (p *connections) agreement() *logins {
	if p.logins.key != "" && (p.refused != nil || p.count() == 0) {
		return p.logins
	}
	return nil
}

// leave judges how the opening of c has ended.
func (p *connections) leave(ctx context.Context, c *connection, first *turn, began time.Time, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.opening = false
	switch {
	case err == nil:
		p.hasOpened(c)
	case ctx.Err() != nil || c.next != nil: // it was not the relay that ended it, or it is another one by now
		c.open = false
		if p.scout == c {
			p.scout = nil
		}
	default:
		c.open, p.sure = false, time.Time{}
		err = p.failed(c, err, isTimeout(err) && !p.accepted.After(began))
	}
	if first != nil {
		p.first = nil
		if err != nil && !isParked(err) && ctx.Err() == nil {
			first.err = err
		}
		close(first.ended)
	}
	p.wake()
	return err
}

// hasOpened notes that c is open.
func (p *connections) hasOpened(c *connection) {
	c.open, c.parked = true, false
	p.sure = time.Now()
	if p.scout == c {
		p.scout, p.pause, p.due = nil, 0, p.sure // the next one may try
	}
	p.loggedIn, p.refused = true, nil
	if n := p.count(); n > p.allowed {
		if p.allowed = n; n >= p.configured() {
			p.allowed = len(p.all)
		}
		if p.doubt == nil {
			p.say()
		}
	}
}

// withoutLogin is failed for a connection that is not tried, since logins have to wait.
func (p *connections) withoutLogin(c *connection) error {
	c.open = false
	others := p.count()
	if others == 0 {
		return p.refused
	}
	p.allowed, c.parked = others, true
	if p.loginDue.After(p.due) {
		p.due = p.loginDue
	}
	return parkedError()
}

// failed notes that c could not be opened. While other connections are open that is the business of c
// alone, which is parked then. silent: the relay has not refused, but said nothing, to anybody.
func (p *connections) failed(c *connection, err error, silent bool) error {
	others := p.count()
	if others == 0 || silent {
		for _, other := range p.all {
			other.open = false
		}
		p.forget()
		return err
	}
	if less := p.growth.refused(p.countShared(), time.Now()); less > 0 {
		p.backTo(less).Str("error", p.view.Reason(err.Error())).Msg("relay refuses a further connection: going on with fewer")
		c.parked = true
		return parkedError()
	}
	if p.doubt == nil {
		p.doubt = &limit{allowed: p.allowed, pause: p.pause}
	}
	if p.scout == c {
		p.scout = nil
	}
	p.allowed = min(others, p.allowed)
	p.doubt.last = time.Now()
	if now := p.doubt.last; !now.Before(p.due) { // the first one of several
		p.pause = min(max(2*p.pause, growMin), growMax)
		p.due = now.Add(p.pause)
	}
	if p.loginDue.After(p.due) {
		p.due = p.loginDue
	}
	p.log.Debug().Str("error", p.view.Reason(err.Error())).Int("open", others).Msg("a further connection was refused")
	c.parked = true
	return parkedError()
}

func parkedError() error {
	return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errParked}
}

func isParked(err error) bool { return errors.Is(err, errParked) }

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// forget takes back what was believed of the relay's limit if nothing was accepted since: no other
// connection works either.
func (p *connections) forget() {
	p.scout = nil
	if p.doubt != nil {
		p.allowed, p.pause, p.due = p.doubt.allowed, p.doubt.pause, time.Time{}
		p.doubt = nil
	}
	p.wake()
}

// held notes that the relay takes no mail at all.
func (p *connections) held() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if less := p.growth.refused(0, time.Now()); less > 0 {
		p.backTo(less).Msg("relay takes no mail: going on with as few connections as at first, when it does")
	}
	p.forget()
}

// hasAccepted notes that the relay has accepted messages, and so that connections work while others are refused.
func (p *connections) hasAccepted(messages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted = time.Now()
	if p.growth.carried += messages; p.growth.grows() {
		select {
		case p.lively <- struct{}{}:
		default:
		}
	}
	if p.doubt != nil && p.accepted.Sub(p.doubt.last) >= settled {
		p.doubt = nil
		p.say()
	}
}

// say tells people how many connections the relay allows, if that is news.
func (p *connections) say() {
	wanted := p.configured()
	allowed := min(p.allowed, wanted)
	p.observers.connections(p.mailer, allowed, wanted)
	if allowed == p.said || allowed > p.said && allowed < wanted {
		return // while it grows only the end of it is of interest
	}
	p.said = allowed
	if allowed == wanted {
		p.log.Info().Int("connections", wanted).Msg("relay allows all connections again")
		return
	}
	p.log.Warn().Int("allowed", allowed).Int("connections", wanted).
		Msg("relay allows fewer connections at once than are configured: going on with those, and trying one more now and then")
}

// configured is how many connections there are at least, if the relay allows them.
func (p *connections) configured() int {
	if p.growth.grows() {
		return p.growth.base + p.dedicated()
	}
	return len(p.all)
}

// dedicated is how many connections are dedicated to the priority channel.
func (p *connections) dedicated() int {
	n := 0
	for _, c := range p.all {
		if c.dedicated {
			n++
		}
	}
	return n
}

// countShared is how many of the others are open.
func (p *connections) countShared() int {
	n := 0
	for _, c := range p.all {
		if c.open && !c.dedicated {
			n++
		}
	}
	return n
}

// count is how many connections are open.
func (p *connections) count() int {
	n := 0
	for _, c := range p.all {
		if c.open {
			n++
		}
	}
	return n
}

// size is how many connections there are to be, beside one that is dedicated.
func (p *connections) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sizeNow()
}

func (p *connections) sizeNow() int {
	if p.growth.grows() {
		return p.growth.now
	}
	return len(p.all) - p.dedicated()
}

// shared is how many of these the relay allows, at least one.
func (p *connections) shared() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(min(p.sizeNow(), p.mayHave()-p.dedicated()), 1)
}

// taken is how many are open or about to be.
func (p *connections) taken() int {
	n := 0
	for _, c := range p.all {
		if c.open || c.opening {
			n++
		}
	}
	return n
}

// wake lets those look again who wait for a change.
func (p *connections) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// refusedMail notes that the relay has said goodbye to the first message on a new connection, and
// reports whether that was for the connection's sake: others are open. Some relays say so late that they
// allow no more.
func (c *connection) refusedMail(err error) bool {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	was := c.open
	if c.open = false; p.count() == 0 {
		c.open = was
		return false
	}
	p.sure = time.Time{}
	_ = p.failed(c, err, false)
	return true
}

// othersOpen reports whether the mailer has open connections.
func (c *connection) othersOpen() bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.pool.count() > 0
}

func (c *connection) restsNow() bool {
	return !c.dedicated && c.pool.growth.rests(c.rank) || !c.isLeased()
}

// isLeased reports whether c is, or would be, among those that there may be of those of all workers.
func (c *connection) isLeased() bool {
	before, has := 0, c.open || c.opening
	for _, o := range c.pool.all {
		if has && (o == c || !o.dedicated && o.rank > c.rank || c.dedicated) || !o.open && !o.opening {
			continue
		}
		before++
	}
	return c.pool.leased.oneMore(before)
}

// mayHave is how many there may be, by the relay and of those of all workers.
func (p *connections) mayHave() int { return p.leased.least(p.allowed) }

// backTo is the line of the log that says that there are to be so many connections fewer, and when more are tried.
func (p *connections) backTo(less int) *zerolog.Event {
	now := p.growth.now
	p.observers.grown(p.mailer, now, p.growth.most)
	p.wake()
	return p.log.Info().Int("connections", now).Int("before", now+less).Str("more_in", time.Until(p.growth.due).Round(time.Second).String())
}

// mayLogIn waits until no other worker is about to log in to the same account. The error says that
// none may, for a while.
func (p *connections) mayLogIn(ctx context.Context, l *logins) error {
	p.mu.Lock()
	loggedIn := p.loggedIn
	p.mu.Unlock()
	wait, err := l.wait(ctx, loggedIn)
	if err != nil {
		return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: err}
	}
	if wait == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logins != l { // the wait is for another password than the one that there is now
		return parkedError()
	}
	why := p.refused
	if why == nil {
		why = &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepAuth, Err: errLoginPause}
	}
	p.pauseLogins(wait, why)
	return why
}

// pauseLogins lets nobody log in for a while.
func (p *connections) pauseLogins(wait time.Duration, why error) {
	p.refused, p.loginDue = why, time.Now().Add(min(wait, loginRecheck))
}

// loginsOf returns l, or what there is now if that is nil.
func (p *connections) loginsOf(l *logins) *logins {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l == nil {
		l = p.logins
	}
	return l
}

// loginEnded tells the other workers what became of a login, and returns the error that the connection could not be opened with.
func (p *connections) loginEnded(ctx context.Context, l *logins, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginPoll*20)
	defer cancel()
	switch {
	case err == nil:
		l.worked(ctx)
	case loginRefused(err):
		wait := l.wasRefused(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.logins != l { // meanwhile there is another password, which it says nothing of
			p.logins.follows(l)
			return parkedError()
		}
		p.loggedIn = false
		p.pauseLogins(wait, fmt.Errorf("%w (the next login is tried %v after this one)", err, wait))
	default:
		l.ended(ctx)
	}
	return err
}

// loginPause is how long no login is tried yet.
func (p *connections) loginPause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(time.Until(p.loginDue), 0)
}
