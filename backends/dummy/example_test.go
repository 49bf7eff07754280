package dummy_test

import (
	"context"
	"fmt"

	"github.com/mailpouch/mailpouch/backends/dummy"
	"github.com/mailpouch/mailpouch/mailer"
)

func Example() {
	backend, err := dummy.New(dummy.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := backend.SendMessages(context.Background(), []*mailer.EmailMessage{
		{Subject: "To Fred", To: []string{"fred@example.org"}},
		{Subject: "To nobody"},
		{Subject: "To Jane\nBcc: everybody@example.com", To: []string{"jane@example.org"}},
	})
	fmt.Println(sent, err)
	fmt.Println(backend.Sent())
	// Output:
	// 1 bad header: subject: has the control character LF
	// 1
}
