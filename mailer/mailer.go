package mailer

import (
	"context"
	"errors"
	"time"
)

// Connection is what a call asks Config.Connect for. The zero value is the default mailer.
type Connection struct {
	Using    string // the name of a configured mailer, or "" for the default one (Options.Using)
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
	cfg     Config
	options Options
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

// With returns a mailer that hands over with these options: by which mailer, and in a queue from when, until when and how
// often. What they leave open is as m has it. That an option is impossible is the error of each call, also where
// messages are delivered at once.
//
//	mail.With(mailer.Options{Queue: "critical", IdempotencyKey: "order-17"}).Send(ctx, message)
func (m *Mailer) With(o Options) *Mailer { return &Mailer{cfg: m.cfg, options: o.Or(m.options)} }

// SendOptions are the optional arguments of SendMail, SendMassMail, MailAdmins and MailManagers: what their messages
// have beside the text, and what connection they go over. How they are handed over is said by With. A
// nil *SendOptions is the zero value.
type SendOptions struct {
	HTMLMessage string // the body as HTML, beside the text

	// FailSilently turns a failed delivery into 0, nil. Bad input stays an error.
	FailSilently bool

	// Username and Password log in for this call instead of what is configured. A queue refuses them.
	Username, Password string

	// Backend, if not nil, is used instead of the configured one, open or not. It is an error
	// to name a mailer (Options.Using) or a login too.
	Backend Backend
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

// MailAdmins sends a message to Config.Admins. It returns 0, nil if there are none. The message says that a program has
// written it (Auto-Submitted, RFC 3834, 5), so that no answering machine replies.
func (m *Mailer) MailAdmins(ctx context.Context, subject, message string, opts *SendOptions) (int, error) {
	return m.mailStaff(ctx, m.cfg.Admins, subject, message, opts)
}

// MailManagers is MailAdmins for Config.Managers.
func (m *Mailer) MailManagers(ctx context.Context, subject, message string, opts *SendOptions) (int, error) {
	return m.mailStaff(ctx, m.cfg.Managers, subject, message, opts)
}

func (m *Mailer) mailStaff(ctx context.Context, to []string, subject, message string, opts *SendOptions) (int, error) {
	if len(to) == 0 {
		return 0, nil
	}
	e := newMessage(m.cfg.SubjectPrefix+subject, message, m.cfg.ServerEmail, to, opts)
	e.Headers = map[string]string{"Auto-Submitted": "auto-generated"}
	return m.send(ctx, []*EmailMessage{e}, opts)
}

// Send sends messages over one connection and returns how many were accepted. The error, if not
// nil, is a SendErrors aligned with messages, the error of Config.Connect, or that of With's options.
func (m *Mailer) Send(ctx context.Context, messages ...*EmailMessage) (int, error) {
	return m.send(ctx, messages, nil)
}

// SendResults is Send that returns what became of each message, in their order. The error is that of Config.Connect, or of
// With's options: no message was handed over then.
func (m *Mailer) SendResults(ctx context.Context, messages ...*EmailMessage) ([]Result, error) {
	backend, messages, err := m.prepare(messages, &SendOptions{})
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	results := make([]Result, len(messages))
	SendBatch(ctx, backend, Batch{Messages: messages, Options: m.options, Report: func(group []Report) {
		for _, r := range group {
			results[r.Index] = r.Result
		}
	}})
	return results, nil
}

// Enqueue sends one message and returns what the queue knows it by: the ID that Cancel takes. The ID is empty if the backend
// delivers at once, or if there is nobody to send the message to. Where EmailMessage.MessageID is set, that is another
// name of the message, which is in logs and in the mail itself.
func (m *Mailer) Enqueue(ctx context.Context, message *EmailMessage) (id string, err error) {
	results, err := m.SendResults(ctx, message)
	if err != nil {
		return "", err
	}
	return results[0].TaskID, results[0].Error()
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
	backend, messages, err := m.prepare(messages, opts)
	if err != nil || len(messages) == 0 {
		return 0, err
	}
	if s, ok := backend.(BatchSender); ok && !m.options.IsZero() {
		backend = sendsWith{backend, s, m.options}
	}
	if opts.FailSilently {
		backend = Silent(backend)
	}
	return backend.SendMessages(ctx, messages)
}

// sendsWith is a backend that gets these options with each batch.
type sendsWith struct {
	Backend
	sender  BatchSender
	options Options
}

func (b sendsWith) SendMessages(ctx context.Context, messages []*EmailMessage) (int, error) {
	return collect(ctx, b.sender, Batch{Messages: messages, Options: b.options})
}

// prepare returns the backend for a call, and the messages as they are handed over to it: none if there are none.
func (m *Mailer) prepare(messages []*EmailMessage, opts *SendOptions) (Backend, []*EmailMessage, error) {
	c := Connection{Using: m.options.Using, Username: opts.Username, Password: opts.Password}
	if err := m.options.Validate(); err != nil {
		return nil, nil, err
	}
	if opts.Backend != nil && c != (Connection{}) {
		return nil, nil, errors.New("mailer: SendOptions: Backend excludes a mailer (Options.Using), Username and Password")
	}
	if len(messages) == 0 {
		return nil, nil, nil
	}
	backend := opts.Backend
	if backend == nil {
		var err error
		if backend, err = m.cfg.Connect(c); err != nil {
			return nil, nil, err
		}
	}
	now, complete := time.Now(), make([]*EmailMessage, len(messages))
	for i, e := range messages {
		complete[i] = m.options.Complete(e, m.cfg.Defaults, now)
	}
	return backend, complete, nil
}
