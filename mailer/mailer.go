package mailer

import (
	"context"
	"errors"
)

// Connection selects a mailer and a login for a call. The zero value is the default mailer.
type Connection struct {
	Using    string // the name of a configured mailer, or "" for the default one
	Username string // with Password: log in with these instead of the configured ones
	Password string
}

// Config is what a Mailer needs. Connect is required.
type Config struct {
	// Connect returns the backend for one call. It must be cheap: it opens nothing,
	// SendMessages does. It may return the same value each time if several goroutines may
	// use that at once, as with a queue.
	Connect func(Connection) (Backend, error)

	Defaults      Defaults
	ServerEmail   string   // From of mail to admins and managers: "root@localhost" if empty
	SubjectPrefix string   // put before their subjects as it is, with its trailing space
	Admins        []string // addresses, with or without a display name
	Managers      []string
}

// Mailer hands messages to a backend. It may be used by several goroutines.
type Mailer struct {
	cfg Config
}

// New returns a Mailer. It is an error if cfg.Connect is nil.
func New(cfg Config) (*Mailer, error) {
	if cfg.Connect == nil {
		return nil, errors.New("mailer: Config.Connect is required")
	}
	if cfg.ServerEmail == "" {
		cfg.ServerEmail = "root@localhost"
	}
	return &Mailer{cfg: cfg}, nil
}

// SendOptions are the optional arguments of SendMail, SendMassMail, MailAdmins and MailManagers. A
// nil *SendOptions is the zero value.
type SendOptions struct {
	HTMLMessage string // the body as HTML, beside the text

	// FailSilently turns a failed delivery into 0, nil. Bad input stays an error.
	FailSilently bool

	// Backend, if not nil, is used instead of the configured one, open or not. It is an error
	// to set Connection too.
	Backend    Backend
	Connection Connection
}

// SendMail sends one message to all of the recipients, who see each other in To.
// It returns the number of messages accepted: 1, or 0 if there is nobody to send
// it to. An empty from is the default address.
func (m *Mailer) SendMail(ctx context.Context, subject, message, from string, to []string, opts *SendOptions) (int, error) {
	return m.send(ctx, []*EmailMessage{newMessage(subject, message, from, to, opts)}, opts)
}

// Mail is one entry of SendMassMail: the first four arguments of SendMail.
type Mail struct {
	Subject, Message, From string
	To                     []string
}

// SendMassMail sends one message for each entry, all over one connection. The
// recipients of one do not see those of another. It returns how many were accepted.
func (m *Mailer) SendMassMail(ctx context.Context, mails []Mail, opts *SendOptions) (int, error) {
	messages := make([]*EmailMessage, len(mails))
	for i, d := range mails {
		messages[i] = newMessage(d.Subject, d.Message, d.From, d.To, opts)
	}
	return m.send(ctx, messages, opts)
}

// MailAdmins sends a message to Config.Admins. It returns 0, nil if there are none.
func (m *Mailer) MailAdmins(ctx context.Context, subject, message string, opts *SendOptions) (int, error) {
	return m.mailStaff(ctx, m.cfg.Admins, subject, message, opts)
}

// MailManagers sends a message to Config.Managers. It returns 0, nil if there are none.
func (m *Mailer) MailManagers(ctx context.Context, subject, message string, opts *SendOptions) (int, error) {
	return m.mailStaff(ctx, m.cfg.Managers, subject, message, opts)
}

func (m *Mailer) mailStaff(ctx context.Context, to []string, subject, message string, opts *SendOptions) (int, error) {
	if len(to) == 0 {
		return 0, nil
	}
	return m.SendMail(ctx, m.cfg.SubjectPrefix+subject, message, m.cfg.ServerEmail, to, opts)
}

// Send sends messages over one connection and returns how many were accepted. The error, if not
// nil, is a SendErrors aligned with messages, or the error of Config.Connect.
func (m *Mailer) Send(ctx context.Context, messages ...*EmailMessage) (int, error) {
	return m.send(ctx, messages, nil)
}

func newMessage(subject, message, from string, to []string, opts *SendOptions) *EmailMessage {
	e := &EmailMessage{Subject: subject, Body: message, FromEmail: from, To: to}
	if opts != nil {
		e.FailSilently = opts.FailSilently
		if opts.HTMLMessage != "" {
			e.AttachAlternative(opts.HTMLMessage, "text/html")
		}
	}
	return e
}

func (m *Mailer) send(ctx context.Context, messages []*EmailMessage, opts *SendOptions) (int, error) {
	if opts == nil {
		opts = &SendOptions{}
	}
	if opts.Backend != nil && opts.Connection != (Connection{}) {
		return 0, errors.New("mailer: SendOptions: Backend and Connection exclude each other")
	}
	if len(messages) == 0 {
		return 0, nil
	}
	backend := opts.Backend
	if backend == nil {
		var err error
		if backend, err = m.cfg.Connect(opts.Connection); err != nil {
			return 0, err
		}
	}
	complete := make([]*EmailMessage, len(messages))
	for i, e := range messages {
		complete[i] = e.WithDefaults(m.cfg.Defaults)
	}
	if opts.FailSilently {
		backend = Silent(backend)
	}
	return backend.SendMessages(ctx, complete)
}
