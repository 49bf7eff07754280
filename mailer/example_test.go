package mailer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/mailer"
)

// shopMailer returns a Mailer that keeps what it sends in memory.
func shopMailer() (*mailer.Mailer, *locmem.Outbox) {
	outbox := new(locmem.Outbox)
	backend, err := locmem.New(locmem.Config{Outbox: outbox})
	if err != nil {
		panic(err)
	}
	mail, err := mailer.New(mailer.Config{
		Connect:       func(mailer.Connection) (mailer.Backend, error) { return backend, nil },
		SubjectPrefix: "[Shop] ",
		Admins:        []string{"Ann <ann@example.com>"},
	})
	if err != nil {
		panic(err)
	}
	return mail, outbox
}

// A Mailer is made once, of whatever delivers, and used by all goroutines of a program.
func Example() {
	outbox := new(locmem.Outbox)
	backend, err := locmem.New(locmem.Config{Outbox: outbox}) // or smtp.New, or a tasks.Queue
	if err != nil {
		fmt.Println(err)
		return
	}
	mail, err := mailer.New(mailer.Config{
		Connect:  func(mailer.Connection) (mailer.Backend, error) { return backend, nil },
		Defaults: mailer.Defaults{FromEmail: "Shop <shop@example.com>"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := mail.SendMail(context.Background(), "Your order", "It is on its way.", "", []string{"fred@example.org"}, nil)
	fmt.Println(sent, err)
	for _, m := range outbox.Messages() {
		fmt.Println(m.Envelope.From, m.Envelope.To, m.Message.Subject)
	}
	// Output:
	// 1 <nil>
	// shop@example.com [fred@example.org] Your order
}

// A text and the same as HTML; and a subject that would add a recipient, which is refused.
func ExampleMailer_SendMail() {
	mail, outbox := shopMailer()
	ctx, to := context.Background(), []string{"fred@example.org"}

	_, err := mail.SendMail(ctx, "Hello", "Hello Fred.", "shop@example.com", to,
		&mailer.SendOptions{HTMLMessage: "<p>Hello <b>Fred</b>.</p>"})
	fmt.Println(err, outbox.Messages()[0].Message.Alternatives[0].Mimetype)

	_, err = mail.SendMail(ctx, "Hello\nBcc: everybody@example.com", "Hello.", "shop@example.com", to, nil)
	fmt.Println(err)
	fmt.Println(mailer.IsBadInput(err), outbox.Len())
	// Output:
	// <nil> text/html
	// bad header: subject: has the control character LF
	// true 1
}

// Each recipient gets a mail of their own. One that fails does not stop the others.
func ExampleMailer_SendMassMail() {
	mail, outbox := shopMailer()
	mails := []mailer.Mail{
		{Subject: "News", Message: "Hello Fred.", From: "shop@example.com", To: []string{"fred@example.org"}},
		{Subject: "News", Message: "Hello?", From: "shop@example.com", To: []string{"not an address"}},
		{Subject: "News", Message: "Hello Jane.", From: "shop@example.com", To: []string{"jane@example.org"}},
	}
	sent, err := mail.SendMassMail(context.Background(), mails, nil)
	fmt.Println(sent, "sent,", outbox.Len(), "in the outbox")
	for i, m := range mails {
		if err := mailer.ErrorAt(err, i); err != nil {
			fmt.Println(m.To, err)
		}
	}
	// Output:
	// 2 sent, 2 in the outbox
	// [not an address] invalid message: to[0]: is not an address
}

func ExampleMailer_MailAdmins() {
	mail, outbox := shopMailer()
	_, err := mail.MailAdmins(context.Background(), "Disk full", "Only 1 % is left.", nil)
	m := outbox.Messages()[0]
	fmt.Println(err, m.Message.FromEmail, m.Message.To, m.Message.Subject)
	// Output: <nil> root@localhost [Ann <ann@example.com>] [Shop] Disk full
}

// What SendMail has no arguments for is in an EmailMessage: alternatives, files, copies,
// headers. Any number of them go over one connection.
func ExampleMailer_Send() {
	mail, outbox := shopMailer()
	m := &mailer.EmailMessage{
		Subject:   "Your invoice",
		Body:      "The invoice is attached.",
		FromEmail: "Shop <shop@example.com>",
		To:        []string{"Fred <fred@example.org>"},
		Bcc:       []string{"archive@example.com"},
		ReplyTo:   []string{"orders@example.com"},
		Headers:   map[string]string{"X-Order": "17"},
	}
	m.AttachAlternative(`<p>The invoice is attached. <img src="cid:logo"></p>`, "text/html")
	m.Attach("invoice.pdf", []byte("%PDF-1.7 ..."), "") // the type is guessed
	m.Attachments = append(m.Attachments, mailer.Attachment{
		Filename: "logo.png", Content: []byte("\x89PNG..."), Mimetype: "image/png", ContentID: "logo",
	})

	sent, err := mail.Send(context.Background(), m)
	fmt.Println(sent, err, outbox.Messages()[0].Envelope.To)
	for line := range strings.SplitSeq(string(outbox.Messages()[0].Raw), "\r\n") {
		if strings.HasPrefix(line, "Content-Type: ") {
			kind, _, _ := strings.Cut(strings.TrimPrefix(line, "Content-Type: "), ";")
			fmt.Println(kind)
		}
	}
	// Output:
	// 1 <nil> [fred@example.org archive@example.com]
	// multipart/mixed
	// multipart/alternative
	// text/plain
	// multipart/related
	// text/html
	// image/png
	// application/pdf
}

// The same message always gives the same bytes.
func ExampleEmailMessage_WriteTo() {
	m := (&mailer.EmailMessage{
		Subject:   "Grüße",
		Body:      "Bis morgen.\n",
		To:        []string{"Jürgen <juergen@bücher.example>"},
		MessageID: "<1@shop.example.com>",
		Date:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}).WithDefaults(mailer.Defaults{FromEmail: "shop@example.com"})

	var b strings.Builder
	if _, err := m.WriteTo(&b); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprint(os.Stdout, strings.ReplaceAll(b.String(), "\r\n", "\n"))
	// Output:
	// From: shop@example.com
	// To: =?utf-8?q?J=C3=BCrgen?= <juergen@xn--bcher-kva.example>
	// Subject: =?utf-8?b?R3LDvMOfZQ==?=
	// Date: Fri, 02 Jan 2026 03:04:05 +0000
	// Message-ID: <1@shop.example.com>
	// MIME-Version: 1.0
	// Content-Type: text/plain; charset=utf-8
	// Content-Transfer-Encoding: 7bit
	//
	// Bis morgen.
}

// An error says what to do: it has a class, and errors.As finds the server's reply in it.
func ExampleClassOf() {
	var err error = mailer.SendErrors{nil, &mailer.SendError{
		Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Enhanced: "5.1.1", Text: "No such user",
	}}
	second := mailer.ErrorAt(err, 1)
	fmt.Println(mailer.ErrorAt(err, 0), "/", second)
	fmt.Println(mailer.ClassOf(second))
	if e, ok := errors.AsType[*mailer.SendError](err); ok {
		fmt.Println(e.Code, e.Enhanced)
	}
	// Output:
	// <nil> / 550 5.1.1 No such user (RCPT)
	// permanent
	// 550 5.1.1
}

// Mail that must not fail anything else: what goes wrong in delivering is swallowed.
func ExampleSilent() {
	backend, err := locmem.New(locmem.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // time is up: nothing can be sent
	messages := []*mailer.EmailMessage{{Subject: "Hello", To: []string{"fred@example.org"}}}

	_, err = backend.SendMessages(ctx, messages)
	fmt.Println(mailer.ClassOf(err))
	sent, err := mailer.Silent(backend).SendMessages(ctx, messages)
	fmt.Println(sent, err)
	// Output:
	// unavailable
	// 0 <nil>
}

// Mail to a list says how to leave it, and whom a report on its failure is about.
func ExampleListUnsubscribe() {
	mail, outbox := shopMailer()
	_, err := mail.Send(context.Background(), &mailer.EmailMessage{
		Subject: "News", Body: "There is something new.", To: []string{"fred@example.org"},
		ListUnsubscribe: mailer.ListUnsubscribe{URL: "https://shop.example.com/leave/Zm9v", OneClick: true},
		VERP:            "bounces@shop.example.com",
	})
	m := outbox.Messages()[0]
	for line := range strings.SplitSeq(string(m.Raw), "\r\n") {
		if strings.HasPrefix(line, "List-") || strings.HasPrefix(line, "Precedence") {
			fmt.Println(line)
		}
	}
	recipient, ok := mailer.VERPRecipient("bounces@shop.example.com", m.Envelope.From)
	fmt.Println(err, m.Envelope.From, recipient, ok)
	// Output:
	// List-Unsubscribe: <https://shop.example.com/leave/Zm9v>
	// List-Unsubscribe-Post: List-Unsubscribe=One-Click
	// Precedence: bulk
	// <nil> bounces+fred=example.org@shop.example.com fred@example.org true
}
