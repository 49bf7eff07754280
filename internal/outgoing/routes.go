package outgoing

import (
	"errors"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// routes are the recipients of a message whose recipients were changed.
type routes struct {
	before  []string            // the message was given with
	kept    map[string]string   // of these, that it still has; by what compares them
	moved   []string            // that it has no more, and nobody refused
	added   int                 // recipients of the changed message that are not in before
	refused []*mailer.SendError // of before, by the function
}

// newRoutes returns nil if nothing has changed.
func newRoutes(before, after []string, refused []*mailer.SendError) *routes {
	if len(refused) == 0 && slices.Equal(before, after) {
		return nil
	}
	r := &routes{before: before, kept: map[string]string{}, refused: refused}
	left, no := map[string]bool{}, map[string]bool{}
	for _, addr := range after {
		left[key(addr)] = true
	}
	for _, e := range refused {
		no[key(e.Recipient)] = true
	}
	for _, addr := range before {
		switch k := key(addr); {
		case no[k]:
		case left[k]:
			r.kept[k] = addr
		default:
			r.moved = append(r.moved, addr)
		}
	}
	for k := range left {
		if _, kept := r.kept[k]; !kept {
			r.added++
		}
	}
	return r
}

// key is what two spellings of a recipient have in common: in an envelope only the case of the domain may differ.
func key(addr string) string {
	at := strings.LastIndexByte(addr, '@')
	return addr[:at+1] + strings.ToLower(addr[at+1:])
}

// result puts the result of the changed message in terms of the one that was given.
func (r *routes) result(of mailer.Result) mailer.Result {
	if of.Skipped {
		return of
	}
	if of.Err != nil {
		of.Err = r.failure(of.Err)
		return of
	}
	kept, others := r.part(of.Refused)
	all := slices.Concat(kept, r.refused)
	if r.added > 0 && len(others) >= r.added { // nobody has it who is in their place
		said := worst(others)
		for _, addr := range r.moved {
			all = append(all, as(said, addr))
		}
	}
	if len(all) == len(r.before) { // whoever has it is not one of them
		of.Reply, of.Refused, of.Err = "", nil, &mailer.SendError{Class: classOf(all), Step: all[0].Step, Refused: all}
		return of
	}
	of.Refused = all
	return of
}

// failure is the error of a message that nobody has.
func (r *routes) failure(err error) error {
	var e *mailer.SendError
	if !errors.As(err, &e) || len(e.Refused) == 0 {
		return err
	}
	kept, others := r.part(e.Refused)
	failure := *e
	if len(others) == 0 {
		failure.Refused = slices.Concat(kept, r.refused)
		return &failure
	}
	// What was said to somebody in their place is said of the message.
	said := worst(others)
	failure = *said
	failure.Class = e.Class
	return &failure
}

// part parts what was said of recipients: of those that the message was given with, and of others.
func (r *routes) part(refused []*mailer.SendError) (kept, others []*mailer.SendError) {
	for _, e := range refused {
		if addr, ok := r.kept[key(e.Recipient)]; ok {
			kept = append(kept, as(e, addr))
		} else {
			others = append(others, e)
		}
	}
	return kept, others
}

// as is an error of another recipient.
func as(e *mailer.SendError, addr string) *mailer.SendError {
	if e.Recipient == addr {
		return e
	}
	c := *e
	c.Recipient = addr
	return &c
}

// worst is the first error that is not for good, since that is tried again, else the first one.
func worst(errs []*mailer.SendError) *mailer.SendError {
	if i := slices.IndexFunc(errs, func(e *mailer.SendError) bool { return e.Class != mailer.Permanent }); i >= 0 {
		return errs[i]
	}
	return errs[0]
}

// classOf is the class of a message that all of its recipients are refused.
func classOf(refused []*mailer.SendError) mailer.Class { return worst(refused).Class }
