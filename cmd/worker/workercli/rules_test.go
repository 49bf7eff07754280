package workercli

import (
	"net/http"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// Whoever forgets the settings for staging in production sees them: in the log of each worker, in "worker check", on the pages and
// in the metrics.
func TestRules_seen(t *testing.T) {
	t.Setenv("REDIS_URL", redistest.Start(t, redistest.Options{}).URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_QUEUE_BACKEND", "dummy")
	t.Setenv("EMAIL_HTTP_ADDR", "127.0.0.1:0")
	t.Setenv("EMAIL_MAILERS", "marketing")
	t.Setenv("EMAIL_MARKETING_BACKEND", "dummy")
	t.Setenv("EMAIL_OVERRIDE_RECIPIENTS", "quality@example.com")
	t.Setenv("EMAIL_MARKETING_ALLOWED_RECIPIENTS", "ann@example.org, .example.net")
	const override = "EMAIL_OVERRIDE_RECIPIENTS: no mail goes to its recipients"
	const allowed = "EMAIL_MARKETING_ALLOWED_RECIPIENTS: only these get mail"

	checked := worker(t.Context(), t, backends.Builtin(), "check")
	if checked.code != 0 || !strings.Contains(checked.out+checked.err, override) || !strings.Contains(checked.out+checked.err, allowed) || !strings.Contains(checked.out, "quality@example.com") {
		t.Errorf("check: %d\n%s%s", checked.code, checked.out, checked.err)
	}

	r := start(t, backends.Builtin())
	url := r.url()
	log := r.log.String()
	if !strings.Contains(log, override) || !strings.Contains(log, allowed) || strings.Contains(log, "quality@") {
		t.Errorf("the log is\n%s", log)
	}
	for path, wanted := range map[string][]string{
		"metrics": {
			`mailpouch_mailer_recipients_rule{mailer="default",rule="override"} 1`, `mailpouch_mailer_recipients_rule{mailer="default",rule="allowed"} 0`,
			`mailpouch_mailer_recipients_rule{mailer="marketing",rule="override"} 1`, `mailpouch_mailer_recipients_rule{mailer="marketing",rule="allowed"} 1`,
		},
		"status.json": {`"override":["q***@example.com"]`, `"only":["a***@example.org",".example.net"]`},
	} {
		code, body := fetch(t, url+path)
		if code != http.StatusOK {
			t.Errorf("/%s: %d", path, code)
		}
		for _, want := range wanted {
			if !strings.Contains(body, want) {
				t.Errorf("/%s: no %s in\n%s", path, want, body)
			}
		}
	}
	r.end()
}
