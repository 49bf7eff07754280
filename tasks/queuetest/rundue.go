package queuetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// Action is what RunDue did with a message, in the words of tasks.Action.
type Action string

// The actions.
const (
	ActionSent    Action = "sent"            // the backend has accepted it
	ActionSkipped Action = "skipped"         // it has no recipients
	ActionSilent  Action = "failed silently" // its one try has failed, and it was handed over so (FailSilently)
	ActionRetry   Action = "retry"
	ActionDead    Action = "dead letter"
	ActionHeld    Action = "held" // the relay takes no mail, or wants none for a time (RetryAfter): the message waits as before, no try spent
)

// Outcome is how one try of a message has ended.
type Outcome struct {
	Action  Action
	TaskID  string
	Message *mailer.EmailMessage
	Mailer  string // "" for the default one
	Try     int    // from 1

	Reply   string              // the relay's, to an accepted message
	Refused []*mailer.SendError // recipients refused though it was accepted for others
	Err     error               // why it failed; mailer.ClassOf tells its class
	RetryIn time.Duration       // for ActionRetry
}

// RunDue does what a worker would have done by now, once: it sends what is due, decides what becomes of it, and makes dead letters of
// what has expired. What is put off waits for the RunDue of a later time. The outcomes are in the order in which the messages
// were due, those of recipients that were refused alone at the end.
//
// now may be any time, as the future for messages that are to wait. The error is that of Config.Connect; what other
// mailers have is sent then.
func (q *Queue) RunDue(ctx context.Context, now time.Time) ([]Outcome, error) {
	r := &round{queue: q, now: now, policy: deliverypolicy.Policy{RetryMin: q.cfg.RetryMin, RetryMax: q.cfg.RetryMax, MaxAge: q.cfg.MaxAge}}
	due := r.begin()
	defer r.putBack(due)
	byMailer := map[string][]*task{}
	for _, t := range due {
		byMailer[t.Options.Using] = append(byMailer[t.Options.Using], t)
	}
	errs := make([]error, 0, len(byMailer))
	for _, name := range slices.Sorted(maps.Keys(byMailer)) {
		errs = append(errs, r.send(ctx, name, byMailer[name]))
	}
	return r.end(due), errors.Join(errs...)
}

// round is one RunDue.
type round struct {
	queue    *Queue
	now      time.Time
	policy   deliverypolicy.Policy
	outcomes map[*task]Outcome
	refused  []*task // tasks of recipients that were refused for good
}

// begin takes what is due, the oldest first, and what has expired.
func (r *round) begin() []*task {
	s := r.queue.store
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(r.now)
	r.outcomes = map[*task]Outcome{}
	var due []*task
	for _, t := range s.tasks {
		expired := r.policy.Expired(t.attempt(r.now, false), 0) != nil
		ready := !t.Due.After(r.now) && !s.rests[t.Options.Using].After(r.now)
		if t.State == Waiting && (expired || ready && !s.isPaused(t)) {
			t.State = OnWire
			due = append(due, t)
		}
	}
	slices.SortStableFunc(due, func(a, b *task) int { return a.Due.Compare(b.Due) })
	return due
}

// putBack lets wait what has not been sent after all.
func (r *round) putBack(due []*task) {
	s := r.queue.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range due {
		if t.State == OnWire {
			t.State = Waiting
		}
	}
}

// end returns the outcomes.
func (r *round) end(due []*task) []Outcome {
	var outcomes []Outcome
	for _, t := range append(due, r.refused...) {
		if o, ok := r.outcomes[t]; ok {
			outcomes = append(outcomes, o)
		}
	}
	return outcomes
}

// send sends what is due of one mailer.
func (r *round) send(ctx context.Context, name string, due []*task) error {
	messages := make([]*mailer.EmailMessage, len(due))
	for i, t := range due {
		p, err := t.payload()
		if err != nil {
			return err
		}
		if messages[i] = p.Message; len(p.Recipients) > 0 {
			messages[i] = p.Message.WithRecipients(p.Recipients)
		}
	}
	backend, err := r.connect(name)
	if err != nil {
		return err
	}
	results := make([]mailer.Result, len(due))
	mailer.SendBatch(ctx, backend, mailer.Batch{
		Messages: messages,
		Begin: func(i int) (*mailer.EmailMessage, error) {
			if reason := r.policy.Expired(due[i].attempt(r.now, false), 0); reason != nil {
				return nil, &deliverypolicy.ExpiredError{Reason: reason}
			}
			return messages[i], nil
		},
		Report: func(group []mailer.Report) {
			for _, report := range group {
				results[report.Index] = report.Result
			}
		},
	})
	// Where others pass it is not the relay that takes no mail.
	passes := slices.ContainsFunc(results, func(r mailer.Result) bool { return r.Err == nil && !r.Skipped })
	for i, t := range due {
		result := results[i]
		if result.Err != nil && passes && mailer.ClassOf(result.Err) == mailer.Unavailable {
			result.Err = deliverypolicy.OfMessage(result.Err)
		}
		r.settle(t, messages[i], redact.Result(result, messages[i]))
	}
	return nil
}

func (r *round) connect(name string) (mailer.Backend, error) {
	if r.queue.cfg.Connect == nil {
		return accepting{}, nil
	}
	return r.queue.cfg.Connect(name)
}

// accepting is a relay that takes everything.
type accepting struct{}

func (accepting) Open(context.Context) (bool, error) { return false, nil }
func (accepting) Close() error                       { return nil }
func (accepting) SendMessages(_ context.Context, messages []*mailer.EmailMessage) (int, error) {
	return len(messages), nil
}

// settle does what the policy says.
func (r *round) settle(t *task, m *mailer.EmailMessage, result mailer.Result) {
	s := r.queue.store
	s.mu.Lock()
	defer s.mu.Unlock()
	v := r.policy.Decide(result.Err, t.attempt(r.now, m.FailSilently))
	o := Outcome{
		TaskID: t.ID, Message: m, Mailer: t.Options.Using, Try: t.Tries + 1,
		Reply: result.Reply, Refused: result.Refused, Err: v.Reason, RetryIn: v.Delay,
	}
	if v.Reason != nil {
		t.Reason = redact.Reason(v.Reason.Error(), true)
	}
	switch v.Action {
	case deliverypolicy.Hold:
		o.Action, t.State = ActionHeld, Waiting
		if until := r.now.Add(deliverypolicy.HoldAfter(result.Err)); until.After(s.rests[t.Options.Using]) {
			s.rests[t.Options.Using] = until
		}
	case deliverypolicy.Retry:
		o.Action, t.State, t.Due, t.inDoubt = ActionRetry, Waiting, r.now.Add(v.Delay), deliverypolicy.InDoubt(result.Err)
		t.Tries++
	case deliverypolicy.DeadLetter:
		o.Action, t.State = ActionDead, Dead
		if !errors.As(result.Err, new(*deliverypolicy.ExpiredError)) {
			t.Tries++
		}
	case deliverypolicy.Complete, deliverypolicy.Drop:
		o.Action, t.State, t.Reply, t.until = ActionSent, Sent, result.Reply, r.now.Add(handover.Kept(t.Options, s.window))
		t.Tries++
		switch {
		case v.Reason != nil:
			o.Action = ActionSilent
		case result.Skipped:
			o.Action = ActionSkipped
		}
		r.keepRefused(t, m, result.Refused)
		s.forget(r.now)
	}
	r.outcomes[t] = o
}

// keepRefused makes tasks of the recipients that were refused alone. The store's mu is held.
func (r *round) keepRefused(t *task, m *mailer.EmailMessage, refused []*mailer.SendError) {
	later, never := deliverypolicy.Remainders(refused, m.FailSilently)
	if rest := r.remainder(t, deliverypolicy.SuffixLater, later); rest != nil {
		rest.Due, rest.Reason = r.now.Add(r.policy.DelayAfter(0, deliverypolicy.RefusedReason(later))), redact.Reason(deliverypolicy.RefusedReason(later).Error(), true)
	}
	if rest := r.remainder(t, deliverypolicy.SuffixNever, never); rest != nil {
		reason := deliverypolicy.RefusedReason(never)
		rest.State, rest.Reason = Dead, redact.Reason(reason.Error(), true)
		r.refused = append(r.refused, rest)
		r.outcomes[rest] = Outcome{Action: ActionDead, TaskID: rest.ID, Message: m, Mailer: t.Options.Using, Try: 1, Err: reason}
	}
}

// remainder makes a task of those recipients of a message, if there are any.
func (r *round) remainder(t *task, suffix string, of []*mailer.SendError) *task {
	if len(of) == 0 {
		return nil
	}
	p, err := t.payload()
	if err != nil {
		return nil
	}
	p.Recipients = nil
	for _, e := range of {
		p.Recipients = append(p.Recipients, e.Recipient)
	}
	s, o := r.queue.store, t.Options
	o.IdempotencyKey, o.Unique, o.Retention = "", 0, 0
	if s.put(p.BaseID(t.ID)+suffix, p, o, r.now) != nil {
		return nil
	}
	return s.tasks[len(s.tasks)-1]
}
