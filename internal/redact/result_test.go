package redact

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestResult(t *testing.T) {
	t.Parallel()
	m := &mailer.EmailMessage{
		Subject: "Your code is 471108", Body: "Dear Ann,\n\nyour new password is correct-horse-battery.\n",
		FromEmail: "shop@example.com", To: []string{"Ann Example <ann.long.name.example@example.com>"}, MessageID: "<a-long-message-id@shop.example.com>",
		Headers: map[string]string{"X-Session": "d41d8cd98f", "X-Short": "a"},
	}
	m.Attach("salaries.csv", []byte("name;salary\nAnn Example;123456;every month\n"), "text/csv")
	m.Attach("picture.bin", []byte(strings.Repeat("\x00\xff\x10", 20)), "application/octet-stream")
	for _, tt := range []struct{ name, give, want string }{
		{"nothing of it", "5.7.1 Message rejected", "5.7.1 Message rejected"},
		{"the subject", "5.7.1 Subject Your code is 471108 is spam", "5.7.1 Subject (hidden) is spam"},
		{"a header value", "X-Session: d41d8cd98f?", "X-Session: (hidden)?"},
		{"a short value stays", "a header: a", "a header: a"},
		{"a run of the body", "found 'new password is correct-horse' in it", "found '(hidden)' in it"},
		{"a short run stays", "a password is forbidden", "a password is forbidden"},
		{"a file name", "salaries.csv is refused", "(hidden) is refused"},
		{"a run of a file", "salary\\nAnn Example;123456;every month", "salary\\n(hidden)"},
		{"the recipient stays", "<ann.long.name.example@example.com>: unknown, <a-long-message-id@shop.example.com>", "<ann.long.name.example@example.com>: unknown, <a-long-message-id@shop.example.com>"},
		{"as it was sent", "AP8QAP8QAP8QAP8QAP8QAP8QAP8QAP8Q", "(hidden)"},
		{"controls", "a\x1b[2Jb\r\nc", "a [2Jb  c"},
		{"endless", strings.Repeat("x", 5000), strings.Repeat("x", MaxReason) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			refused := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepEnd, Code: 550, Text: tt.give}
			want := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepEnd, Code: 550, Text: tt.want}
			r := Result(mailer.Result{Err: refused}, m)
			if got := r.Err.Error(); got != want.Error() || mailer.ClassOf(r.Err) != mailer.Permanent {
				t.Errorf("got  %q\nwant %q", got, want.Error())
			}
			if refused.Text != tt.give {
				t.Error("the backend's own error was changed")
			}
			r = Result(mailer.Result{Err: refused, Refused: []*mailer.SendError{refused}}, m)
			if got := r.Refused[0].Error(); got != want.Error() {
				t.Errorf("of a recipient: %q", got)
			}
			other := fmt.Errorf("sending: %w", errors.New(tt.give))
			if got := Result(mailer.Result{Err: other}, m).Err; !strings.Contains(got.Error(), strings.TrimSuffix(tt.want, "…")[:min(len(tt.want), 3000)]) || !errors.Is(got, other) {
				t.Errorf("an error of another kind: %q", got)
			}
		})
	}
	if got := Result(mailer.Result{Reply: "250 Ok: Your code is 471108"}, m).Reply; got != "250 Ok: (hidden)" {
		t.Errorf("reply = %q", got)
	}
}

func FuzzResult(f *testing.F) {
	f.Add("550 the subject is no good", "the subject is no good", "a body that is somewhat longer than the window")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, reply, subject, body string) {
		m := &mailer.EmailMessage{Subject: subject, Body: body, To: []string{"ann@example.com"}}
		got := Result(mailer.Result{Reply: reply}, m).Reply
		if strings.ContainsAny(got, "\r\n\x00\x1b") {
			t.Errorf("%q becomes %q", reply, got)
		}
	})
}

func BenchmarkResult(b *testing.B) {
	m := &mailer.EmailMessage{
		Subject: "Your parcel is on its way", Body: strings.Repeat("A line of a mail of two kilobytes.\n", 57), FromEmail: "shop@example.com",
		To: []string{"Ann <ann@example.com>"}, MessageID: "<SGFZ5QJ2K3FTBVYBQX4XNZQ6CM@shop.example.com>",
	}
	for _, bb := range []struct {
		name string
		r    mailer.Result
	}{
		{"accepted", mailer.Result{Reply: "250 2.0.0 Ok: queued as 4bXyZ1234567890ab"}},
		{"refused", mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Text: "<ann@example.com>: Recipient address rejected: User unknown"}}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Result(bb.r, m)
			}
		})
	}
}
