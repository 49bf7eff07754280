package backends_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// A program's own backend gets the URL that is its mailer's, and no other.
func TestEntry_Schemes(t *testing.T) {
	type call struct {
		using string
		url   *url.URL
	}
	var calls []call
	reg := backends.Builtin()
	for _, name := range []string{"pigeon", "owl"} {
		reg[name] = backends.Entry{Schemes: []string{name, name + "+fast"}, New: func(s settings.Settings) (mailer.Backend, error) {
			calls = append(calls, call{s.Using, s.Delivery.URL.Custom()})
			return &recorder{}, nil
		}}
	}
	_ = load(t, nil)
	for name, value := range map[string]string{
		"EMAIL_URL": "pigeon+fast://loft/7", "EMAIL_MAILERS": "a,b,c", "EMAIL_A_URL": "pigeon://a", "EMAIL_B_URL": "owl://b", "EMAIL_C_BACKEND": "pigeon",
	} {
		t.Setenv(name, value)
	}
	s, _, err := reg.Load()
	if err != nil {
		t.Fatal(err)
	}
	m, err := reg.Mailer(s)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ using, host string }{{"", "loft"}, {"a", "a"}, {"b", "b"}, {"c", ""}} {
		calls = nil
		if err := using(t, m, mailer.Connection{Using: want.using}); err != nil || len(calls) != 1 {
			t.Fatal(err, calls)
		}
		if got := calls[0]; got.using != want.using || (got.url == nil) != (want.host == "") || got.url != nil && got.url.Host != want.host {
			t.Errorf("mailer %d: got %+v, want %+v", i, got, want)
		}
	}
	calls = nil
	if _, err := reg.New("owl", s); err != nil || calls[0].url != nil {
		t.Errorf("the owl got the pigeon's URL %v, %v", calls[0].url, err)
	}
}

func TestRegistry_Load_unknownScheme(t *testing.T) {
	_ = load(t, nil)
	t.Setenv("EMAIL_URL", "pidgeon://u:hunter2@loft")
	t.Setenv("EMAIL_PORT", "x")
	reg := backends.Builtin()
	reg["pigeon"] = backends.Entry{Schemes: []string{"pigeon"}}
	_, _, err := reg.Load()
	if err == nil || !strings.Contains(err.Error(), "or with pigeon:") || !strings.Contains(err.Error(), "EMAIL_PORT") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestRegistry_Loader_twice(t *testing.T) {
	reg := backends.Builtin()
	reg["pigeon"] = backends.Entry{Schemes: []string{"smtps"}}
	if _, err := reg.Loader(); err == nil || err.Error() != "backends: pigeon and smtp both declare the scheme smtps of EMAIL_URL" {
		t.Errorf("got %v", err)
	}
	if _, _, err := reg.Load(); err == nil {
		t.Error("Load takes it")
	}
}

// Everything that is wrong is said at once.
func TestRegistry_Mailer_allProblems(t *testing.T) {
	s := load(t, map[string]string{"EMAIL_MAILERS": "a,b", "EMAIL_A_BACKEND": "smpt", "EMAIL_B_BACKEND": "pigeon", "DEFAULT_CHARSET": "utf-9"})
	_, err := backends.Builtin().Mailer(s)
	for _, want := range []string{"DEFAULT_CHARSET", "mailer a: ", "mailer b: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
