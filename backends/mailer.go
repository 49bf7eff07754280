package backends

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// Mailer returns a Mailer that delivers with the backend of EMAIL_BACKEND, and, where a
// call says Using, with the mailer of that name. Errors that the settings must lead to
// come now and not with the first mail, all of them at once: an UnknownBackendError, a
// backend or a named mailer that cannot be configured, or settings.Problems with what no
// message can carry.
//
// Each call has a backend of its own, with what the files of secrets (EMAIL_HOST_PASSWORD_FILE) say then. If EMAIL_BACKEND is queue, the queue's constructor
// is told the name: it gets the settings with Using. A name that EMAIL_MAILERS lacks is
// a settings.UnknownMailerError, except for a queue without EMAIL_MAILERS: only the
// worker knows the mailers then.
//
// The registry may be changed afterwards; the Mailer keeps what it was.
func (r Registry) Mailer(s settings.Settings) (*mailer.Mailer, error) {
	r = maps.Clone(r)
	if err := r.Check(s); err != nil {
		return nil, err
	}
	now := fresh(s)
	return mailer.New(mailer.Config{
		Connect:       func(c mailer.Connection) (mailer.Backend, error) { return r.connect(now(), c) },
		Defaults:      Defaults(s),
		ServerEmail:   s.Message.ServerEmail,
		SubjectPrefix: s.Message.SubjectPrefix,
		Admins:        s.Message.Admins,
		Managers:      s.Message.Managers,
	})
}

// fresh returns the settings with what the files of secrets say at each call, or said before if one is wrong by now. A program
// that leaves its mail to workers does not need them.
func fresh(s settings.Settings) func() settings.Settings {
	if settings.CanonicalBackend(s.Delivery.Backend) == queueName {
		return func() settings.Settings { return s }
	}
	var mu sync.Mutex
	return func() settings.Settings {
		mu.Lock()
		defer mu.Unlock()
		s, _ = s.Reload()
		return s
	}
}

// Check returns the error that Mailer would, joined of all that there is to say.
func (r Registry) Check(s settings.Settings) error {
	var all []error
	if problems := checkMessage(s.Message); len(problems) > 0 {
		all = append(all, problems)
	}
	for _, name := range append([]string{""}, s.Mailers()...) {
		if _, err := r.connect(s, mailer.Connection{Using: name}); err != nil {
			all = append(all, err)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

// connect makes the backend for one call.
func (r Registry) connect(s settings.Settings, c mailer.Connection) (mailer.Backend, error) {
	if c.Using == settings.DefaultMailer {
		c.Using = ""
	}
	if settings.CanonicalBackend(s.Delivery.Backend) == queueName {
		return r.connectQueue(s, c)
	}
	s, err := s.Named(c.Using)
	if err != nil {
		return nil, err
	}
	if c.Username != "" || c.Password != "" {
		if c.Username == "" || c.Password == "" {
			return nil, errors.New("backends: the user name and the password of a call need each other")
		}
		if settings.CanonicalBackend(s.Delivery.Backend) == failoverName {
			return nil, errors.New("backends: a mailer with members takes no user name and password: each member has its own")
		}
		s.SMTP.User, s.SMTP.Password = c.Username, settings.NewSecret(c.Password)
	}
	return r.New(s.Delivery.Backend, s)
}

// connectQueue hands over no more than the mailer's name: what else there is to know of
// it is the worker's business.
func (r Registry) connectQueue(s settings.Settings, c mailer.Connection) (mailer.Backend, error) {
	if c.Username != "" || c.Password != "" {
		return nil, errors.New("backends: a queue takes no user name and password: configure them where the worker runs")
	}
	if known := s.Mailers(); c.Using != "" && len(known) > 0 && !slices.Contains(known, c.Using) {
		return nil, &settings.UnknownMailerError{Name: c.Using, Nearest: settings.Nearest(c.Using, known), Known: known}
	}
	s.Using = c.Using
	return r.New(queueName, s)
}

// checkMessage asks the mailer whether messages can carry what the settings put into
// them. Only the mailer knows the charsets and every corner of an address.
func checkMessage(m settings.Message) settings.Problems {
	var problems settings.Problems
	for _, probe := range []struct {
		name    string
		message mailer.EmailMessage
	}{
		{"DEFAULT_FROM_EMAIL", mailer.EmailMessage{FromEmail: m.DefaultFrom}},
		{"SERVER_EMAIL", mailer.EmailMessage{FromEmail: m.ServerEmail}},
		{"EMAIL_SUBJECT_PREFIX", mailer.EmailMessage{Subject: m.SubjectPrefix}},
		{"ADMINS", mailer.EmailMessage{To: m.Admins}},
		{"MANAGERS", mailer.EmailMessage{To: m.Managers}},
		{"DEFAULT_CHARSET", mailer.EmailMessage{Charset: m.Charset}},
	} {
		if err := probe.message.Validate(); err != nil {
			problems = append(problems, settings.Problem{Name: probe.name, Text: err.Error()})
		}
	}
	return problems
}
