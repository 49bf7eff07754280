package mailer_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// A finished message goes to whom its header says, with its own octets.
func ExampleParseRaw() {
	eml := `From: Ann <ann@example.com>
To: Bob <bob@example.com>
Bcc: eve@example.com
Date: Fri, 02 Jan 2026 03:04:05 +0000
Message-ID: <1@example.com>
Subject: Signed

It  is   signed.
`
	m, err := mailer.ParseRaw([]byte(eml))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.FromEmail, "to", m.Recipients())
	var b strings.Builder
	if _, err := m.WriteTo(&b); err != nil {
		fmt.Println(err)
	}
	fmt.Fprint(os.Stdout, strings.ReplaceAll(b.String(), "\r\n", "\n"))

	// Output:
	// ann@example.com to [bob@example.com eve@example.com]
	// From: Ann <ann@example.com>
	// To: Bob <bob@example.com>
	// Date: Fri, 02 Jan 2026 03:04:05 +0000
	// Message-ID: <1@example.com>
	// Subject: Signed
	//
	// It  is   signed.
}
