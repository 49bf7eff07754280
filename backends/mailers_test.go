package backends_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// load returns the settings of an environment that has these EMAIL_ variables and no
// others.
func load(t *testing.T, vars map[string]string) settings.Settings {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "EMAIL_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range vars {
		t.Setenv(name, value)
	}
	s, _, err := settings.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// made is a registry of recorders, and the settings from which each was made.
func made(names ...string) (backends.Registry, *[]settings.Settings) {
	var all []settings.Settings
	reg := backends.Registry{}
	for _, name := range names {
		reg[name] = backends.Entry{New: func(s settings.Settings) (mailer.Backend, error) {
			all = append(all, s)
			return &recorder{}, nil
		}}
	}
	return reg, &all
}

func using(t *testing.T, m *mailer.Mailer, c mailer.Connection) error {
	t.Helper()
	_, err := m.With(mailer.Options{Using: c.Using}).SendMail(t.Context(), "Hello", "Body", "", []string{"ann@example.com"}, &mailer.SendOptions{Username: c.Username, Password: c.Password})
	return err
}

func TestRegistry_Mailer_using(t *testing.T) {
	s := load(t, map[string]string{
		"EMAIL_HOST": "default", "EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD": "pw", "EMAIL_TIMEOUT": "5",
		"EMAIL_MAILERS": "marketing,alerts", "EMAIL_MARKETING_URL": "smtp+starttls://m:mpw@marketing", "EMAIL_ALERTS_BACKEND": "console",
	})
	for _, tt := range []struct {
		name       string
		connection mailer.Connection
		using      string
		host       string // "" is none: the console
		login      string
	}{
		{"default", mailer.Connection{}, "", "default", "u:pw"},
		{"default by name", mailer.Connection{Using: "default"}, "", "default", "u:pw"},
		{"named", mailer.Connection{Using: "marketing"}, "marketing", "marketing", "m:mpw"},
		{"named, another login", mailer.Connection{Using: "marketing", Username: "v", Password: "hunter2"}, "marketing", "marketing", "v:hunter2"},
		{"another backend", mailer.Connection{Using: "alerts"}, "alerts", "", ":"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg, all := made("smtp", "console")
			m, err := reg.Mailer(s)
			if err != nil {
				t.Fatal(err)
			}
			*all = nil
			for range 2 {
				if err := using(t, m, tt.connection); err != nil {
					t.Fatal(err)
				}
			}
			if len(*all) != 2 {
				t.Fatalf("two calls made %d backends", len(*all))
			}
			got := (*all)[1]
			if got.Using != tt.using || got.SMTP.Hosts.String() != tt.host || got.SMTP.User+":"+got.SMTP.Password.Reveal() != tt.login {
				t.Errorf("got %q, %s, %s", got.Using, got.SMTP.Hosts, got.SMTP.User)
			}
			if got.SMTP.Timeout.String() != "5s" {
				t.Errorf("the shared time is %s", got.SMTP.Timeout)
			}
		})
	}
}

func TestRegistry_Mailer_usingBackend(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mail")
	s := load(t, map[string]string{"EMAIL_BACKEND": "locmem", "EMAIL_MAILERS": "files", "EMAIL_FILES_URL": "filebased://" + dir})
	reg := backends.Builtin()
	m, err := reg.Mailer(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := using(t, m, mailer.Connection{Using: "files"}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 || len(outbox(t, reg, s)) != 0 {
		t.Errorf("%d files, %d in the outbox, %v", len(files), len(outbox(t, reg, s)), err)
	}
}

// A queue is told the name and nothing else of the mailer.
func TestRegistry_Mailer_usingQueue(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mailers string
		using   string
		want    string // the Using of the constructor
		err     string
	}{
		{"default", "marketing", "", "", ""},
		{"default by name", "marketing", "default", "", ""},
		{"known", "marketing,alerts", "alerts", "alerts", ""},
		{"not known", "marketing,alerts", "alert", "", `settings: the mailer "alert" is not configured; did you mean alerts? (EMAIL_MAILERS has marketing, alerts)`},
		{"nobody knows", "", "alerts", "alerts", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := load(t, map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_HOST": "default", "EMAIL_MAILERS": tt.mailers})
			reg, all := made("queue")
			m, err := reg.Mailer(s)
			if err != nil {
				t.Fatal(err)
			}
			*all = nil
			err = using(t, m, mailer.Connection{Using: tt.using})
			if tt.err != "" {
				var unknown *settings.UnknownMailerError
				if !errors.As(err, &unknown) || err.Error() != tt.err || len(*all) > 0 {
					t.Errorf("got  %v\nwant %s", err, tt.err)
				}
				return
			}
			if err != nil || len(*all) != 1 || (*all)[0].Using != tt.want || (*all)[0].Delivery.Backend != "queue" {
				t.Errorf("got %v, %+v", err, *all)
			}
		})
	}
}

func TestRegistry_Mailer_usingQueue_login(t *testing.T) {
	s := load(t, map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_MAILERS": "marketing"})
	reg, _ := made("queue")
	m, err := reg.Mailer(s)
	if err != nil {
		t.Fatal(err)
	}
	err = using(t, m, mailer.Connection{Using: "marketing", Username: "u", Password: "hunter2"})
	if err == nil || !strings.HasPrefix(err.Error(), "backends: a queue takes no user name and password") {
		t.Errorf("got %v", err)
	}
}

// What is wrong with a named mailer comes before the first mail.
func TestRegistry_Mailer_refusesNamed(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
		want string
	}{
		{"backend", map[string]string{"EMAIL_BULK_BACKEND": "smpt"}, `backends: mailer bulk: no backend is named "smpt"; did you mean smtp?`},
		{"configuration", map[string]string{"EMAIL_BULK_URL": "smtps://mx", "EMAIL_BULK_SSL_CAFILE": filepath.Join("testdata", "no.pem")}, "backends: mailer bulk: smtp: "},
		{"name alone", nil, "EMAIL_BULK_HOST: the smtp backend needs a host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vars := map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_MAILERS": "bulk"}
			maps.Copy(vars, tt.vars)
			s := load(t, vars)
			s.Delivery.Backend = "dummy" // as a program may, that delivers itself after all
			m, err := backends.Builtin().Mailer(s)
			if err == nil || m != nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("the queue's own refusal", func(t *testing.T) {
		s := load(t, map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_MAILERS": "bulk"})
		reg := backends.Registry{"queue": {New: func(s settings.Settings) (mailer.Backend, error) {
			if s.Using != "" {
				return nil, errors.New("no")
			}
			return &recorder{}, nil
		}}}
		if _, err := reg.Mailer(s); err == nil || err.Error() != "backends: mailer bulk: queue: no" {
			t.Errorf("got %v", err)
		}
	})
}

// The worker's way: the settings of each mailer, and a backend of them.
func TestRegistry_New_named(t *testing.T) {
	s := load(t, map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_MAILERS": "a,b", "EMAIL_A_URL": "smtp://a", "EMAIL_B_BACKEND": "console"})
	reg, all := made("smtp", "console")
	for _, name := range s.Mailers() {
		n, err := s.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reg.New(n.Worker.Backend, n); err != nil {
			t.Fatal(err)
		}
	}
	if got := []string{(*all)[0].SMTP.Hosts.String(), (*all)[1].SMTP.Hosts.String()}; !slices.Equal(got, []string{"a", ""}) {
		t.Errorf("got the hosts %q", got)
	}
}
