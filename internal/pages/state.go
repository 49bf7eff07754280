package pages

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/intake/httpapi"
	"github.com/mailpouch/mailpouch/intake/smtpd"
	"github.com/mailpouch/mailpouch/internal/webhook"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// State is what a worker has told of its work. Give Observer to the worker, and the
// State to Start. It keeps numbers, and the texts of the newest failures, whatever the
// number of messages. It may be used by several goroutines.
type State struct {
	now     func() time.Time
	started time.Time
	in      intakes

	mu       sync.Mutex
	all      flow
	mailers  map[string]*mailerState
	queues   map[wire.QueueName]*flow // by mailer and queue
	failures []failure                // a ring: the next one goes to failures[next]
	next     int
}

// mailerState is what is known of one mailer's relay.
type mailerState struct {
	flow
	open      int              // connections
	opened    int              // since the start
	allowed   int              // by the relay, if those are fewer than wanted; else 0
	wanted    int              // with allowed
	grown     int              // connections while there is mail, if that number changes by itself; else 0
	most      int              // that these may become
	signs     []string         // keys that sign its messages (DKIM)
	carries   int              // messages that the relay takes over one connection; 0: no limit is known
	rates     *tasks.RateState // nil: it has none
	leased    int              // connections that the worker may have of those of all
	lastBatch int
	batches   int
	batched   int       // messages in them
	heldSince time.Time // zero if it is not
	heldWhy   string
	heldFirst time.Time // when it was last held without having taken a message since
	lastError string
	errorAt   time.Time
	token     tokenState
	override  []string            // who gets its mail in place of the recipients
	only      []string            // who alone may get its mail
	failover  tasks.FailoverState // its members, if it has some
	memberAt  time.Time           // since when they are so
}

// tokenState is what is known of the OAuth 2 token that a mailer logs in with.
type tokenState struct {
	at  time.Time // when the last attempt to get one was; zero if there was none
	end time.Time // of the one there is; zero if that is not known
	why string    // the last attempt failed; "" if it did not
}

// flow is what went through the worker, or through a part of it.
type flow struct {
	rates
	Sent    int `json:"sent"`    // accepted by the relay
	Retried int `json:"retried"` // tries that failed and have another one coming
	Dead    int `json:"dead"`    // dead letters
	Other   int `json:"other"`   // failed silently, cancelled, or without recipients
	Refused int `json:"refused"` // recipients refused though the message was accepted for others
}

// failure is one thing that went wrong.
type failure struct {
	at      time.Time
	out     tasks.Outcome
	refused *mailer.SendError // if it is that of a recipient alone
}

// maxFailures is how many failures are kept.
const maxFailures = 50

// NewState returns the State of a worker that has the default mailer and those with
// these names.
func NewState(names ...string) *State {
	s := &State{
		now: time.Now, started: time.Now(),
		mailers: map[string]*mailerState{"": {}}, queues: map[wire.QueueName]*flow{},
	}
	for _, name := range names {
		s.mailers[name] = new(mailerState)
	}
	s.in.now = func() time.Time { return s.now() }
	return s
}

// NoWorker returns the State of a process that delivers nothing.
func NoWorker() *State {
	s := NewState()
	s.mailers = map[string]*mailerState{}
	return s
}

// Submission returns the hooks of the submission server, from when on the page shows it.
func (s *State) Submission() smtpd.Hooks { return s.in.submission() }

// API returns what hears of the requests to the JSON API, from when on the page shows it.
func (s *State) API() func(httpapi.Request) { return s.in.requests() }

// Webhooks has the page show endpoints of webhooks.
func (s *State) Webhooks(endpoints func() []webhook.EndpointState) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.endpoints = endpoints
}

// Signs notes the keys that sign a mailer's messages (DKIM), "" being the default one.
func (s *State) Signs(name string, keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mailer(name).signs = keys
}

// Recipients notes the rules for who gets a mailer's mail, "" being the default one: EMAIL_OVERRIDE_RECIPIENTS and
// EMAIL_ALLOWED_RECIPIENTS, each empty if there is no such rule.
func (s *State) Recipients(name string, override, only []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mailer(name)
	m.override, m.only = override, only
}

// names are the named mailers.
func (s *State) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.mailers {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Observer is what the worker tells.
func (s *State) Observer() tasks.Observer {
	return tasks.Observer{
		Batch: s.batch, Outcome: s.outcome, Held: s.held, Connections: s.allows, Grown: s.grows, SessionLimit: s.carries, Rate: s.limits, Leased: s.leases,
		Failover: s.members,
	}
}

// Hooks are what the smtp backends of a mailer tell, "" being the default one.
func (s *State) Hooks(name string) *smtp.Hooks {
	return &smtp.Hooks{
		Connected: func(_ context.Context, c smtp.Connected) {
			if c.Err == nil {
				s.connections(name, 1)
			}
		},
		Closed: func(smtp.Closed) { s.connections(name, -1) },
	}
}

// Tokens is the watcher for the OAuth 2 tokens of a mailer.
func (s *State) Tokens(name string) func(oauth.Event) {
	return func(e oauth.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		t := &s.mailer(name).token
		t.at, t.why = s.now(), ""
		switch {
		case e.Err != nil:
			t.why = e.Err.Error()
		case e.NotKept != nil:
			t.end, t.why = e.Expires, "another refresh token cannot be written to its file: "+e.NotKept.Error()
		default:
			t.end = e.Expires
		}
	}
}

// connections counts connections that were opened, or closed.
func (s *State) connections(name string, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mailer(name)
	m.open += more
	m.opened += max(more, 0)
}

// mailer finds a mailer's state. s.mu is held.
func (s *State) mailer(name string) *mailerState {
	m, ok := s.mailers[name]
	if !ok {
		m = new(mailerState)
		s.mailers[name] = m
	}
	return m
}

func (s *State) batch(b tasks.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mailer(b.Mailer)
	if m.lastBatch = b.Size; b.Accepted > 0 {
		m.heldFirst = time.Time{}
	}
	m.batches++
	m.batched += b.Size
}

func (s *State) held(name string, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mailer(name)
	if reason == nil {
		m.heldSince, m.heldWhy = time.Time{}, ""
		return
	}
	// A relay may greet us, so that we try again, and still take nothing.
	if m.heldFirst.IsZero() {
		m.heldFirst = s.now()
	}
	m.heldSince = m.heldFirst
	m.heldWhy = reason.Error()
	m.lastError, m.errorAt = m.heldWhy, s.now()
}

func (s *State) allows(name string, allowed, wanted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mailer(name)
	if m.allowed, m.wanted = allowed, wanted; allowed == wanted {
		m.allowed, m.wanted = 0, 0
	}
}

func (s *State) grows(name string, connections, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.mailer(name); m.grown > 0 || connections < most {
		m.grown, m.most = connections, most
	}
}

func (s *State) carries(name string, messages int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mailer(name).carries = messages
}

func (s *State) members(f tasks.FailoverState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mailer(f.Mailer)
	m.failover, m.memberAt = f, s.now()
}

func (s *State) limits(r tasks.RateState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mailer(r.Mailer).rates = &r
}

func (s *State) leases(name string, connections, _ int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mailer(name).leased = connections
}

func (s *State) outcome(out tasks.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	m := s.mailer(out.Mailer)
	name := wire.QueueName{Mailer: out.Mailer, Queue: out.Queue}
	q, ok := s.queues[name]
	if !ok {
		q = new(flow)
		s.queues[name] = q
	}
	for _, f := range []*flow{&s.all, &m.flow, q} {
		f.count(out, now)
	}
	if out.Err != nil && out.Action != tasks.ActionCancelled {
		m.lastError, m.errorAt = out.Err.Error(), now
		s.fail(failure{at: now, out: out})
	}
	for _, refused := range out.Refused {
		s.fail(failure{at: now, out: out, refused: refused})
	}
}

// fail remembers a failure in the place of the oldest. s.mu is held.
func (s *State) fail(f failure) {
	if len(s.failures) < maxFailures {
		s.failures = append(s.failures, f)
		return
	}
	s.failures[s.next] = f
	s.next = (s.next + 1) % maxFailures
}

// newest returns the failures, the newest first. s.mu is held.
func (s *State) newest() []failure {
	list := slices.Concat(s.failures[s.next:], s.failures[:s.next])
	slices.Reverse(list)
	return list
}

func (f *flow) count(out tasks.Outcome, now time.Time) {
	switch out.Action {
	case tasks.ActionSent:
		f.Sent++
		f.add(now, 1, 0)
	case tasks.ActionRetry:
		f.Retried++
		f.add(now, 0, 1)
	case tasks.ActionDead:
		f.Dead++
		f.add(now, 0, 1)
	case tasks.ActionSilent, tasks.ActionCancelled, tasks.ActionSkipped:
		f.Other++
	case tasks.ActionSentBefore, tasks.ActionForwarded:
	}
	f.Refused += len(out.Refused)
}
