package mailertest

import (
	"errors"

	"github.com/mailpouch/mailpouch/mailer"
)

// batchChecks are about what becomes of each message of a batch.
func batchChecks() []check {
	return []check{
		{
			name: "large_batch",
			rule: "each message of a large batch is sent, once",
			run: func(p *probe) {
				const many = 300
				want := p.render(samples(many)...)
				p.sendAll(samples(many)...)
				p.connected(1)
				p.arrived(want...)
			},
		},
		{
			name: "nobody_in_batch",
			rule: "a message without recipients is not sent, is not counted and is no failure",
			run: func(p *probe) {
				want := p.render(sample(0), sample(2))
				p.noErrors(p.send(p.ctx, 2, sample(0), unaddressed(1), sample(2), unaddressed(3)))
				p.arrived(want...)
			},
		},
		{
			name: "bad_header",
			rule: "a message with a control character where it could write a header or a command fails with a mailer.BadHeaderError and stops no other",
			run:  sendInjections,
		},
		{
			name: "bad_address",
			rule: "a message with an address that is none fails as bad input and stops no other",
			run: func(p *probe) {
				bad := sample(1)
				bad.To = append(bad.To, "no address")
				want := p.render(sample(0), sample(2))
				errs := p.send(p.ctx, 2, sample(0), bad, sample(2))
				p.noErrors([]error{errs[0], errs[2]})
				if !mailer.IsBadInput(errs[1]) {
					p.failf("the bad message: %v, want an error that mailer.IsBadInput knows", errs[1])
				}
				p.arrived(want...)
			},
		},
		{
			name: "bad_only",
			rule: "after a batch that failed the backend is as open as it was before",
			run: func(p *probe) {
				bad := sample(0)
				bad.Subject = "x\ny"
				p.send(p.ctx, 0, bad)
				p.isClosed()
				p.open(true)
				p.send(p.ctx, 0, bad)
				p.isOpen()
				want := p.render(sample(1))
				p.sendAll(sample(1))
				p.close()
				p.arrived(want...)
			},
		},
	}
}

// sendInjections sends a batch in which every second message is an injection.
func sendInjections(p *probe) {
	bad := injections()
	batch := make([]*mailer.EmailMessage, 0, 2*len(bad)+1)
	good := samples(len(bad) + 1)
	for i, f := range bad {
		batch = append(batch, good[i], f.sample)
	}
	batch = append(batch, good[len(bad)])

	want := p.render(good...)
	errs := p.send(p.ctx, len(good), batch...)
	for i, f := range bad {
		if err := errs[2*i]; err != nil {
			p.failf("the good message %d: %v", 2*i, err)
		}
		if header := new(mailer.BadHeaderError); !errors.As(errs[2*i+1], &header) {
			p.failf("the message %d with a bad %s: %v, want a mailer.BadHeaderError", 2*i+1, f.field, errs[2*i+1])
		}
	}
	p.arrived(want...)
}
