// Package failover is a backend that sends with others, its members: with the first one that takes mail, or with all that do, by
// their weights.
//
// A message goes on to another member only while nothing of it was accepted: when its member is unavailable (mailer.Unavailable). An
// unknown outcome stays unknown, and a refusal stays one: another server would say the same, or would deliver what the first one
// did not want.
//
// A member that has failed is left alone for a second, and twice as long each time, up to a minute. Then one caller tries
// it. If no member takes mail all of them are tried, for there is nothing to lose.
package failover

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// Config configures a Backend.
type Config struct {
	Name    string   // of the mailer, which has its own share of each member
	Members []Member // at least one

	// Weighted spreads the messages over all members that take mail, by their weights: those of one call in runs that keep
	// their order. Otherwise the first member that takes mail has them.
	Weighted bool

	Health *Health // one of the backend's own if nil
}

// Backend sends with its members. It is used by one goroutine at a time.
type Backend struct {
	cfg    Config
	open   bool   // connections stay open until Close
	opened []bool // which members' were opened by Open, or since
}

// New returns a backend. It opens no connection.
func New(cfg Config) (*Backend, error) {
	if len(cfg.Members) == 0 {
		return nil, errors.New("failover: there are no members")
	}
	seen := map[string]bool{}
	for _, m := range cfg.Members {
		switch {
		case m.Backend == nil:
			return nil, fmt.Errorf("failover: member %s has no backend", m.Name)
		case m.Weight < 1:
			return nil, fmt.Errorf("failover: the weight of member %s is %d, and has to be at least 1", m.Name, m.Weight)
		case seen[m.Name]:
			return nil, fmt.Errorf("failover: there are two members of the name %s", m.Name)
		}
		seen[m.Name] = true
	}
	if cfg.Health == nil {
		cfg.Health = new(Health)
	}
	return &Backend{cfg: cfg, opened: make([]bool, len(cfg.Members))}, nil
}

// Open opens a connection to the first member that allows it.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	if b.open {
		return false, nil
	}
	var failed MembersError
	for i := range b.candidates(0) {
		err := b.openMember(ctx, i)
		if err == nil {
			b.open = true
			return true, nil
		}
		if ctx.Err() != nil {
			return false, err
		}
		failed = append(failed, b.named(i, err))
	}
	return false, failed.sendError()
}

// openMember opens a connection to a member, if none is open.
func (b *Backend) openMember(ctx context.Context, i int) error {
	m := b.cfg.Members[i]
	opened, err := m.Backend.Open(ctx)
	switch {
	case err == nil:
		b.opened[i] = b.opened[i] || opened
		b.cfg.Health.opened(m.Name)
	case ctx.Err() == nil:
		b.cfg.Health.failed(m.Name, err)
	}
	return err
}

// Close closes all connections.
func (b *Backend) Close() error {
	b.open = false
	var all []error
	for i, opened := range b.opened {
		if opened {
			b.opened[i] = false
			all = append(all, b.cfg.Members[i].Backend.Close())
		}
	}
	return errors.Join(all...)
}

// SendMessages sends the messages.
func (b *Backend) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, b, messages)
}

// SendBatch sends the batch. What a member is unavailable for goes to the next one; all other results are reported as they become
// known.
func (b *Backend) SendBatch(ctx context.Context, batch mailer.Batch) {
	for _, r := range b.runs(len(batch.Messages)) {
		run := run{backend: b, batch: batch, left: make([]int, r.messages), failed: map[int]MembersError{}}
		for n := range run.left {
			run.left[n] = r.from + n
		}
		for i := range b.candidates(r.member) {
			if run.send(ctx, i); len(run.left) == 0 {
				break
			}
		}
		run.end()
	}
}

// part is a run of messages and the member that is to have them.
type part struct{ from, messages, member int }

// runs divides messages among the members.
func (b *Backend) runs(messages int) []part {
	if !b.cfg.Weighted {
		return []part{{0, messages, 0}}
	}
	var indexes []int
	var members []Member
	for i, m := range b.cfg.Members {
		if b.cfg.Health.works(m.Name) {
			indexes, members = append(indexes, i), append(members, m)
		}
	}
	if len(members) == 0 {
		return []part{{0, messages, 0}}
	}
	var parts []part
	from := 0
	for n, share := range b.cfg.Health.shares(b.cfg.Name, members, messages) {
		if share > 0 {
			parts = append(parts, part{from, share, indexes[n]})
			from += share
		}
	}
	return parts
}

// candidates yields the members to try, one after the other: first one of them, then those that take mail as far as is known or are
// to be tried again, and if they do not the others.
func (b *Backend) candidates(first int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		members := b.cfg.Members
		tried := make([]bool, len(members))
		may := func(i int) bool { return !tried[i] && b.cfg.Health.try(members[i].Name) }
		each := func(may func(i int) bool) bool {
			for n := range members {
				i := (first + n) % len(members)
				if !b.cfg.Weighted {
					i = n
				}
				if may(i) {
					tried[i] = true
					if !yield(i) {
						return false
					}
				}
			}
			return true
		}
		// With weights one that may be back has no share until it is tried: it goes first.
		if b.cfg.Weighted && !each(func(i int) bool { return !b.cfg.Health.works(members[i].Name) && may(i) }) {
			return
		}
		if each(may) {
			each(func(i int) bool { return !tried[i] })
		}
	}
}

// run is the way of some messages of a batch through the members.
type run struct {
	backend *Backend
	batch   mailer.Batch
	left    []int                // messages to be sent, by their indexes in the batch
	failed  map[int]MembersError // what the members have said of them
}

// send sends what is left with a member.
func (r *run) send(ctx context.Context, i int) {
	b := r.backend
	m := b.cfg.Members[i]
	these := r.left
	if b.open {
		if err := b.openMember(ctx, i); err != nil {
			for _, index := range these {
				r.failed[index] = append(r.failed[index], b.named(i, err))
			}
			return
		}
	}
	r.left = nil
	asked := make([]bool, len(these)) // an error of Begin or Commit is the message's result, whatever its class
	inner := mailer.Batch{Options: r.batch.Options}
	if begin := r.batch.Begin; begin != nil {
		inner.Begin = func(n int) (*mailer.EmailMessage, error) {
			m, err := begin(these[n])
			asked[n] = err != nil
			return m, err
		}
	}
	if commit := r.batch.Commit; commit != nil {
		inner.Commit = func(n int) error {
			err := commit(these[n])
			asked[n] = err != nil
			return err
		}
	}
	for _, index := range these {
		inner.Messages = append(inner.Messages, r.batch.Messages[index])
	}
	var away error // what it has said last, if that is that it takes no mail
	judged := false
	inner.Report = func(group []mailer.Report) {
		known := make([]mailer.Report, 0, len(group))
		for _, one := range group {
			index := these[one.Index]
			switch {
			case asked[one.Index], one.Skipped, mailer.IsBadInput(one.Err), ctx.Err() != nil:
			case mailer.ClassOf(one.Err) == mailer.Unavailable && one.Err != nil:
				away = one.Err
				r.left, r.failed[index] = append(r.left, index), append(r.failed[index], b.named(i, one.Err))
				continue
			case mailer.ClassOf(one.Err) != mailer.Unknown || one.Err == nil:
				away, judged = nil, true
			}
			known = append(known, mailer.Report{Index: index, Result: one.Result})
		}
		if len(known) > 0 {
			r.batch.Report(known)
		}
	}
	mailer.SendBatch(ctx, m.Backend, inner)
	switch {
	case away != nil:
		b.cfg.Health.failed(m.Name, away)
	case judged:
		b.cfg.Health.judged(m.Name)
	}
}

// end reports what no member takes.
func (r *run) end() {
	if len(r.left) == 0 {
		return
	}
	group := make([]mailer.Report, len(r.left))
	for n, index := range r.left {
		group[n] = mailer.Report{Index: index, Result: mailer.Result{Err: r.failed[index].sendError()}}
	}
	r.batch.Report(group)
}

// named is the error of a member.
func (b *Backend) named(i int, err error) *MemberError {
	return &MemberError{Member: b.cfg.Members[i].Name, Err: err}
}

// MemberError is why a member took no mail.
type MemberError struct {
	Member string
	Err    error
}

func (e *MemberError) Error() string { return e.Member + ": " + e.Err.Error() }

// Unwrap returns the member's own error.
func (e *MemberError) Unwrap() error { return e.Err }

// MembersError is why no member took a message.
type MembersError []*MemberError

func (e MembersError) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return "no member takes mail: " + strings.Join(texts, "; ")
}

// Unwrap returns the errors of the members.
func (e MembersError) Unwrap() []error {
	all := make([]error, len(e))
	for i, err := range e {
		all[i] = err
	}
	return all
}

// sendError is the error of a message. Of several members that have said how long to wait the first one counts that is to
// be tried again.
func (e MembersError) sendError() *mailer.SendError {
	s := &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: e}
	for i, one := range e {
		var own *mailer.SendError
		if !errors.As(one, &own) || own.RetryAfter == 0 {
			s.RetryAfter = 0
			break
		}
		if i == 0 || own.RetryAfter < s.RetryAfter {
			s.RetryAfter = own.RetryAfter
		}
	}
	return s
}

var _ mailer.BatchSender = (*Backend)(nil)
