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
				want := p.pack(letters(many)...)
				p.sendAll(letters(many)...)
				p.connected(1)
				p.arrived(want...)
			},
		},
		{
			name: "nobody_in_batch",
			rule: "a message without recipients is not sent, is not counted and is no failure",
			run: func(p *probe) {
				want := p.pack(letter(0), letter(2))
				p.noErrors(p.send(p.ctx, 2, letter(0), unaddressed(1), letter(2), unaddressed(3)))
				p.arrived(want...)
			},
		},
		{
			name: "bad_header",
			rule: "a message with a control character where it could write a header or a command fails with a mailer.BadHeaderError and stops no other",
			run:  sendForgeries,
		},
		{
			name: "bad_address",
			rule: "a message with an address that is none fails as bad input and stops no other",
			run: func(p *probe) {
				bad := letter(1)
				bad.To = append(bad.To, "no address")
				want := p.pack(letter(0), letter(2))
				errs := p.send(p.ctx, 2, letter(0), bad, letter(2))
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
				bad := letter(0)
				bad.Subject = "x\ny"
				p.send(p.ctx, 0, bad)
				p.isClosed()
				p.open(true)
				p.send(p.ctx, 0, bad)
				p.isOpen()
				want := p.pack(letter(1))
				p.sendAll(letter(1))
				p.close()
				p.arrived(want...)
			},
		},
	}
}

// sendForgeries sends a batch in which every second message is a forgery.
func sendForgeries(p *probe) {
	bad := forgeries()
	batch := make([]*mailer.EmailMessage, 0, 2*len(bad)+1)
	good := letters(len(bad) + 1)
	for i, f := range bad {
		batch = append(batch, good[i], f.letter)
	}
	batch = append(batch, good[len(bad)])

	want := p.pack(good...)
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

func (p *probe) noErrors(errs []error) {
	for i, err := range errs {
		if err != nil {
			p.failf("message %d: %v, want no error", i, err)
		}
	}
}
