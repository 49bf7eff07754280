package smtp

import (
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// TestBackend_classes is the table of docs/design/delivery.md: what a refusal means by its two codes, at each
// step of a message.
func TestBackend_classes(t *testing.T) {
	for _, tt := range []struct {
		reply string
		want  string // at MAIL and at the end
		rcpt  string // at RCPT, if not the same
	}{
		{"550 no", "permanent", ""},
		{"550 5.1.1 no such user", "permanent", ""},
		{"550 5.4.1 Recipient address rejected: Access denied", "permanent", ""}, // Exchange Online, of unknown users
		{"550 5.4.4 no route", "permanent", ""},
		{"550 5.7.1 policy", "permanent", ""},
		{"554 5.7.28 flood", "permanent", ""},
		{"552 5.3.4 too big", "permanent", ""},
		{"550 5.1.8 bad sender", "permanent", ""},
		{"556 5.1.10 null MX", "permanent", ""},

		{"550 5.4.5 Daily user sending limit exceeded", "unavailable", ""},
		{"554 4.4.5 congested", "unavailable", ""},

		{"552 5.2.2 mailbox full", "temporary", ""},
		{"554 5.3.1 disk full", "temporary", ""},
		{"554 5.4.2 bad connection", "temporary", ""},
		{"554 5.4.3 directory away", "temporary", ""},
		{"550 4.7.1 come back", "temporary", ""},
		{"550-4.7.1 come|550 4.7.1 back", "temporary", ""},
		{"552 full, or too many", "permanent", "temporary"}, // RFC 5321, 4.5.3.1.10

		{"450 5.1.1 no such user", "temporary", ""}, // what is temporary in either code stays so
		{"451 5.7.1 policy", "temporary", ""},
		{"452 4.2.2 full", "temporary", ""},
		{"451 4.4.5 too many in this session", "temporary", ""},
	} {
		for _, step := range []string{"MAIL", "RCPT", "dot"} {
			want := tt.want
			if step == "RCPT" && tt.rcpt != "" {
				want = tt.rcpt
			}
			t.Run(tt.reply+"/"+step, func(t *testing.T) {
				everyWay(t, func(t *testing.T, p *peer, cfg Config) {
					p.script = on(step, "b@x", tt.reply)
					results := sendAll(t, newBackend(t, cfg), letters(3))
					if got := fates(results); got != "sent "+want+" sent" {
						t.Errorf("got %s, want the second %s", got, want)
					}
				})
			})
		}
	}
}

// TestConfig_TemporaryReplies: what the operator calls temporary is not permanent, and no more than that.
func TestConfig_TemporaryReplies(t *testing.T) {
	rules := []string{"550 5.1.90", "554 5.7.0 *too many*messages*", "daily limit"}
	for reply, want := range map[string]string{
		"550 5.1.90 You've reached your limit":   "unavailable",
		"550 5.1.9 no":                           "permanent",
		"554 5.7.0 Too many  messages, go away":  "unavailable",
		"554-5.7.0 Too many|554 5.7.0 messages":  "unavailable",
		"554 5.7.0 Too much":                     "permanent",
		"552 Daily Limit reached":                "unavailable",
		"450 4.2.1 daily limit of the recipient": "temporary", // the rules are about what is permanent
		"550 5.4.5 yes":                          "unavailable",
	} {
		for _, step := range []string{"MAIL", "RCPT", "dot"} {
			t.Run(reply+"/"+step, func(t *testing.T) {
				everyWay(t, func(t *testing.T, p *peer, cfg Config) {
					cfg.TemporaryReplies = rules
					p.script = on(step, "b@x", reply)
					results := sendAll(t, newBackend(t, cfg), letters(3))
					if got := fates(results); got != "sent "+want+" sent" {
						t.Errorf("got %s, want the second %s", got, want)
					}
				})
			})
		}
	}
	// A recipient's refusal beside one who was accepted is his alone.
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		cfg.TemporaryReplies = rules
		p.script = func(at event) string {
			if at.step == "RCPT" && at.rcpt == "no@x" {
				return "552 daily limit"
			}
			return ""
		}
		r := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{letter("a@x", "yes@x", "no@x")})
		if fates(r) != "partly" || len(r[0].Refused) != 1 || r[0].Refused[0].Class != mailer.Temporary {
			t.Errorf("got %s: %v", fates(r), r[0].Refused)
		}
	})
	_, err := New(Config{TemporaryReplies: []string{"550 5.4.5", "450", "*"}})
	if err == nil || !strings.Contains(err.Error(), "temporary already") || !strings.Contains(err.Error(), "every refusal") {
		t.Errorf("got %v", err)
	}
}
