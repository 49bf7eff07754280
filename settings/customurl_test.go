package settings

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

var withWebhook = Loader{Schemes: map[string]string{"webhook+https": "webhook", "webhook+http": "webhook", "own": "own", "smtp": "smtp"}}

// A URL of a backend that the program has brought along.
func TestLoader_schemes(t *testing.T) {
	for _, tt := range []struct{ name, url, shown, host, backend string }{
		{"token", "webhook+https://HUNTER2@mail.example.com:8443/HUNTER2?k=HUNTER2#HUNTER2", "webhook+https://[redacted]@mail.example.com:8443/[redacted]", "mail.example.com:8443", "webhook"},
		{"user and password", "WEBHOOK+HTTP://HUNTER2:HUNTER2@mx/", "webhook+http://[redacted]@mx", "mx", "webhook"},
		{"host alone", "webhook+http://mx", "webhook+http://mx", "mx", "webhook"},
		{"path alone", "webhook+http://mx/HUNTER2", "webhook+http://mx/[redacted]", "mx", "webhook"},
		{"no slashes", "own:HUNTER2", "own:/[redacted]", "", "own"},
		{"nothing", "own:", "own:", "", "own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, map[string]string{"EMAIL_URL": tt.url, "EMAIL_MAILERS": "marketing", "EMAIL_MARKETING_URL": tt.url})
			s, warnings, err := withWebhook.Load()
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			if s.Delivery.Backend != tt.backend || s.Worker.Backend != tt.backend {
				t.Errorf("backends %s and %s", s.Delivery.Backend, s.Worker.Backend)
			}
			named, err := s.Named("marketing")
			if err != nil || named.Worker.Backend != tt.backend || named.Delivery.URL.Reveal() != tt.url {
				t.Errorf("the named mailer has %s at %s, %v", named.Worker.Backend, named.Delivery.URL, err)
			}
			u := s.Delivery.URL
			if got := fmt.Sprintf("%s %v %#v %+v", u, u, u, s); strings.Contains(got, "HUNTER2") || u.String() != tt.shown {
				t.Errorf("shown as %s, and %s", u, got)
			}
			for _, d := range Describe(s) {
				if strings.Contains(d.Value, "HUNTER2") {
					t.Errorf("%s shows %s", d.Name, d.Value)
				}
			}
			if c := u.Custom(); c == nil || c.Host != tt.host || c.Scheme != strings.ToLower(tt.url[:strings.Index(tt.url, ":")]) || strings.Contains(tt.url, "HUNTER2") != strings.Contains(c.String(), "HUNTER2") {
				t.Errorf("custom: %v", c)
			}
		})
	}
	if u, err := NewMailURL("smtp://mx"); err != nil || u.Custom() != nil {
		t.Errorf("smtp is custom: %v, %v", u.Custom(), err)
	}
	if _, err := NewMailURL("webhook+https://mx"); !errors.Is(err, errMailScheme) {
		t.Errorf("NewMailURL: %v", err)
	}
}

func TestLoader_schemesBad(t *testing.T) {
	own := "; or with own: or webhook+http: or webhook+https:"
	for _, tt := range []struct {
		name, url string
		loader    Loader
		want      string
	}{
		{"unknown", "webhok+https://HUNTER2@mx", withWebhook, errMailScheme.Error() + own},
		{"none", "HUNTER2", withWebhook, errMailScheme.Error() + own},
		{"unknown and no URL", "HUNTER2:// %", withWebhook, errMailScheme.Error() + own},
		{"nobody has declared one", "webhook+https://HUNTER2@mx", Loader{}, errMailScheme.Error()},
		{"no URL", "webhook+https://HUNTER2 HUNTER2@mx:x", withWebhook, errMailURL.Error()},
		{"bad percent", "webhook+https://HUNTER2%@mx", withWebhook, errMailURL.Error()},
		{"control", "webhook+https://HUNTER2\t@mx", withWebhook, errMailChar.Error()},
		{"line end", "webhook+https://HUNTER2\n@mx", withWebhook, lineEndIn("a\nb").Error()},
		{"a producer wants a host", "HUNTER2:HUNTER2", Loader{Producer: true}, errMailScheme.Error()},
		{"a producer wants a URL", "webhook+https://HUNTER2%@mx", Loader{Producer: true}, errMailScheme.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, map[string]string{"EMAIL_URL": tt.url, "EMAIL_PORT": "x", "EMAIL_MAILERS": "a", "EMAIL_A_URL": tt.url})
			s, _, err := tt.loader.Load()
			var problems Problems
			if !errors.As(err, &problems) || len(problems) != 3 || strings.Contains(err.Error(), "HUNTER2") {
				t.Fatalf("got %v, want EMAIL_URL, EMAIL_PORT and EMAIL_A_URL", err)
			}
			for _, p := range problems {
				if p.Name != "EMAIL_PORT" && p.Text != tt.want {
					t.Errorf("got  %v\nwant %s", p, tt.want)
				}
			}
			if s.Delivery.URL.String() != "" {
				t.Errorf("the URL stayed: %s", s.Delivery.URL)
			}
		})
	}
}

// A producer shares its environment with workers that have backends it has never heard of.
func TestLoader_producer(t *testing.T) {
	setenv(t, map[string]string{
		"EMAIL_URL": "webhook+https://HUNTER2@mx/HUNTER2", "EMAIL_MAILERS": "a,b", "EMAIL_A_URL": "own://HUNTER2@mx", "EMAIL_B_URL": "smtp://mx",
	})
	s, warnings, err := Loader{Producer: true}.Load()
	if err != nil || len(warnings) > 0 {
		t.Errorf("got %v, %q", err, warnings)
	}
	if s.Delivery.Backend != "queue" || strings.Contains(fmt.Sprintf("%+v %+v", s, Describe(s)), "HUNTER2") {
		t.Errorf("got %+v", s)
	}
	t.Setenv("EMAIL_BACKEND", "console") // and now it delivers itself
	_, warnings, err = Loader{Producer: true}.Load()
	all := strings.Join(warnings, "\n")
	if err != nil || len(warnings) != 2 || !strings.Contains(all, "EMAIL_URL: this program does not know its scheme") || !strings.Contains(all, "EMAIL_A_URL: ") || strings.Contains(all, "HUNTER2") {
		t.Errorf("got %v, %q", err, warnings)
	}
	for _, tt := range []struct{ backend, want string }{{"", "queue"}, {"console", "console"}, {"django.core.mail.backends.smtp.EmailBackend", "smtp"}} {
		setenv(t, map[string]string{"EMAIL_BACKEND": tt.backend})
		if s, _, err := (Loader{Producer: true}).Load(); err != nil || s.Delivery.Backend != tt.want {
			t.Errorf("EMAIL_BACKEND=%s: got %s, %v", tt.backend, s.Delivery.Backend, err)
		}
	}
	// It needs no more of a mailer than its name, and checks no files.
	setenv(t, map[string]string{"EMAIL_MAILERS": "a", "EMAIL_SSL_CAFILE": "/no/such.pem"})
	if _, _, err := (Loader{Producer: true}).Load(); err != nil {
		t.Errorf("got %v", err)
	}
	if _, _, err := Load(); err == nil {
		t.Error("a program that delivers needs them")
	}
}
