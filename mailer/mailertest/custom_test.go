package mailertest_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

// drawer is a backend as anybody may write one: it uses what package mailer exports.
type drawer struct {
	open  bool
	mails []mailertest.Mail
}

func (d *drawer) Open(ctx context.Context) (opened bool, err error) {
	if d.open {
		return false, nil
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	d.open = true
	return true, nil
}

func (d *drawer) Close() error {
	d.open = false
	return nil
}

func (d *drawer) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, d, messages)
}

func (d *drawer) SendBatch(ctx context.Context, b mailer.Batch) {
	mailer.Deliver(ctx, d, b, mailer.Defaults{}, d.put)
}

func (d *drawer) put(m *mailer.EmailMessage, to mailer.Envelope) mailer.Result {
	var data bytes.Buffer
	if _, err := m.WriteTo(&data); err != nil {
		return mailer.Result{Err: err}
	}
	d.mails = append(d.mails, mailertest.Mail{Envelope: to, Data: data.Bytes()})
	return mailer.Result{}
}

func TestRun_custom_backend(t *testing.T) {
	t.Parallel()
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		t.Parallel()
		d := new(drawer)
		return mailertest.Harness{
			Backend:  d,
			Received: func() []mailertest.Mail { return d.mails },
		}
	})
}
