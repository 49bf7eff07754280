package backends_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// withMembers are settings of a mailer "main" with these members.
func withMembers(t *testing.T, members string) settings.Settings {
	t.Helper()
	for name, value := range map[string]string{
		"EMAIL_MAILERS": "main,gone,kept", "EMAIL_MAIN_BACKEND": "failover", "EMAIL_MAIN_MEMBERS": "gone,kept",
		"EMAIL_GONE_BACKEND": "gone", "EMAIL_KEPT_BACKEND": "locmem",
	} {
		t.Setenv(name, value)
	}
	s, _, err := settings.Load()
	if err != nil {
		t.Fatal(err)
	}
	named, err := s.Named("main")
	if err != nil {
		t.Fatal(err)
	}
	named.Delivery.Members = nil
	if members != "" {
		if err := named.Delivery.Members.UnmarshalText([]byte(members)); err != nil {
			t.Fatal(err)
		}
	}
	return named
}

// gone is a backend that cannot be reached, and is to be left alone for longer than a test lasts. opens counts who tries.
type gone struct {
	mailer.Backend

	opens *int
}

func (g gone) Open(context.Context) (bool, error) {
	*g.opens++
	return false, &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("no route to host"), RetryAfter: time.Hour}
}

func (g gone) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	_, err := g.Open(ctx)
	errs := make(mailer.SendErrors, len(messages))
	for i := range errs {
		errs[i] = err
	}
	return 0, errs
}

// A failover mailer sends with its members, which may be the program's own backends, and what a call has learned of them
// the next one knows.
func TestRegistry_failover(t *testing.T) {
	s := withMembers(t, "gone,kept")
	opens := 0
	reg := backends.Builtin()
	b, err := reg.New("dummy", settings.Default())
	if err != nil {
		t.Fatal(err)
	}
	reg["gone"] = backends.Entry{New: func(settings.Settings) (mailer.Backend, error) { return gone{b, &opens}, nil }}
	def, err := s.Named("")
	if err != nil {
		t.Fatal(err)
	}
	def.Delivery.Backend = "locmem"
	mail, err := reg.Mailer(def)
	if err != nil {
		t.Fatal(err)
	}
	main := mail.With(mailer.Options{Using: "main"})
	for range 3 {
		if sent, err := main.SendMail(t.Context(), "s", "b", "from@example.com", []string{"to@example.org"}, nil); sent != 1 || err != nil {
			t.Errorf("sent %d, %v", sent, err)
		}
	}
	if opens != 1 {
		t.Errorf("the member that is away was tried %d times, want once", opens)
	}
}

func TestRegistry_failover_wrong(t *testing.T) {
	for members, want := range map[string]string{
		"":           "EMAIL_MAIN_MEMBERS: the failover backend needs the names",
		"main":       `EMAIL_MAIN_MEMBERS: "main" cannot be a member of itself`,
		"nobody":     `EMAIL_MAIN_MEMBERS: the mailer "nobody" is not configured`,
		"kept,gone":  `backends: mailer gone: no backend is named "gone"`,
		"kept:2":     "",
		"kept,kept2": `EMAIL_MAIN_MEMBERS: the mailer "kept2" is not configured; did you mean kept?`,
	} {
		_, err := backends.Builtin().New("failover", withMembers(t, members))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: error %v, want %s", members, err, want)
		}
	}
	mail, err := backends.Registry{"failover": backends.Builtin()["failover"], "gone": backends.Builtin()["dummy"], "locmem": backends.Builtin()["locmem"], "smtp": backends.Builtin()["smtp"]}.Mailer(withMembers(t, "kept"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mail.With(mailer.Options{Using: "main"}).SendMail(t.Context(), "s", "b", "from@example.com", []string{"to@example.org"}, &mailer.SendOptions{Username: "u", Password: "p"}); err == nil || !strings.Contains(err.Error(), "each member has its own") {
		t.Errorf("a login for a mailer with members: %v", err)
	}
}
