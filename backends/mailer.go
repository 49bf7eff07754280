package backends

import (
	"errors"
	"fmt"
	"maps"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// Mailer returns a Mailer that delivers with the backend of EMAIL_BACKEND. Errors that
// the settings must lead to come now and not with the first mail: an
// UnknownBackendError, a backend that cannot be configured, or settings.Problems with
// what no message can carry.
//
// The registry may be changed afterwards; the Mailer keeps what it was.
func (r Registry) Mailer(s settings.Settings) (*mailer.Mailer, error) {
	if problems := checkMessage(s.Message); len(problems) > 0 {
		return nil, problems
	}
	r = maps.Clone(r)
	if _, err := r.New(s.Delivery.Backend, s); err != nil {
		return nil, err
	}
	return mailer.New(mailer.Config{
		Connect:       func(c mailer.Connection) (mailer.Backend, error) { return r.connect(s, c) },
		Defaults:      Defaults(s),
		ServerEmail:   s.Message.ServerEmail,
		SubjectPrefix: s.Message.SubjectPrefix,
		Admins:        s.Message.Admins,
		Managers:      s.Message.Managers,
	})
}

// connect makes the backend for one call.
func (r Registry) connect(s settings.Settings, c mailer.Connection) (mailer.Backend, error) {
	if c.Using != "" {
		return nil, fmt.Errorf("backends: no mailer is named %q: there is only the default one", c.Using)
	}
	if c.Username != "" || c.Password != "" {
		if settings.CanonicalBackend(s.Delivery.Backend) == queueName {
			return nil, errors.New("backends: a queue takes no user name and password: configure them where the worker runs")
		}
		if c.Username == "" || c.Password == "" {
			return nil, errors.New("backends: the user name and the password of a call need each other")
		}
		s.SMTP.User, s.SMTP.Password = c.Username, settings.NewSecret(c.Password)
	}
	return r.New(s.Delivery.Backend, s)
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
