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
	return mailer.Collect(len(messages), func(report func(int, mailer.Result)) {
		for i, m := range messages {
			report(i, d.put(ctx, m.WithDefaults(mailer.Defaults{})))
		}
	})
}

func (d *drawer) put(ctx context.Context, m *mailer.EmailMessage) mailer.Result {
	var data bytes.Buffer
	if _, err := m.WriteTo(&data); err != nil {
		return mailer.Result{Err: err}
	}
	envelope, err := m.Envelope()
	if err != nil {
		return mailer.Result{Err: err}
	}
	if len(envelope.To) == 0 {
		return mailer.Result{Skipped: true}
	}
	if err := ctx.Err(); err != nil {
		return mailer.Result{Err: err}
	}
	d.mails = append(d.mails, mailertest.Mail{Envelope: envelope, Data: data.Bytes()})
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
