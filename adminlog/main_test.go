package adminlog

import (
	"context"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mail is one mail to the admins.
type mail struct{ subject, body string }

// fakeMailer keeps the mails that it accepts.
type fakeMailer struct {
	// before, if not nil, is called with each mail first: it may log, wait or panic. An
	// answer of false fails the mail.
	before func(ctx context.Context, tries int) bool

	mu    sync.Mutex // guards what follows
	mails []mail
	tries int
	opts  []mailer.SendOptions
}

func (f *fakeMailer) MailAdmins(ctx context.Context, subject, message string, opts *mailer.SendOptions) (int, error) {
	f.mu.Lock()
	f.tries++
	tries := f.tries
	f.opts = append(f.opts, *opts)
	f.mu.Unlock()
	if f.before != nil && !f.before(ctx, tries) {
		return 0, nil // what FailSilently makes of a failure
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mails = append(f.mails, mail{subject, message})
	return 1, nil
}

func (f *fakeMailer) subjects() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, m := range f.mails {
		all = append(all, m.subject)
	}
	return all
}

func (f *fakeMailer) last(t *testing.T) mail {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.mails) == 0 {
		t.Fatal("no mail")
	}
	return f.mails[len(f.mails)-1]
}

func (f *fakeMailer) tried() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries
}
