package locmem_test

import (
	"context"
	"fmt"

	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/mailer"
)

// A test gives the program an Outbox to send to and looks at what is in it.
func Example() {
	outbox := new(locmem.Outbox)
	backend, err := locmem.New(locmem.Config{Outbox: outbox})
	if err != nil {
		fmt.Println(err)
		return
	}

	m, err := mailer.New(mailer.Config{
		Connect: func(mailer.Connection) (mailer.Backend, error) { return backend, nil },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := m.SendMail(context.Background(), "Hello", "Hi!", "me@example.com", []string{"Fred <fred@example.org>"}, nil)
	fmt.Println(sent, err)

	for _, mail := range outbox.To("fred@example.org") {
		fmt.Println(mail.Message.Subject, mail.Envelope.From, mail.Envelope.To)
	}

	// How a message would wait in a queue is seen too.
	_, err = m.With(mailer.Options{Queue: "bulk", Tags: []string{"sale"}}).SendMail(context.Background(), "Sale", "Everything must go.", "me@example.com", []string{"ann@example.org"}, nil)
	fmt.Println(outbox.To("ann@example.org")[0].Options.Queue, err)
	outbox.Reset()

	_, err = m.SendMail(context.Background(), "Hello\nBcc: everybody@example.com", "Hi!", "me@example.com", []string{"fred@example.org"}, nil)
	fmt.Println(err)
	fmt.Println(outbox.Len())
	// Output:
	// 1 <nil>
	// Hello me@example.com [fred@example.org]
	// bulk <nil>
	// bad header: subject: has the control character LF
	// 0
}
