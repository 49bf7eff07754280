package mailer

import (
	"errors"
	"slices"
	"testing"
)

func TestSenders(t *testing.T) {
	t.Parallel()
	raw := func(header string) *EmailMessage {
		return &EmailMessage{FromEmail: "envelope@a.example", Raw: []byte(header + "Subject: x\r\n\r\nBody\r\n")}
	}
	tests := []struct {
		name string
		m    *EmailMessage
		want []string
	}{
		{"nothing said", &EmailMessage{}, nil},
		{"from_email", &EmailMessage{FromEmail: "Ann <ann@a.example>"}, []string{"ann@a.example"}},
		{"fields", &EmailMessage{FromEmail: "ann@a.example", Headers: map[string]string{"FROM": "b@b.example, c@c.example", "sender": "d@d.example", "X-From": "x@x.example"}},
			[]string{"ann@a.example", "b@b.example", "c@c.example", "d@d.example"}},
		{"return path", &EmailMessage{FromEmail: "ann@a.example", Headers: map[string]string{"Return-Path": "<r@r.example>"}}, []string{"ann@a.example", "r@r.example"}},
		{"null sender", &EmailMessage{FromEmail: "ann@a.example", Headers: map[string]string{"Return-Path": " <>"}}, []string{"ann@a.example"}},
		{"verp", &EmailMessage{FromEmail: "ann@a.example", VERP: "v@v.example"}, []string{"ann@a.example", "v@v.example"}},
		{"raw", raw("From: Ann <ann@a.example>\r\n"), []string{"ann@a.example", "envelope@a.example"}},
		{"raw, two fields", raw("From: a@a.example\r\nfrom : b@b.example\r\n"), []string{"a@a.example", "b@b.example", "envelope@a.example"}},
		{"raw, folded", raw("From:\r\n a@a.example,\r\n\tb@b.example\r\n"), []string{"a@a.example", "b@b.example", "envelope@a.example"}},
		{"raw, resent", raw("Resent-From: a@a.example\r\nResent-Sender: b@b.example\r\n"), []string{"a@a.example", "b@b.example", "envelope@a.example"}},
		{"raw, return path is left out", raw("Return-Path: <a@a.example>\r\n"), []string{"envelope@a.example"}},
		{"raw, a name like an address", raw("From: b@b.example <a@a.example>\r\n"), []string{"a@a.example", "envelope@a.example"}},
		{"raw, in the body", raw("Subject: y\r\n\r\nFrom: b@b.example\r\n"), []string{"envelope@a.example"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.m.Senders()
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
	for _, m := range []*EmailMessage{
		raw("From: <a@a.example\r\n"), {FromEmail: "a@"}, {FromEmail: "a@a.example", Headers: map[string]string{"From": "b@"}},
		raw("From: b@b.example:;\r\n"), raw("From: \"b@b.example\":;\r\n"), raw("From: (b@b.example)\r\n"), raw("From:\r\n"), raw("Sender: b@b.example:;\r\n"),
		{FromEmail: "a@a.example", Headers: map[string]string{"From": "b@b.example:;"}}, {FromEmail: " "},
	} {
		var invalid *InvalidMessageError
		if got, err := m.Senders(); !errors.As(err, &invalid) {
			t.Errorf("%q, %v, want an InvalidMessageError", got, err)
		}
	}
}
