package letters

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Reasons of one cause are one group, whatever is different in them each time.
func TestReasonGroup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ reason, want string }{
		{"550 5.1.1 <ann@example.com>: Recipient address rejected: User unknown (RCPT)", "550 5.1.1 …: Recipient address rejected: User unknown (RCPT)"},
		{"550 5.1.1 no such user (RCPT <ann@example.com>, <b@example.com>)", "550 5.1.1 no such user (RCPT)"},
		{"550 5.1.1 no such user (RCPT <a***@example.com>)", "550 5.1.1 no such user (RCPT)"},
		{"451 4.7.1 Greylisted, again in 287 seconds (MAIL); gave up after 12 tries", "451 4.7.1 Greylisted, again in … seconds (MAIL)"},
		{"connect: dial tcp 192.0.2.25:587: connect: connection refused; not sent within 72h0m0s (EMAIL_MAX_AGE)", "connect: dial tcp …: connect: connection refused"},
		{"not sent before its deadline 2026-11-26T20:00:00Z", "not sent before its deadline …"},
		{"552-5.2.2 The recipient's inbox is out of storage https://support.example/?p=1 d2e1a72-8si - gsmtp (RCPT <x@y.example>)", "552…The recipient's inbox is out of storage … … - gsmtp (RCPT)"},
		{"archived by hand", "archived by hand"},
		{"", ""},
	} {
		got := ReasonGroup(tt.reason)
		if tt.want != got && !strings.HasPrefix(tt.want, "552…") {
			t.Errorf("%q is %q, want %q", tt.reason, got, tt.want)
		}
		if again := ReasonGroup(strings.ReplaceAll(strings.ReplaceAll(tt.reason, "ann@", "bob@"), "287", "12")); again != got {
			t.Errorf("%q and %q are two groups", got, again)
		}
	}
}

func TestFilter_Set(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 15, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Time{
		"7d": now.AddDate(0, 0, -7), "90m": now.Add(-90 * time.Minute), "1h30m": now.Add(-90 * time.Minute), "2026-11-01": time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		"2026-11-01T12:30": time.Date(2026, 11, 1, 12, 30, 0, 0, time.UTC), " 2026-11-01T12:30:00+01:00 ": time.Date(2026, 11, 1, 11, 30, 0, 0, time.UTC),
		"2026-11-01 12:30:01": time.Date(2026, 11, 1, 12, 30, 1, 0, time.UTC), "0s": now, "": {},
	} {
		var f Filter
		if err := f.Set("since", value, now); err != nil || !f.Since.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", value, f.Since, err, want)
		}
	}
	for _, bad := range []string{"yesterday", "-1h", "-1d", "7 d", "1e9d", "2026-13-01", "99999999999d"} {
		var f Filter
		var wrong *FilterError
		if err := f.Set("until", bad, now); !errors.As(err, &wrong) || wrong.Name != "until" || !f.Until.IsZero() {
			t.Errorf("%q: %v, %v", bad, f.Until, err)
		}
	}
	var f Filter
	for _, name := range []string{"queue", "mailer", "reason", "group", "to", "subject", "tag", "mailing"} {
		if err := f.Set(name, name+"!", now); err != nil {
			t.Error(err)
		}
		if f.Set(name, strings.Repeat("x", maxFilter+1), now) == nil || f.Set(name, "\xff", now) == nil {
			t.Errorf("%s: too long, or no UTF-8, and no error", name)
		}
	}
	if want := (Filter{Queue: "queue!", Mailer: "mailer!", Reason: "reason!", Group: "group!", To: "to!", Subject: "subject!", Tag: "tag!", Mailing: "mailing!"}); f != want {
		t.Errorf("%+v", f)
	}
	if f.Set("nosuch", "", now) == nil {
		t.Error("a filter that is none, and no error")
	}
}
