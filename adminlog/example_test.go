package adminlog_test

import (
	"errors"
	"fmt"
	"io"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/adminlog"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/mailer"
)

func Example() {
	backend, err := locmem.New(locmem.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	mail, err := mailer.New(mailer.Config{
		Connect:       func(mailer.Connection) (mailer.Backend, error) { return backend, nil },
		Admins:        []string{"ann@example.com"},
		SubjectPrefix: "[Shop] ",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	admins, err := adminlog.New(adminlog.Config{
		Mailer: mail,
		Redact: func(key string) bool { return key == "card" },
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	log := zerolog.New(zerolog.MultiLevelWriter(io.Discard, admins)) // os.Stderr in a program
	log.Info().Msg("order received")
	log.Error().Err(errors.New("declined")).Int("order", 17).Str("card", "4111").Msg("cannot take payment")

	if err := admins.Close(); err != nil { // mails what waits
		fmt.Println(err)
	}
	for _, m := range backend.Outbox().Messages() {
		fmt.Println(m.Envelope.From, m.Envelope.To, m.Message.Subject)
		fmt.Println()
		fmt.Print(m.Message.Body)
	}
	// Output:
	// root@localhost [ann@example.com] [Shop] ERROR: cannot take payment
	//
	// ERROR: cannot take payment
	//
	// card: [redacted]
	// error: declined
	// level: error
	// message: cannot take payment
	// order: 17
}
