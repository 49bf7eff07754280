package dkim_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/backends/dkim"
	"github.com/mailpouch/mailpouch/mailer"
)

// A program signs with the key of its domain, and publishes the record of the key.
func Example() {
	seed, _ := base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=") // of RFC 8463, A.2
	key := dkim.Key{Domain: "example.com", Selector: "brisbane", Private: ed25519.NewKeyFromSeed(seed)}
	fmt.Println(key.Record())

	signer, err := dkim.New(dkim.Config{Keys: []dkim.Key{key}})
	if err != nil {
		fmt.Println(err)
		return
	}
	signed, err := signer.Sign(context.Background(), &mailer.EmailMessage{
		Subject: "Is dinner ready?", Body: "We lost the game. Are you hungry yet?\n", FromEmail: "Joe <joe@example.com>", To: []string{"suzie@example.net"},
		MessageID: "<20260711.435@example.com>", Date: time.Date(2026, 7, 11, 21, 0, 37, 0, time.UTC),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var message strings.Builder
	if _, err := signed.WriteTo(&message); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(strings.ReplaceAll(message.String(), "\r\n", "\n"))
	// Output:
	// brisbane._domainkey.example.com v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
	// DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.com;
	//  s=brisbane; t=1783803637; h=From:From:To:To:Cc:Subject:Subject:Reply-To:
	//  List-Unsubscribe:List-Unsubscribe-Post:MIME-Version:Content-Type:
	//  Content-Transfer-Encoding; bh=HUUj1QqjAAclPQYl9mOgBHa2JHWZ1elxh51Tz8KpeVo=;
	//  b=OYvxjapjKD/bT0Ctga+v6kxdja2wuJoj7N/YGE7BVMBUogB1ZR0FLQmqQJEoDlmgE25L6qT4i
	//    ntz5Ckhfk8tCg==
	// From: Joe <joe@example.com>
	// To: suzie@example.net
	// Subject: Is dinner ready?
	// Date: Sat, 11 Jul 2026 21:00:37 +0000
	// Message-ID: <20260711.435@example.com>
	// MIME-Version: 1.0
	// Content-Type: text/plain; charset=utf-8
	// Content-Transfer-Encoding: 7bit
	//
	// We lost the game. Are you hungry yet?
}

// A key may be in a file, as the command "worker dkim key" and OpenSSL write it.
func ExampleReadKey() {
	_, err := dkim.ReadKey("testdata/missing.pem")
	fmt.Println(err)
	_, err = dkim.ParseKey([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	fmt.Println(err)
	// Output:
	// dkim: cannot be read: open testdata/missing.pem: no such file or directory
	// dkim: the text holds no private key, only "PUBLIC KEY"
}
