package filebased_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mailpouch/mailpouch/backends/filebased"
	"github.com/mailpouch/mailpouch/mailer"
)

func Example() {
	dir, err := os.MkdirTemp("", "mail-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()

	backend, err := filebased.New(filebased.Config{Dir: filepath.Join(dir, "sent", "today")})
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := backend.SendMessages(context.Background(), []*mailer.EmailMessage{{
		Subject:   "Your order",
		Body:      "It is on its way.",
		FromEmail: "Shop <shop@example.com>",
		To:        []string{"fred@example.org"},
		MessageID: "<1@shop.example.com>",
		Date:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}})
	fmt.Println(sent, err)

	files, _ := filepath.Glob(filepath.Join(dir, "sent", "today", "*.log"))
	for _, name := range files {
		text, _ := os.ReadFile(name)
		fmt.Printf("%s", text)
	}
	// Output:
	// 1 <nil>
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
}
