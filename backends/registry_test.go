package backends_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/backends/console"
	"github.com/mailpouch/mailpouch/backends/dummy"
	"github.com/mailpouch/mailpouch/backends/filebased"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

func TestRegistry_New(t *testing.T) {
	s := settings.Default()
	s.Delivery.FilePath = filepath.Join(t.TempDir(), "mail")
	reg := backends.Builtin()
	for name, want := range map[string]mailer.Backend{
		"smtp": &smtp.Backend{}, "console": &console.Backend{}, "filebased": &filebased.Backend{},
		"locmem": &locmem.Backend{}, "dummy": &dummy.Backend{},
	} {
		for _, name := range []string{name, "django.core.mail.backends." + name + ".EmailBackend"} {
			t.Run(name, func(t *testing.T) {
				b, err := reg.New(name, s)
				if err != nil {
					t.Fatal(err)
				}
				if reflect.TypeOf(b) != reflect.TypeOf(want) {
					t.Errorf("got a %T, want a %T", b, want)
				}
				again, err := reg.New(name, s)
				if err != nil || again == b {
					t.Errorf("a second backend is the first one (error %v)", err)
				}
			})
		}
	}
	if len(reg) != 6 { // failover has tests of its own
		t.Errorf("%d backends are built in, and 6 tested", len(reg))
	}
}

func TestRegistry_New_unknown(t *testing.T) {
	for _, tt := range []struct{ name, nearest, text string }{
		{"smpt", "smtp", `backends: no backend is named "smpt"; did you mean smtp? (there are console, dummy, failover, filebased, locmem, smtp)`},
		{"sendgrid", "", `backends: no backend is named "sendgrid" (there are console, dummy, failover, filebased, locmem, smtp)`},
		{"", "", `backends: no backend is named "" (there are `},
		{"queue", "", `has its Mailer from mailpouch.Open or mailpouch.New`},
		{"django.core.mail.backends.smpt.EmailBackend", "smtp", `"smpt"; did you mean smtp?`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := backends.Builtin().New(tt.name, settings.Default())
			var unknown *backends.UnknownBackendError
			if !errors.As(err, &unknown) {
				t.Fatalf("got %v", err)
			}
			if unknown.Nearest != tt.nearest || !slices.Contains(unknown.Known, "smtp") {
				t.Errorf("got %+v", unknown)
			}
			if !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %v", err, tt.text)
			}
		})
	}
}

func TestRegistry_New_fails(t *testing.T) {
	s := settings.Default()
	s.SMTP.CAFile = filepath.Join(t.TempDir(), "missing.pem")
	s.SMTP.UseTLS = true
	s.SMTP.Password = settings.NewSecret("hunter2")
	b, err := backends.Builtin().New("smtp", s)
	if b != nil {
		t.Errorf("a backend comes with the error: %#v", b)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "backends: smtp: ") || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("got %v", err)
	}
}

func TestBuiltin_sharesOneOutbox(t *testing.T) {
	reg, other := backends.Builtin(), backends.Builtin()
	s := settings.Default()
	s.Delivery.Backend = "locmem"
	send(t, reg, s)
	send(t, reg, s)
	send(t, other, s)
	if got := len(outbox(t, reg, s)); got != 2 {
		t.Errorf("%d messages in the outbox of a registry that sent 2", got)
	}
}

// outbox returns what the locmem backends of a registry have taken.
func outbox(t *testing.T, reg backends.Registry, s settings.Settings) []locmem.Mail {
	t.Helper()
	b, err := reg.New("locmem", s)
	if err != nil {
		t.Fatal(err)
	}
	return b.(*locmem.Backend).Outbox().Messages()
}

// recorder is a backend that keeps what it got.
type recorder struct {
	settings settings.Settings
	messages []*mailer.EmailMessage
}

func (r *recorder) Open(context.Context) (bool, error) { return true, nil }
func (r *recorder) Close() error                       { return nil }
func (r *recorder) SendMessages(_ context.Context, messages []*mailer.EmailMessage) (int, error) {
	r.messages = append(r.messages, messages...)
	return len(messages), nil
}

// record registers a recorder under the name of EMAIL_BACKEND.
func record(reg backends.Registry, s settings.Settings) *recorder {
	var r recorder
	reg[s.Delivery.Backend] = backends.Entry{New: func(s settings.Settings) (mailer.Backend, error) {
		r.settings = s
		return &r, nil
	}}
	return &r
}

func send(t *testing.T, reg backends.Registry, s settings.Settings) {
	t.Helper()
	m, err := reg.Mailer(s)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := m.SendMail(t.Context(), "Hello", "Body", "", []string{"ann@example.com"}, nil); n != 1 || err != nil {
		t.Fatalf("SendMail: %d, %v", n, err)
	}
}

func TestRegistry_Mailer(t *testing.T) {
	s := settings.Default()
	s.Message = settings.Message{
		DefaultFrom: "shop@example.com", ServerEmail: "ops@example.com", SubjectPrefix: "[Shop] ", Charset: "iso-8859-1",
		Admins: settings.Addresses{"Ann <ann@example.com>"}, Managers: settings.Addresses{"bob@example.com"}, Hostname: "web1.example.com",
	}
	reg := backends.Builtin()
	r := record(reg, s)
	m, err := reg.Mailer(s)
	if err != nil {
		t.Fatal(err)
	}
	delete(reg, "smtp") // the Mailer keeps what it had
	send := func(n int, err error) {
		t.Helper()
		if n != 1 || err != nil {
			t.Fatalf("%d sent, %v", n, err)
		}
	}
	send(m.SendMail(t.Context(), "Hello", "Body", "", []string{"cy@example.com"}, nil))
	send(m.MailAdmins(t.Context(), "Down", "Body", nil))
	send(m.MailManagers(t.Context(), "Sold", "Body", nil))
	for i, want := range []struct {
		from, subject string
		to            []string
	}{
		{"shop@example.com", "Hello", []string{"cy@example.com"}},
		{"ops@example.com", "[Shop] Down", []string{"Ann <ann@example.com>"}},
		{"ops@example.com", "[Shop] Sold", []string{"bob@example.com"}},
	} {
		got := r.messages[i]
		if got.FromEmail != want.from || got.Subject != want.subject || !slices.Equal(got.To, want.to) {
			t.Errorf("message %d: from %q, subject %q, to %q", i, got.FromEmail, got.Subject, got.To)
		}
		if got.Charset != "iso-8859-1" || !strings.HasSuffix(got.MessageID, "@web1.example.com>") {
			t.Errorf("message %d: charset %q, id %q", i, got.Charset, got.MessageID)
		}
	}
}

func TestRegistry_Mailer_connection(t *testing.T) {
	for _, tt := range []struct {
		name           string
		backend        string
		connection     mailer.Connection
		user, password string // that reach the constructor
		err            string
	}{
		{"default", "smtp", mailer.Connection{}, "u", "pw", ""},
		{"another login", "smtp", mailer.Connection{Username: "v", Password: "hunter2"}, "v", "hunter2", ""},
		{"user alone", "smtp", mailer.Connection{Username: "v"}, "", "", "backends: the user name and the password of a call need each other"},
		{"password alone", "smtp", mailer.Connection{Password: "hunter2"}, "", "", "backends: the user name and the password"},
		{"login for a queue", "queue", mailer.Connection{Username: "v", Password: "hunter2"}, "", "", "backends: a queue takes no user name and password"},
		{"a name", "smtp", mailer.Connection{Using: "bulk"}, "", "", `settings: the mailer "bulk" is not configured`},
		{"the default one's name", "smtp", mailer.Connection{Using: "default"}, "u", "pw", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := settings.Default()
			s.Delivery.Backend = tt.backend
			s.SMTP.User, s.SMTP.Password = "u", settings.NewSecret("pw")
			reg := backends.Builtin()
			r := record(reg, s)
			m, err := reg.Mailer(s)
			if err != nil {
				t.Fatal(err)
			}
			c := tt.connection
			n, err := m.With(mailer.Options{Using: c.Using}).SendMail(t.Context(), "Hello", "Body", "", []string{"ann@example.com"}, &mailer.SendOptions{Username: c.Username, Password: c.Password})
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2") || len(r.messages) > 0 {
					t.Errorf("got %v (%d sent), want %s", err, len(r.messages), tt.err)
				}
				return
			}
			if n != 1 || err != nil {
				t.Fatalf("%d sent, %v", n, err)
			}
			if got := r.settings.SMTP; got.User != tt.user || got.Password.Reveal() != tt.password {
				t.Errorf("login with %q and %q", got.User, got.Password.Reveal())
			}
			send := func(c mailer.Connection) {
				_, _ = m.With(mailer.Options{Using: c.Using}).SendMail(t.Context(), "", "", "", []string{"a@b.c"}, &mailer.SendOptions{Username: c.Username, Password: c.Password})
			}
			if send(mailer.Connection{}); r.settings.SMTP.User != "u" {
				t.Errorf("the next call logs in as %q", r.settings.SMTP.User)
			}
		})
	}
}

func TestRegistry_Mailer_refuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*settings.Settings)
		want   string // the beginning
	}{
		{"backend", func(s *settings.Settings) { s.Delivery.Backend = "smpt" }, `backends: no backend is named "smpt"`},
		{"queue", func(s *settings.Settings) { s.Delivery.Backend = "queue" }, `backends: no backend is named "queue": a program`},
		{"configuration", func(s *settings.Settings) { s.Delivery.Backend = "filebased"; s.Delivery.FilePath = "" }, "backends: filebased: "},
		{"from", func(s *settings.Settings) { s.Message.DefaultFrom = "a@b@c" }, "DEFAULT_FROM_EMAIL: "},
		{"server", func(s *settings.Settings) { s.Message.ServerEmail = "a b" }, "SERVER_EMAIL: "},
		{"prefix", func(s *settings.Settings) { s.Message.SubjectPrefix = "x\n" }, "EMAIL_SUBJECT_PREFIX: "},
		{"admins", func(s *settings.Settings) { s.Message.Admins = settings.Addresses{"a@b.c", "d@"} }, "ADMINS: "},
		{"managers", func(s *settings.Settings) { s.Message.Managers = settings.Addresses{"\x00@b"} }, "MANAGERS: "},
		{"charset", func(s *settings.Settings) { s.Message.Charset = "utf-9" }, "DEFAULT_CHARSET: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := settings.Default()
			tt.change(&s)
			m, err := backends.Builtin().Mailer(s)
			if err == nil || m != nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestMailer_acceptsWhatSettingsDo holds the two looks at an address together: what
// settings let pass at the start, the mailer has to take.
func TestMailer_acceptsWhatSettingsDo(t *testing.T) {
	var admins settings.Addresses
	if err := admins.UnmarshalText([]byte(`root, a..b.@docomo.example, "a b"@example.com, "Doe, Ann" <ann@example.com>, J. R. Smith <jr@bücher.example>`)); err != nil {
		t.Fatal(err)
	}
	s := settings.Default()
	s.Message.Admins = admins
	if _, err := backends.Builtin().Mailer(s); err != nil || len(admins) != 5 {
		t.Errorf("%d admins: %v", len(admins), err)
	}
}

// shout is a backend of a program's own.
type shout struct{}

func (shout) Open(context.Context) (bool, error) { return false, nil }
func (shout) Close() error                       { return nil }
func (shout) SendMessages(_ context.Context, messages []*mailer.EmailMessage) (int, error) {
	for _, m := range messages {
		fmt.Println(strings.ToUpper(m.Subject), "for", m.To[0])
	}
	return len(messages), nil
}

// A program adds a backend under a name of its own, which EMAIL_BACKEND may then have.
func ExampleRegistry() {
	reg := backends.Builtin()
	reg["shout"] = backends.Entry{New: func(settings.Settings) (mailer.Backend, error) { return shout{}, nil }}

	s := settings.Default() // a program takes settings.Load()
	s.Delivery.Backend = "shout"
	m, err := reg.Mailer(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := m.SendMail(context.Background(), "Dinner is ready", "Come.", "", []string{"ann@example.com"}, nil)
	fmt.Println(sent, err)
	// Output:
	// DINNER IS READY for ann@example.com
	// 1 <nil>
}
