package mailertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mailpouch/mailpouch/mailer"
)

// probe takes a backend through its steps and notes every breach of the contract.
type probe struct {
	Harness
	ctx      context.Context // of the subtest
	failures []string
}

func (p *probe) failf(format string, args ...any) {
	p.failures = append(p.failures, fmt.Sprintf(format, args...))
}

// open opens the backend. want is whether it has to report that it did.
func (p *probe) open(want bool) {
	opened, err := p.Backend.Open(p.ctx)
	if opened != want || err != nil {
		p.failf("Open: %t, %v; want %t, nil", opened, err, want)
	}
}

func (p *probe) close() {
	if err := p.Backend.Close(); err != nil {
		p.failf("Close: %v", err)
	}
}

// isClosed checks that the backend was left closed, and leaves it so.
func (p *probe) isClosed() {
	opened, err := p.Backend.Open(p.ctx)
	if err != nil {
		p.failf("Open: %v", err)
	} else if !opened {
		p.failf("it was left open")
	}
	p.close()
}

// isOpen checks that the backend was left open, and leaves it so.
func (p *probe) isOpen() {
	opened, err := p.Backend.Open(p.ctx)
	if err != nil {
		p.failf("Open: %v", err)
	} else if opened {
		p.failf("it was left closed")
	}
}

// sendAll sends messages that must all be accepted.
func (p *probe) sendAll(messages ...*mailer.EmailMessage) {
	for i, err := range p.send(p.ctx, len(messages), messages...) {
		if err != nil {
			p.failf("message %d of %d: %v", i, len(messages), err)
		}
	}
}

// send sends messages of which so many must be accepted, and returns the error of
// each one.
func (p *probe) send(ctx context.Context, want int, messages ...*mailer.EmailMessage) []error {
	sent, err := p.Backend.SendMessages(ctx, messages)
	if sent != want {
		p.failf("SendMessages of %d messages: sent %d, want %d (error: %v)", len(messages), sent, want, err)
	}
	each := make([]error, len(messages))
	if err == nil {
		return each
	}
	var errs mailer.SendErrors
	if !errors.As(err, &errs) {
		p.failf("SendMessages: the error is a %T, want a mailer.SendErrors: %v", err, err)
	} else if len(errs) != len(messages) {
		p.failf("SendMessages of %d messages: %d errors, want one for each message", len(messages), len(errs))
	} else if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		p.failf("SendMessages: an error that has no errors, want nil")
	}
	for i := range each {
		each[i] = mailer.ErrorAt(err, i)
	}
	return each
}

// connected compares how many connections were opened.
func (p *probe) connected(want int) {
	if p.Connections == nil {
		return
	}
	if got := p.Connections(); got != want {
		p.failf("%d connections were opened, want %d", got, want)
	}
}

// rendered is a message as it has to arrive, with LF line ends.
type rendered struct {
	name string
	mail Mail
	some bool // it goes to some of its recipients only
}

// render renders messages, before a backend or a check can change them.
func (p *probe) render(messages ...*mailer.EmailMessage) []rendered {
	all := make([]rendered, 0, len(messages))
	for _, m := range messages {
		var data bytes.Buffer
		write := m.WriteTo
		if p.Text {
			write = m.WriteText
		}
		_, err := write(&data)
		envelope, envelopeErr := m.Envelope()
		if err := errors.Join(err, envelopeErr); err != nil {
			p.failf("a message of this suite is bad: %v", err)
		}
		all = append(all, rendered{
			name: m.Subject, mail: Mail{Envelope: envelope, Data: withLF(data.Bytes()), Parts: partsOf(m)}, some: m.OnlyTo() != nil,
		})
	}
	return all
}

// arrived compares everything that was received with what had to arrive.
func (p *probe) arrived(want ...rendered) {
	if p.Received == nil {
		return
	}
	got := slices.Clone(p.Received())
	for i := range got {
		got[i].Data = withLF(got[i].Data)
	}
	for _, w := range want {
		n := len(got)
		got = slices.DeleteFunc(got, func(m Mail) bool { return p.same(m, w) })
		switch n - len(got) {
		case 0:
			p.failf("%q did not arrive as it was sent", w.name)
		case 1:
		default:
			p.failf("%q arrived %d times", w.name, n-len(got))
		}
	}
	for _, m := range got {
		p.failf("this arrived though it was not sent so: from %q to %q:\n%.1000s", m.Envelope.From, m.Envelope.To, m.shown())
	}
}

func (p *probe) same(got Mail, want rendered) bool {
	if p.Parts {
		got.Envelope.From = want.mail.Envelope.From
		return sameParts(got.Parts, want.mail.Parts, want.some) && (p.NoEnvelope || sameEnvelope(got.Envelope, want.mail.Envelope))
	}
	return sameData(got.Data, want.mail.Data) && (p.NoEnvelope || sameEnvelope(got.Envelope, want.mail.Envelope))
}

func sameEnvelope(got, want mailer.Envelope) bool {
	return got.From == want.From && slices.Equal(slices.Sorted(slices.Values(got.To)), slices.Sorted(slices.Values(want.To)))
}

// sameData ignores trace fields before the message (RFC 5321, 4.4).
func sameData(got, want []byte) bool {
	trace, ok := bytes.CutSuffix(got, want)
	if !ok || len(trace) == 0 {
		return ok
	}
	return bytes.HasSuffix(trace, []byte("\n")) && !bytes.HasPrefix(trace, []byte("\n")) && !bytes.Contains(trace, []byte("\n\n"))
}

func (p *probe) noErrors(errs []error) {
	for i, err := range errs {
		if err != nil {
			p.failf("message %d: %v, want no error", i, err)
		}
	}
}
