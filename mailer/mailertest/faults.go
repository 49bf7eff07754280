package mailertest

import (
	"context"
	"errors"

	"github.com/mailpouch/mailpouch/mailer"
)

// faultChecks are about what goes wrong outside of the message.
func faultChecks() []check {
	return []check{
		{
			name: "cancelled_open",
			rule: "Open with a context that is done opens nothing and is an error",
			run: func(p *probe) {
				opened, err := p.Backend.Open(p.cancelled())
				if opened || err == nil {
					p.failf("Open: %t, %v; want false and an error", opened, err)
				}
				p.isClosed()
			},
		},
		{
			name: "cancelled_send",
			rule: "SendMessages with a context that is done sends nothing, which is an error of each message",
			run: func(p *probe) {
				p.allFail(p.send(p.cancelled(), 0, samples(2)...))
				p.isClosed()
				p.open(true)
				p.allFail(p.send(p.cancelled(), 0, samples(2)...))
				p.close()
				want := p.render(sample(2))
				p.sendAll(sample(2))
				p.arrived(want...)
			},
		},
		{
			name:  "unreachable",
			rule:  "when no connection can be opened each message has an error of the class Unavailable",
			needs: needDown,
			run:   sendUnreachable,
		},
		{
			name:  "refused_recipients",
			rule:  "a message that is accepted for some recipients counts as sent, and its error names the refused ones",
			needs: needRefuses,
			run:   sendRefused,
		},
	}
}

func (p *probe) cancelled() context.Context {
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	return ctx
}

func (p *probe) allFail(errs []error) {
	for i, err := range errs {
		if err == nil {
			p.failf("message %d: no error, want one", i)
		}
	}
}

func sendUnreachable(p *probe) {
	p.Down()
	if opened, err := p.Backend.Open(p.ctx); opened || err == nil {
		p.failf("Open: %t, %v; want false and an error", opened, err)
	} else if c := mailer.ClassOf(err); c != mailer.Unavailable {
		p.failf("Open: an error of the class %v, want %v: %v", c, mailer.Unavailable, err)
	}
	for i, err := range p.send(p.ctx, 0, samples(2)...) {
		if err == nil {
			p.failf("message %d: no error, want one", i)
		} else if c := mailer.ClassOf(err); c != mailer.Unavailable {
			p.failf("message %d: an error of the class %v, want %v: %v", i, c, mailer.Unavailable, err)
		}
	}
	p.close()
}

// sendRefused sends a message that is refused for one recipient, and one that is
// refused for its only recipient.
func sendRefused(p *probe) {
	some := sample(0)
	some.To = append(some.To, p.Refuses)
	none := sample(1)
	none.To = []string{p.Refuses}

	want := p.render(some, sample(2))
	want[0].mail.Envelope.To = want[0].mail.Envelope.To[:1]
	errs := p.send(p.ctx, 2, some, none, sample(2))
	var partly *mailer.SendError
	switch {
	case !errors.As(errs[0], &partly):
		p.failf("refused for one recipient: %v, want a mailer.SendError", errs[0])
	case !partly.Accepted || len(partly.Refused) != 1 || partly.Refused[0].Recipient != p.Refuses:
		p.failf("refused for one recipient: Accepted %t, Refused %v; want true and %s", partly.Accepted, partly.Refused, p.Refuses)
	}
	var whole *mailer.SendError
	if !errors.As(errs[1], &whole) || whole.Accepted {
		p.failf("refused for all recipients: %v, want a mailer.SendError that is not Accepted", errs[1])
	}
	p.noErrors(errs[2:])
	p.arrived(want...)
}
