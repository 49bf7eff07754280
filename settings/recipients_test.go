package settings

import (
	"strings"
	"testing"
)

func TestRecipients(t *testing.T) {
	for _, tt := range []struct{ name, value, want, bad string }{
		{overrideVariable, "qa@example.com", "qa@example.com", ""},
		{overrideVariable, ` QA <qa@example.com>, "Doe, Ann" <ann@example.com>, `, `QA <qa@example.com>, "Doe, Ann" <ann@example.com>`, ""},
		{overrideVariable, ",", "", "names nobody"},
		{overrideVariable, "example.com>", "", `"example.com>" is not a mail address`},
		{overrideVariable, "qa@example.com qb@example.com", "", "is not a mail address"},

		{allowedVariable, "example.com, .example.org,ann@example.net", "example.com, .example.org, ann@example.net", ""},
		{allowedVariable, "bücher.example, [192.0.2.1], a@[192.0.2.1]", "", `"[192.0.2.1]" is neither`},
		{allowedVariable, "*", "*", ""},
		{allowedVariable, "*, example.com", "", "* is everybody"},
		{allowedVariable, ", ,", "", "names nobody"},
		{allowedVariable, "*.example.com, @example.org, ann@, exa mple.com", "", `"*.example.com" is neither`},
		{allowedVariable, "example.com, @example.org", "", `"@example.org" is neither`},
	} {
		t.Run(tt.value, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			s, _, err := Load()
			got := s.Delivery.OverrideRecipients.String()
			if tt.name == allowedVariable {
				got = s.Delivery.AllowedRecipients.String()
			}
			switch {
			case tt.bad == "" && (err != nil || got != tt.want):
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			case tt.bad != "" && (err == nil || !strings.Contains(err.Error(), tt.name+": ") || !strings.Contains(err.Error(), tt.bad)):
				t.Errorf("got %v, want an error of %s with %s", err, tt.name, tt.bad)
			}
		})
	}
}

// Nobody forgets these in production: whoever delivers says so at the start, once for each setting.
func TestRecipients_warnings(t *testing.T) {
	t.Setenv("EMAIL_MAILERS", "marketing,alerts")
	t.Setenv("EMAIL_MARKETING_HOST", "localhost")
	t.Setenv("EMAIL_ALERTS_HOST", "localhost")
	t.Setenv(overrideVariable, "qa@example.com")
	t.Setenv("EMAIL_MARKETING_OVERRIDE_RECIPIENTS", "qb@example.com")
	t.Setenv("EMAIL_ALERTS_ALLOWED_RECIPIENTS", "example.com")
	lines := func(l Loader) string {
		_, warnings, err := l.Load()
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, w := range warnings {
			if strings.Contains(w, "_RECIPIENTS") {
				found = append(found, w)
			}
		}
		return strings.Join(found, "\n")
	}
	want := `EMAIL_OVERRIDE_RECIPIENTS: no mail goes to its recipients: all of it goes to these addresses
EMAIL_MARKETING_OVERRIDE_RECIPIENTS: no mail goes to its recipients: all of it goes to these addresses
EMAIL_ALERTS_ALLOWED_RECIPIENTS: only these get mail; whoever else a message is for becomes a dead letter`
	if got := lines(Loader{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := lines(Loader{Producer: true}); got != "" {
		t.Errorf("a program that queues says\n%s", got)
	}
	t.Setenv("EMAIL_BACKEND", "smtp")
	if got := lines(Loader{Producer: true}); got != want {
		t.Errorf("a program that sends says\n%s", got)
	}
}

// A named mailer has its own values, or those of the default one; * is everybody again.
func TestRecipients_named(t *testing.T) {
	t.Setenv("EMAIL_MAILERS", "marketing,alerts")
	t.Setenv("EMAIL_MARKETING_HOST", "localhost")
	t.Setenv("EMAIL_ALERTS_HOST", "localhost")
	t.Setenv(allowedVariable, "example.com")
	t.Setenv("EMAIL_ALERTS_ALLOWED_RECIPIENTS", "*")
	s, _, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"": false, "marketing": false, "alerts": true} {
		named, err := s.Named(name)
		if err != nil || named.Delivery.AllowedRecipients.Everybody() != want {
			t.Errorf("%q: %v, %v", name, named.Delivery.AllowedRecipients, err)
		}
	}
}
