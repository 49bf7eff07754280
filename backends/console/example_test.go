package console_test

import (
	"context"
	"fmt"
	"time"

	"github.com/mailpouch/mailpouch/backends/console"
	"github.com/mailpouch/mailpouch/mailer"
)

func Example() {
	backend, err := console.New(console.Config{}) // to os.Stdout
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := backend.SendMessages(context.Background(), []*mailer.EmailMessage{{
		Subject:   "Your order",
		Body:      "It is on its way.",
		FromEmail: "Shop <shop@example.com>",
		To:        []string{"fred@example.org"},
		Bcc:       []string{"archive@example.com"},
		MessageID: "<1@shop.example.com>",
		Date:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}})
	fmt.Println(sent, err)
	// Output:
	// From: Shop <shop@example.com>
	// To: fred@example.org
	// Subject: Your order
	// Date: Fri, 02 Jan 2026 03:04:05 +0000
	// Message-ID: <1@shop.example.com>
	// MIME-Version: 1.0
	// Content-Type: text/plain; charset=utf-8
	// Content-Transfer-Encoding: 7bit
	//
	// It is on its way.
	//
	// -------------------------------------------------------------------------------
	// 1 <nil>
}
