package mailertest

import (
	"context"
	"errors"
	"slices"

	"github.com/mailpouch/mailpouch/mailer"
)

// senderChecks are about a mailer.BatchSender.
func senderChecks() []check {
	return []check{
		{
			name:  "batch",
			rule:  "SendBatch reports each message once before it returns, and says what SendMessages says",
			needs: needBatchSender,
			run: func(p *probe) {
				batch := mixedSamples()
				want := p.render(batch[0], batch[3])
				results := p.sendBatch(batch, nil)
				p.arrived(want...)
				for i, err := range p.send(p.ctx, 2, batch...) {
					if got, want := results[i].Skipped, i == 2; got != want {
						p.failf("message %d: Skipped is %t, want %t", i, got, want)
					}
					if got := results[i].Error(); (got == nil) != (err == nil) {
						p.failf("message %d: it says %v, SendMessages says %v", i, got, err)
					}
				}
			},
		},
		{
			name:  "batch_closes",
			rule:  "SendBatch opens and closes as SendMessages does",
			needs: needBatchSender,
			run: func(p *probe) {
				p.sendBatch(samples(2), nil)
				p.isClosed()
				p.open(true)
				p.sendBatch(samples(2), nil)
				p.isOpen()
				p.close()
			},
		},
		{
			name:  "begin_refuses",
			rule:  "Begin is asked before anything of a message is sent: one that it refuses is not sent and has that error, and the others are sent",
			needs: needBatchSender,
			run:   sendRefusedToBegin,
		},
		{
			name:  "begin_refuses_all",
			rule:  "when Begin refuses all messages none is sent, and the backend is as open as it was before",
			needs: needBatchSender,
			run: func(p *probe) {
				no := errors.New("too late")
				refuse := func(int) error { return no }
				for i, r := range p.sendBatch(samples(3), refuse) {
					p.refusedWith(i, r, no)
				}
				p.isClosed()
				p.open(true)
				p.sendBatch(samples(3), refuse)
				p.isOpen()
				want := p.render(sample(4))
				p.sendAll(sample(4))
				p.close()
				p.arrived(want...)
			},
		},
		{
			name:  "batch_stopped",
			rule:  "when its context ends within a batch SendBatch stops: it says of the messages whose turn has not come that they have failed",
			needs: needTurns,
			run: func(p *probe) {
				const many, at = 300, 150
				ctx, cancel := context.WithCancel(p.ctx)
				defer cancel()
				failed := false
				p.sendBatchIn(ctx, asking(samples(many), func(i int) error {
					if i == at {
						cancel()
					}
					return nil
				}), func(r mailer.Report) { failed = failed || r.Index == many-1 && r.Err != nil })
				if !failed {
					p.failf("the last of %d messages was sent, and the context has ended at message %d", many, at)
				}
			},
		},
		{
			name:  "begin_order",
			rule:  "Begin is asked for each message that can be sent, once and in their order",
			needs: needBatchSender,
			run: func(p *probe) {
				var asked []int
				p.sendBatch(mixedSamples(), func(i int) error {
					asked = append(asked, i)
					return nil
				})
				// Nobody needs to know of the messages that cannot be sent.
				must := slices.DeleteFunc(slices.Clone(asked), func(i int) bool { return i == 1 || i == 2 })
				if !slices.IsSorted(asked) || len(slices.Compact(slices.Clone(asked))) != len(asked) || !slices.Equal(must, []int{0, 3}) {
					p.failf("Begin was asked for the messages %d, want 0 and 3, each once", asked)
				}
			},
		},
		{
			name:  "begin_turn",
			rule:  "Begin is asked at the message's turn, and not for a whole large batch before it is sent",
			needs: needTurns,
			run: func(p *probe) {
				const many = 300
				reported := 0
				p.sendBatchTo(asking(samples(many), func(i int) error {
					if i == many-1 && reported == 0 {
						p.failf("Begin was asked for all of %d messages before any was reported", many)
					}
					return nil
				}), func(mailer.Report) { reported++ })
			},
		},
		{
			name:  "begin_changes",
			rule:  "what Begin returns is sent, completed and checked, and not the message that was given",
			needs: needBatchSender,
			run:   sendChanged,
		},
		{
			name:  "commit_refuses",
			rule:  "Commit is asked before anything of a message can be accepted: one that it refuses is not accepted and has that error, and the others are sent",
			needs: needBatchSender,
			run: func(p *probe) {
				no := map[int]error{0: errors.New("another's"), 3: errors.New("too late")}
				batch := mixedSamples()
				batch = append(batch, sample(4), sample(5))
				want := p.render(sample(4), sample(5))
				results := p.sendAsking(mailer.Batch{Messages: batch, Commit: func(i int) error { return no[i] }})
				for i, r := range results {
					switch {
					case no[i] != nil:
						p.refusedWith(i, r, no[i])
					case i > 3 && (r.Err != nil || r.Skipped):
						p.failf("message %d: %v, Skipped is %t; want it sent", i, r.Err, r.Skipped)
					}
				}
				p.arrived(want...)
			},
		},
		{
			name:  "commit_order",
			rule:  "Commit is asked for each message that is sent, after its Begin and before its Report",
			needs: needBatchSender,
			run: func(p *probe) {
				begun, committed := map[int]bool{}, map[int]bool{}
				batch := asking(mixedSamples(), func(i int) error { begun[i] = true; return nil })
				batch.Commit = func(i int) error {
					if committed[i] = true; !begun[i] {
						p.failf("Commit was asked for message %d before Begin", i)
					}
					return nil
				}
				p.sendBatchTo(batch, func(r mailer.Report) {
					if r.Err == nil && !r.Skipped && !committed[r.Index] {
						p.failf("message %d was accepted, and Commit was not asked for it", r.Index)
					}
				})
			},
		},
		{
			name:  "commit_turn",
			rule:  "Commit is asked at the last moment, and what is known is reported before it is asked: no more messages are in doubt than are under way",
			needs: needTurns,
			run: func(p *probe) {
				const many, window = 300, 150
				doubt, most := map[int]bool{}, 0
				p.sendBatchTo(mailer.Batch{Messages: samples(many), Commit: func(i int) error {
					doubt[i] = true
					most = max(most, len(doubt))
					return nil
				}}, func(r mailer.Report) { delete(doubt, r.Index) })
				if most > window {
					p.failf("Commit was asked for %d of %d messages before any of these was reported", most, many)
				}
			},
		},
	}
}

// mixedSamples are two good messages, and between them a bad one and one to nobody.
func mixedSamples() []*mailer.EmailMessage {
	bad := sample(1)
	bad.Subject = "x\ny"
	return []*mailer.EmailMessage{sample(0), bad, unaddressed(2), sample(3)}
}

// sendRefusedToBegin refuses messages with errors of both kinds, those with a class and
// those without.
func sendRefusedToBegin(p *probe) {
	late := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: errors.New("too late")}
	no := map[int]error{1: late, 2: late, 4: errors.New("not now")}
	want := p.render(sample(0), sample(3), sample(5))
	for i, r := range p.sendBatch(samples(6), func(i int) error { return no[i] }) {
		if no[i] == nil && (r.Err != nil || r.Skipped) {
			p.failf("message %d: %v, Skipped is %t; want it sent", i, r.Err, r.Skipped)
		}
		if no[i] != nil {
			p.refusedWith(i, r, no[i])
		}
	}
	p.arrived(want...)
}

// sendChanged sends other messages than those of the batch: other bytes and recipients, one that lacks what WithDefaults fills in, a
// bad one, and between them one as it was given.
func sendChanged(p *probe) {
	batch := samples(5)
	other, bare, bad := sample(10), sample(11), sample(12)
	bare.Charset, bad.Subject = "", "x\ny"
	sent := []*mailer.EmailMessage{other, batch[1], bad, bare.WithRecipients([]string{"reader-11@example.net"}), sample(13)}
	want := p.render(sample(10), sample(1), sample(11).WithRecipients([]string{"reader-11@example.net"}), sample(13))
	for i, r := range p.sendAsking(mailer.Batch{Messages: batch, Begin: func(i int) (*mailer.EmailMessage, error) { return sent[i], nil }}) {
		switch {
		case i == 2 && !mailer.IsBadInput(r.Err):
			p.failf("the bad message: %v, want an error that mailer.IsBadInput knows", r.Err)
		case i != 2 && (r.Err != nil || r.Skipped):
			p.failf("message %d: %v, Skipped is %t; want it sent", i, r.Err, r.Skipped)
		}
	}
	p.arrived(want...)
}

// asking is a batch whose Begin only asks.
func asking(messages []*mailer.EmailMessage, ask func(i int) error) mailer.Batch {
	return mailer.Batch{Messages: messages, Begin: func(i int) (*mailer.EmailMessage, error) { return messages[i], ask(i) }}
}

// refusedWith compares the result of a message with the error of Begin or Commit.
func (p *probe) refusedWith(i int, r mailer.Result, no error) {
	if !errors.Is(r.Err, no) || mailer.ClassOf(r.Err) != mailer.ClassOf(no) {
		p.failf("message %d: the error is %v, want that of Begin or Commit: %v", i, r.Err, no)
	}
}

// sendBatch sends a batch and returns the results, of which there must be one for each
// message.
func (p *probe) sendBatch(messages []*mailer.EmailMessage, ask func(i int) error) []mailer.Result {
	if ask == nil {
		return p.sendAsking(mailer.Batch{Messages: messages})
	}
	return p.sendAsking(asking(messages, ask))
}

func (p *probe) sendAsking(batch mailer.Batch) []mailer.Result {
	results := make([]mailer.Result, len(batch.Messages))
	times := make([]int, len(batch.Messages))
	p.sendBatchTo(batch, func(r mailer.Report) {
		results[r.Index] = r.Result
		times[r.Index]++
	})
	for i, n := range times {
		if n != 1 {
			p.failf("message %d was reported %d times before its end, want once", i, n)
		}
	}
	return results
}

// sendBatchTo sends a batch and reports the results that are of a message in it.
func (p *probe) sendBatchTo(batch mailer.Batch, report func(mailer.Report)) {
	p.sendBatchIn(p.ctx, batch, report)
}

func (p *probe) sendBatchIn(ctx context.Context, batch mailer.Batch, report func(mailer.Report)) {
	batch.Report = func(group []mailer.Report) {
		for _, r := range group {
			if r.Index < 0 || r.Index >= len(batch.Messages) {
				p.failf("report for message %d of %d", r.Index, len(batch.Messages))
				continue
			}
			report(r)
		}
	}
	p.Backend.(mailer.BatchSender).SendBatch(ctx, batch)
}
