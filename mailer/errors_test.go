package mailer_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestClassOf(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want mailer.Class
	}{
		{"says so", &mailer.SendError{Class: mailer.Unknown}, mailer.Unknown},
		{"wrapped", fmt.Errorf("smtp: %w", &mailer.SendError{Class: mailer.Unavailable}), mailer.Unavailable},
		{"in a batch of one", mailer.SendErrors{nil, &mailer.SendError{Class: mailer.Permanent}}, mailer.Permanent},
		{"bad header", &mailer.BadHeaderError{}, mailer.Permanent},
		{"bad message, wrapped", fmt.Errorf("x: %w", &mailer.InvalidMessageError{}), mailer.Permanent},
		{"anything else", io.ErrUnexpectedEOF, mailer.Temporary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := mailer.ClassOf(tt.err); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestErrors_texts(t *testing.T) {
	refused := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Enhanced: "5.1.1", Text: "no such user", Recipient: "a@example.com"}
	tests := []struct {
		err  error
		want string
	}{
		{refused, "550 5.1.1 no such user (RCPT <a@example.com>)"},
		{&mailer.SendError{Step: mailer.StepConnect, Err: io.EOF}, "connect: EOF"},
		{mailer.Result{Refused: []*mailer.SendError{refused}}.Error(), "550 5.1.1 no such user (RCPT <a@example.com>); accepted for the others"},
		{&mailer.SendError{Step: mailer.StepMail, Code: 451}, "451 (MAIL)"},
		{&mailer.SendError{Step: mailer.StepBody}, "body"},
		{&mailer.SendError{Step: mailer.StepEnd, Text: "rejected"}, "rejected (end of data)"},
		{&mailer.SendError{Step: mailer.StepEnd, Code: 500, Text: "oops", Err: io.EOF}, "500 oops: EOF (end of data)"},
		{&mailer.SendError{Step: mailer.StepHello, Code: 554, Enhanced: "5.7.1", Err: io.EOF}, "EHLO: EOF"},
		{&mailer.SendError{Step: mailer.StepRcpt, Code: 550, Text: "<a@example.com> is unknown", Recipient: "a@example.com"}, "550 <a@example.com> is unknown (RCPT)"},
		{ // said to several: once, whoever is named in it
			&mailer.SendError{Step: mailer.StepRcpt, Code: 550, Enhanced: "5.1.1", Refused: []*mailer.SendError{
				{Step: mailer.StepRcpt, Code: 550, Text: "<a@example.com>: unknown", Recipient: "a@example.com"},
				{Step: mailer.StepRcpt, Code: 452, Enhanced: "4.2.2", Text: "full", Recipient: "c@example.com"},
				{Step: mailer.StepRcpt, Code: 550, Text: "<b@example.com>: unknown", Recipient: "b@example.com"},
			}}, "550 <a@example.com>: unknown (RCPT <a@example.com>, <b@example.com>); 452 4.2.2 full (RCPT <c@example.com>)",
		},
		{ // for which there was no reply
			&mailer.SendError{Step: mailer.StepRcpt, Refused: []*mailer.SendError{
				{Step: mailer.StepRcpt, Err: io.EOF, Recipient: "a@example.com"},
				{Step: mailer.StepRcpt, Err: io.EOF, Recipient: "b@example.com"},
			}}, "RCPT <a@example.com>, <b@example.com>: EOF",
		},
		{mailer.SendErrors{nil, nil}, "no errors"},
		{mailer.SendErrors{nil, io.EOF}, "EOF"},
		{mailer.SendErrors{nil, io.EOF, refused}, "2 of 3 messages failed, the first with: EOF"},
		{&mailer.BadHeaderError{Field: "to[1]", Reason: "has a LF"}, "bad header: to[1]: has a LF"},
		{&mailer.InvalidMessageError{Field: "body", Reason: "is not valid UTF-8"}, "invalid message: body: is not valid UTF-8"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	for c, want := range map[mailer.Class]string{
		mailer.Temporary: "temporary", mailer.Permanent: "permanent", mailer.Unavailable: "unavailable", mailer.Unknown: "unknown", 9: "class(9)",
	} {
		if got := c.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestErrorAt(t *testing.T) {
	each := mailer.SendErrors{nil, io.EOF}
	if mailer.ErrorAt(each, 0) != nil || !errors.Is(mailer.ErrorAt(each, 1), io.EOF) || mailer.ErrorAt(each, 2) != nil {
		t.Error("entries are not aligned")
	}
	if !errors.Is(mailer.ErrorAt(io.EOF, 7), io.EOF) || mailer.ErrorAt(nil, 0) != nil {
		t.Error("an error of the batch is every message's")
	}
	if !errors.Is(each, io.EOF) {
		t.Error("errors.Is does not look into the entries")
	}
}
