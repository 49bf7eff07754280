package mailertest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// fault is one way in which a reference backend breaks the contract.
type fault string

const (
	noFault           fault = ""
	opensAlways       fault = "Open always says that it opened"
	opensAgain        fault = "Open makes a second connection"
	closeNotOpenFails fault = "Close fails if the backend is not open"
	closeTwiceFails   fault = "Close fails the second time"
	closeDeadFails    fault = "Close fails if the connection is dead"
	opensOnlyOnce     fault = "it cannot be opened again"
	leavesOpen        fault = "SendMessages does not close what it opened"
	closesOpen        fault = "SendMessages closes what it did not open"
	dialsPerMessage   fault = "a connection for each message"
	dialsForNothing   fault = "opens for an empty batch"
	dialsForNobody    fault = "opens for a message without recipients"
	sendsNobody       fault = "sends a message without recipients"
	countsNobody      fault = "counts a message without recipients"
	failsNobody       fault = "fails a message without recipients"
	firstBatchOnly    fault = "drops what is more than 100 messages"
	sendsTwice        fault = "sends a message twice"
	stopsAtFailure    fault = "stops at the first bad message"
	plainError        fault = "returns the first error instead of SendErrors"
	shortErrors       fault = "returns SendErrors without the trailing nils"
	shiftedErrors     fault = "returns SendErrors that are not aligned"
	emptyErrors       fault = "returns SendErrors though all is well"
	vagueError        fault = "a bad message fails with an error of no type"
	countsBad         fault = "counts a bad message"
	trustsFileNames   fault = "does not check the names of attachments"
	openAfterFailure  fault = "stays open after a batch that failed"
	reportsTwice      fault = "reports a message twice"
	reportsSome       fault = "does not report a message without recipients"
	reportsUnskipped  fault = "does not say Skipped"
	reportsNoError    fault = "reports no errors"
	reportsAlien      fault = "reports a message that is not there"
	groupsForget      fault = "reports of several messages only the first ones"
	batchLeavesOpen   fault = "SendBatch does not close what it opened"
	ignoresBegin      fault = "does not ask Begin"
	sendsRefused      fault = "sends a message that Begin refuses"
	skipsRefused      fault = "says of a message that Begin refuses that it is skipped"
	rewordsRefused    fault = "replaces the error of Begin"
	stopsAtRefused    fault = "stops when Begin refuses a message"
	opensForRefused   fault = "stays open when Begin refuses a message"
	asksTwice         fault = "asks Begin twice"
	asksBackwards     fault = "asks Begin from the last message to the first"
	asksSome          fault = "asks Begin for the first message only"
	asksLate          fault = "asks Begin when the message is sent"
	asksTooLate       fault = "asks Begin when the message is reported"
	asksAtOnce        fault = "asks Begin for all messages at once"
	ignoresChange     fault = "sends what it was given, whatever Begin returns"
	trustsChange      fault = "does not check what Begin returns"
	ignoresCommit     fault = "does not ask Commit"
	sendsCommitted    fault = "sends a message that Commit refuses"
	rewordsCommit     fault = "replaces the error of Commit"
	commitsFirst      fault = "asks Commit before Begin"
	commitsLate       fault = "asks Commit when the message is sent"
	commitsAtOnce     fault = "asks Commit for all messages at once"
	ignoresDoneOpen   fault = "Open with a context that is done opens"
	ignoresDone       fault = "SendMessages with a context that is done sends"
	swallowsDone      fault = "SendMessages with a context that is done says nothing"
	downSilently      fault = "an unreachable next hop is no error"
	downPermanent     fault = "an unreachable next hop is the message's fault"
	hidesRefused      fault = "a refused recipient is no error"
	namelessRefused   fault = "a refused recipient is not named"
	doesNotCountSome  fault = "a message for some recipients is not counted"
	countsRefused     fault = "a message for no recipient is counted"
	breaksCharset     fault = "names a wrong charset"
	showsBcc          fault = "shows Bcc"
	dropsBcc          fault = "does not deliver to Bcc"
	noDefaults        fault = "does not fill in defaults"
	fillsInCallers    fault = "fills in defaults in the caller's message"
	sortsBatch        fault = "reorders the caller's slice"
	changesRecipients fault = "changes the caller's recipients"
	keepsMessage      fault = "renders a message after the call"
	ignoresOnlyTo     fault = "sends a message to all it names when it is for some"
	takesRaw          fault = "takes a finished message though it has no fields for it"
	badTrace          fault = "puts text before the header"
)

const refusedAddress = "refused@example.net"

// reference is a backend that keeps the contract, but for one fault.
type reference struct {
	fault fault

	open, dead, down, wasOpened bool
	connections                 int
	parts                       bool // it delivers Parts
	mails                       []Mail
	late                        []func() // renders what keepsMessage kept
}

func newReference(f fault) (*reference, Harness) {
	b := &reference{fault: f, parts: f == takesRaw || partFaults()[f] != nil}
	return b, Harness{
		Backend:     b,
		Parts:       b.parts,
		Received:    func() []Mail { b.flush(); return slices.Clone(b.mails) },
		Connections: func() int { return b.connections },
		Break:       func() { b.dead = true },
		Down:        func() { b.down = true },
		Refuses:     refusedAddress,
	}
}

// newPartsReference is a reference without fault that delivers Parts.
func newPartsReference() Harness {
	b, h := newReference(noFault)
	b.parts, h.Parts = true, true
	return h
}

// partFaults are what a reference may do wrong with each of the Parts.
func partFaults() map[fault]func(p *Parts) {
	return map[fault]func(p *Parts){
		"loses the name of From":            func(p *Parts) { p.From = p.From[strings.LastIndexByte(p.From, '<')+1 : len(p.From)-1] },
		"does not show the second To":       func(p *Parts) { p.To = p.To[:min(len(p.To), 1)] },
		"does not show Cc":                  func(p *Parts) { p.Cc = nil },
		"shows Bcc in Cc":                   func(p *Parts) { p.Cc = append(p.Cc, "hidden@secret.example") },
		"loses Reply-To":                    func(p *Parts) { p.ReplyTo = nil },
		"changes the subject":               func(p *Parts) { p.Subject = "Re: " + p.Subject },
		"changes the text":                  func(p *Parts) { p.Text = "> " + p.Text },
		"loses the HTML":                    func(p *Parts) { p.HTML = "" },
		"loses headers":                     func(p *Parts) { p.Headers = nil },
		"makes another Message-ID":          func(p *Parts) { p.MessageID = "<other@example.org>" },
		"loses an attachment":               func(p *Parts) { p.Attachments = p.Attachments[:max(len(p.Attachments)-1, 0)] },
		"loses the content of attachments":  func(p *Parts) { clearEach(p, func(a *mailer.Attachment) { a.Content = nil }) },
		"loses the names of attachments":    func(p *Parts) { clearEach(p, func(a *mailer.Attachment) { a.Filename = "" }) },
		"loses the types of attachments":    func(p *Parts) { clearEach(p, func(a *mailer.Attachment) { a.Mimetype = "" }) },
		"loses the Content-IDs of pictures": func(p *Parts) { clearEach(p, func(a *mailer.Attachment) { a.ContentID = "" }) },
	}
}

func clearEach(p *Parts, change func(a *mailer.Attachment)) {
	for i := range p.Attachments {
		change(&p.Attachments[i])
	}
}

func (b *reference) has(f fault) bool { return b.fault == f }

func (b *reference) Open(ctx context.Context) (bool, error) {
	if b.open {
		if b.has(opensAgain) {
			b.connections++
		}
		return b.has(opensAlways), nil
	}
	if ctx.Err() != nil && !b.has(ignoresDoneOpen) {
		return false, &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: ctx.Err()}
	}
	if b.down {
		return b.dialDown()
	}
	if b.wasOpened && b.has(opensOnlyOnce) {
		return false, errors.New("used up")
	}
	b.open, b.wasOpened, b.dead = true, true, false
	b.connections++
	return true, nil
}

func (b *reference) dialDown() (bool, error) {
	switch b.fault {
	case downSilently:
		return false, nil
	case downPermanent:
		return false, &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepConnect}
	default:
		return false, &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect}
	}
}

func (b *reference) Close() error {
	var err error
	switch {
	case !b.wasOpened && b.has(closeNotOpenFails),
		b.wasOpened && !b.open && b.has(closeTwiceFails),
		b.dead && b.has(closeDeadFails):
		err = errors.New("cannot close")
	}
	b.open = false
	b.flush()
	return err
}

func (b *reference) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	sent, err := mailer.Collect(ctx, plainly{b}, messages)
	if b.has(sortsBatch) {
		slices.Reverse(messages)
	}
	var errs mailer.SendErrors
	errors.As(err, &errs)
	switch {
	case err == nil && b.has(emptyErrors):
		return sent, make(mailer.SendErrors, len(messages))
	case err == nil:
		return sent, nil
	case b.has(plainError):
		return sent, errs.Unwrap()[0]
	case b.has(shortErrors):
		return sent, mailer.SendErrors(errs.Unwrap())
	case b.has(shiftedErrors):
		return sent, append(errs[1:], errs[0])
	}
	return sent, err
}

// plainly sends without the faults of SendBatch.
type plainly struct{ b *reference }

func (p plainly) SendBatch(ctx context.Context, batch mailer.Batch) { p.b.send(ctx, batch) }

func (b *reference) SendBatch(ctx context.Context, batch mailer.Batch) {
	var known []mailer.Report
	flush := func() {
		if b.has(groupsForget) {
			known = known[:min(1, len(known))]
		}
		batch.Report(known)
		known = nil
	}
	if b.has(reportsAlien) {
		batch.Report([]mailer.Report{{Index: len(batch.Messages)}})
	}
	open := b.open
	b.send(ctx, mailer.Batch{Messages: batch.Messages, Begin: b.begin(batch), Commit: b.commit(batch), Report: func(group []mailer.Report) {
		r := group[0]
		switch {
		case r.Skipped && b.has(reportsSome):
			return
		case b.has(reportsUnskipped):
			r.Skipped = false
		case b.has(reportsNoError):
			r.Err = nil
		case b.has(reportsTwice):
			known = append(known, r)
		}
		if known = append(known, r); len(known) > 1 {
			flush()
		}
		if b.has(asksTooLate) {
			flush()
			_, _ = batch.Begin(r.Index)
		}
	}})
	flush()
	if b.has(batchLeavesOpen) && !open && len(batch.Messages) > 0 {
		b.open = true
	}
}

// begin is the Begin of a batch, with what is wrong about asking it.
func (b *reference) begin(batch mailer.Batch) func(i int) (*mailer.EmailMessage, error) {
	if batch.Begin == nil {
		return nil
	}
	asked, sent, no := false, slices.Clone(batch.Messages), make([]error, len(batch.Messages))
	ask := func(i int) { sent[i], no[i] = batch.Begin(i) }
	return func(i int) (*mailer.EmailMessage, error) {
		first := !asked
		asked = true
		switch {
		case b.has(ignoresBegin), b.has(asksSome) && !first, b.has(asksTooLate):
			return sent[i], nil
		case b.has(asksAtOnce) || b.has(asksBackwards):
			for n := 0; first && n < len(no); n++ {
				if b.has(asksBackwards) {
					ask(len(no) - 1 - n)
				} else {
					ask(n)
				}
			}
		case b.has(asksTwice):
			ask(i)
			ask(i)
		default:
			ask(i)
		}
		return sent[i], no[i]
	}
}

// commit is the Commit of a batch, with what is wrong about asking it.
func (b *reference) commit(batch mailer.Batch) func(i int) error {
	if batch.Commit == nil || b.has(ignoresCommit) {
		return nil
	}
	asked := false
	return func(i int) error {
		if b.has(commitsAtOnce) && !asked {
			for n := range batch.Messages {
				_ = batch.Commit(n)
			}
		}
		asked = true
		err := batch.Commit(i)
		switch {
		case b.has(sendsCommitted):
			return nil
		case err != nil && b.has(rewordsCommit):
			return errors.New("refused")
		}
		return err
	}
}

// send is the body of SendMessages and SendBatch.
func (b *reference) send(ctx context.Context, batch mailer.Batch) {
	report := func(i int, r mailer.Result) { batch.Report([]mailer.Report{{Index: i, Result: r}}) }
	wasOpen, failed, refused := b.open, false, false
	if len(batch.Messages) == 0 && b.has(dialsForNothing) {
		_, _ = b.Open(ctx)
	}
	for i, m := range batch.Messages {
		if failed && b.has(stopsAtFailure) || refused && b.has(stopsAtRefused) {
			report(i, mailer.Result{Err: errors.New("not tried")})
			continue
		}
		begin := func() (*mailer.EmailMessage, error) {
			if batch.Begin == nil {
				return m, nil
			}
			sent, err := batch.Begin(i)
			refused = refused || err != nil
			return sent, err
		}
		commit := func() error {
			if batch.Commit == nil {
				return nil
			}
			err := batch.Commit(i)
			refused = refused || err != nil
			return err
		}
		r := b.one(ctx, m, begin, commit)
		if b.has(firstBatchOnly) && i >= 100 {
			b.mails = b.mails[:len(b.mails)-1]
		}
		failed = failed || r.Err != nil
		report(i, r)
		if b.has(dialsPerMessage) && b.open && !wasOpen {
			_ = b.Close()
		}
	}
	switch {
	case failed && b.has(openAfterFailure), refused && b.has(opensForRefused):
		b.open = true
	case !wasOpen && b.open && !b.has(leavesOpen), wasOpen && b.has(closesOpen):
		_ = b.Close()
	}
}

func (b *reference) one(ctx context.Context, given *mailer.EmailMessage, begin func() (*mailer.EmailMessage, error), commit func() error) mailer.Result {
	m := b.complete(given)
	if err := b.validate(m); err != nil {
		switch b.fault {
		case countsBad:
			return mailer.Result{}
		case vagueError:
			err = errors.New(err.Error())
		}
		return mailer.Result{Err: err}
	}
	envelope, _ := m.Envelope()
	if len(envelope.To) == 0 && !b.has(sendsNobody) {
		return b.nobody(ctx)
	}
	if ctx.Err() != nil && !b.has(ignoresDone) {
		if b.has(swallowsDone) {
			return mailer.Result{Skipped: true}
		}
		return mailer.Result{Err: ctx.Err()}
	}
	if _, err := b.Open(context.WithoutCancel(ctx)); err != nil {
		return mailer.Result{Err: err}
	}
	if b.has(commitsFirst) {
		_ = commit()
	}
	if b.has(commitsLate) {
		r := b.deliver(m, envelope)
		_ = commit()
		return r
	}
	if b.has(asksLate) {
		r := b.deliver(m, envelope)
		_, _ = begin()
		return r
	}
	sent, err := begin()
	if err != nil && !b.has(sendsRefused) {
		switch b.fault {
		case skipsRefused:
			return mailer.Result{Skipped: true}
		case rewordsRefused:
			err = errors.New("refused")
		}
		return mailer.Result{Err: err}
	}
	if err == nil && sent != given && !b.has(ignoresChange) {
		m = b.complete(sent)
		if envelope, err = m.Envelope(); err == nil && !b.has(trustsChange) {
			err = m.Validate()
		}
		if err != nil {
			return mailer.Result{Err: err}
		}
	}
	if err := commit(); err != nil {
		return mailer.Result{Err: err}
	}
	if b.parts && len(m.Raw) > 0 && !b.has(takesRaw) {
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: errors.New("no parts")}}
	}
	return b.deliver(m, envelope)
}

// complete fills in defaults, in m itself if that is the fault.
func (b *reference) complete(m *mailer.EmailMessage) *mailer.EmailMessage {
	c := m.WithDefaults(mailer.Defaults{})
	switch b.fault {
	case noDefaults:
		return m
	case fillsInCallers:
		*m = *c
	case changesRecipients:
		if len(m.To) > 1 {
			m.To[0] = "changed@example.net"
		}
	}
	return c
}

func (b *reference) validate(m *mailer.EmailMessage) error {
	if b.has(trustsFileNames) {
		c := *m
		c.Attachments = nil
		m = &c
	}
	return m.Validate()
}

func (b *reference) nobody(ctx context.Context) mailer.Result {
	switch b.fault {
	case dialsForNobody:
		_, _ = b.Open(ctx)
	case countsNobody:
		return mailer.Result{}
	case failsNobody:
		return mailer.Result{Err: errors.New("no recipients")}
	}
	return mailer.Result{Skipped: true}
}

func (b *reference) deliver(m *mailer.EmailMessage, envelope mailer.Envelope) mailer.Result {
	all := len(envelope.To)
	envelope.To = slices.DeleteFunc(envelope.To, func(a string) bool { return a == refusedAddress })
	r := mailer.Result{}
	if refused := len(envelope.To) < all; refused {
		r = b.refuse(envelope)
	}
	if len(envelope.To) == 0 && all > 0 {
		return r
	}
	if b.has(ignoresOnlyTo) {
		whole, _ := m.WithRecipients(allOf(m)).Envelope()
		envelope.To = whole.To
	}
	if b.has(dropsBcc) {
		envelope.To = envelope.To[:min(len(envelope.To), len(m.To))]
	}
	for range b.copies() {
		b.put(m, envelope)
	}
	return r
}

// allOf are the addresses that a message names.
func allOf(m *mailer.EmailMessage) []string {
	all, _ := (&mailer.EmailMessage{FromEmail: m.FromEmail, To: m.To, Cc: m.Cc, Bcc: m.Bcc}).Envelope()
	return all.To
}

func (b *reference) refuse(left mailer.Envelope) mailer.Result {
	refused := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: refusedAddress}
	switch {
	case len(left.To) == 0 && b.has(countsRefused), b.has(hidesRefused):
		return mailer.Result{}
	case len(left.To) == 0 || b.has(doesNotCountSome):
		return mailer.Result{Err: &mailer.SendError{
			Class: mailer.Permanent, Step: mailer.StepRcpt,
			Accepted: len(left.To) > 0, Refused: []*mailer.SendError{refused},
		}}
	case b.has(namelessRefused):
		refused.Recipient = ""
	}
	return mailer.Result{Refused: []*mailer.SendError{refused}}
}

func (b *reference) copies() int {
	if b.has(sendsTwice) {
		return 2
	}
	return 1
}

func (b *reference) put(m *mailer.EmailMessage, envelope mailer.Envelope) {
	i := len(b.mails)
	b.mails = append(b.mails, Mail{Envelope: envelope})
	render := func() {
		if b.parts {
			b.mails[i].Parts = partsOf(m)
			if spoil := partFaults()[b.fault]; spoil != nil {
				spoil(b.mails[i].Parts)
			}
			return
		}
		var data bytes.Buffer
		_, _ = m.WriteTo(&data)
		b.mails[i].Data = b.spoil(data.Bytes(), m)
	}
	if b.has(keepsMessage) {
		b.late = append(b.late, render)
		return
	}
	render()
}

func (b *reference) flush() {
	for _, render := range b.late {
		render()
	}
	b.late = nil
}

func (b *reference) spoil(data []byte, m *mailer.EmailMessage) []byte {
	switch b.fault {
	case breaksCharset:
		return bytes.ReplaceAll(data, []byte("=?utf-8?"), []byte("=?us-ascii?"))
	case showsBcc:
		for _, a := range m.Bcc {
			data = append([]byte("Bcc: "+a+"\r\n"), data...)
		}
	case badTrace:
		return append([]byte("Dear all,\n\n"), data...)
	default:
		// A server puts such a field before what it takes.
		return append([]byte("Received: from a by b;\r\n\tMon, 1 Jan 2026 00:00:00 +0000\r\n"), data...)
	}
	return data
}
