package outgoing

import (
	"errors"
	"slices"

	"github.com/mailpouch/mailpouch/mailer"
)

// Batch returns b with its messages passed through change, each when Begin is asked for it and has said yes. change is called
// once for a message, also if the backend turns to it anew, and is what a Func is.
//
// The results are in terms of the recipients that a message was given with:
//
//	the recipient                                              has
//	---------------------------------------------------------  -----------------------------------
//	is a recipient of the changed message too                  what the next hop says of it
//	is in Refused of the error of change                       that error
//	is not any more, and others are in its place               no error if one of those was accepted,
//	                                                             else what was said to one of them
//	is not any more                                            no error if the message was accepted
//
// panicked, if not nil, is told of a panic of change, which is the message's error.
func Batch(b mailer.Batch, change func(i int, m *mailer.EmailMessage) (*mailer.EmailMessage, error), panicked func(*PanicError)) mailer.Batch {
	p := &passage{given: b, change: change, panicked: panicked, changed: make([]*changed, len(b.Messages))}
	b.Begin, b.Report = p.begin, p.report
	return b
}

// passage is a batch on its way through a function.
type passage struct {
	given    mailer.Batch
	change   func(i int, m *mailer.EmailMessage) (*mailer.EmailMessage, error)
	panicked func(*PanicError)
	changed  []*changed // nil: not begun, or reported
}

// changed is what became of a message.
type changed struct {
	from    *mailer.EmailMessage // what Begin of the given batch has returned
	message *mailer.EmailMessage
	err     error
	routes  *routes // nil: the recipients are those that were given
}

func (p *passage) begin(i int) (*mailer.EmailMessage, error) {
	m := p.given.Messages[i]
	if p.given.Begin != nil {
		var err error
		if m, err = p.given.Begin(i); err != nil {
			return nil, err
		}
	}
	c := p.changed[i]
	if c == nil || c.from != m {
		c = p.pass(i, m)
		p.changed[i] = c
	}
	return c.message, c.err
}

// pass passes a message through the function.
func (p *passage) pass(i int, m *mailer.EmailMessage) *changed {
	c := &changed{from: m, message: m}
	before, err := recipients(m)
	if err != nil || len(before) == 0 {
		return c // the backend says so
	}
	to, err := guarded(func() (*mailer.EmailMessage, error) { return p.change(i, m) })
	var refused []*mailer.SendError
	if partly := (*mailer.SendError)(nil); to != nil && errors.As(err, &partly) && len(partly.Refused) > 0 {
		refused, err = partly.Refused, nil
	}
	switch {
	case err != nil:
		if e := (*PanicError)(nil); p.panicked != nil && errors.As(err, &e) {
			p.panicked(e)
		}
		c.message, c.err = nil, err
		return c
	case to == nil:
		c.message, c.err = nil, errNothing
		return c
	case to == m && len(refused) == 0:
		return c
	}
	after, err := recipients(to)
	switch {
	case err != nil:
		c.message, c.err = nil, err
	case len(after) == 0 && len(refused) > 0:
		c.message, c.err = nil, &mailer.SendError{Class: classOf(refused), Step: refused[0].Step, Refused: refused}
	case len(after) == 0:
		c.message, c.err = nil, errNobody
	default:
		c.message, c.routes = to, newRoutes(before, after, refused)
	}
	return c
}

var (
	errNothing = errors.New("outgoing: neither a message nor an error")
	errNobody  = errors.New("outgoing: a message that had recipients has none any more")
)

// report reports results in terms of the messages that were given.
func (p *passage) report(group []mailer.Report) {
	cloned := false
	for n, r := range group {
		c := p.changed[r.Index]
		if p.changed[r.Index] = nil; c == nil || c.routes == nil || c.err != nil {
			continue
		}
		if !cloned {
			group, cloned = slices.Clone(group), true
		}
		group[n].Result = c.routes.result(r.Result)
	}
	p.given.Report(group)
}

// recipients are those of a message's envelope.
func recipients(m *mailer.EmailMessage) ([]string, error) {
	if m.FromEmail == "" { // the backend fills it in
		c := *m
		c.FromEmail, m = "nobody@localhost", &c
	}
	e, err := m.Envelope()
	return e.To, err
}
