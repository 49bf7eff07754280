package smtpd_test

import (
	"encoding/base64"
	"testing"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/intake/smtpd"
)

// A client of this machine may log in without TLS, where that is allowed, and has to.
func TestLocalLogins(t *testing.T) {
	t.Parallel()
	d := &desk{keys: map[string]*intake.Key{"mp_secret": {Name: "app"}}}
	c := dial(t, serve(t, d, smtpd.Config{LocalLogins: true}))
	c.talk(`
		> EHLO client
		250
		> MAIL FROM:<ann@example.com>
		530
		> AUTH PLAIN ` + base64.StdEncoding.EncodeToString([]byte("\x00any\x00mp_secret")) + `
		235
		> MAIL FROM:<ann@example.com>
		250
		> RCPT TO:<bob@example.org>
		250
		> DATA
		354
		> Subject: Hello
		>
		> It works.
		> .
		250
	`)
	if got := d.taken(); len(got) != 1 || got[0].key == nil || got[0].key.Name != "app" {
		t.Errorf("taken: %+v", got)
	}
}
