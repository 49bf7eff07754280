package httpapi

import (
	"net/http"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// Whatever comes as an email is refused by name, or is a message that is whole.
func FuzzEmail(f *testing.F) {
	for _, seed := range []string{
		hello, `{"from":"a@example.com","to":["b@example.net",null],"cc":{},"html":"x"}`, `{"to":"a","attachments":[{"content":{"type":"Buffer","data":[1,2]}}]}`,
		`{"from":"a@example.com","to":"b@example.net","text":"x","headers":{"":"x","X-A":"\ud800"},"tags":[{"name":"a"}],"scheduled_at":"in 1 min"}`,
		`{"attachments":[{"filename":false,"content":[1,256]}]}`, `[`, `{"from":1e999}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var e email
		failed := decode(data, &e, "[3]")
		var m *mailer.EmailMessage
		if failed == nil {
			m, _, failed = e.message(time.Now())
		}
		if failed != nil {
			if failed = e.named(failed, "[3]"); failed.StatusCode < 400 || failed.StatusCode > 422 || failed.Message == "" || failed.Name == "" {
				t.Errorf("%+v", failed)
			}
			return
		}
		if m.FromEmail == "" || len(m.To) == 0 || m.Body == "" {
			t.Errorf("%s became %+v", data, m)
		}
		if err := m.WithDefaults(mailer.Defaults{Hostname: "example.com"}).Validate(); err != nil {
			if failed := failure(err, true); failed.StatusCode != http.StatusUnprocessableEntity || failed.Field == "" {
				t.Errorf("%v: %+v", err, failed)
			}
		}
	})
}
