package backends_test

import (
	"context"
	"fmt"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// A test puts an outbox in the place of the real backend and leaves the rest as it is.
func ExampleRegistry_Mailer() {
	outbox := new(locmem.Outbox)
	registry := backends.Builtin()
	registry["locmem"] = backends.Entry{New: func(s settings.Settings) (mailer.Backend, error) {
		return locmem.New(locmem.Config{Outbox: outbox, Defaults: backends.Defaults(s)})
	}}
	s := settings.Default()
	s.Delivery.Backend = "locmem"
	s.Message.Admins = settings.Addresses{"Ann <ann@example.com>"}
	mail, err := registry.Mailer(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := mail.MailAdmins(context.Background(), "Disk full", "Only 1 % is left.", nil); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range outbox.Messages() {
		fmt.Println(m.Envelope.From, m.Envelope.To, m.Message.Subject)
	}
	// Output: root@localhost [ann@example.com] [Django] Disk full
}

// A backend is opened by its name, and a name that is not there is told with the nearest one.
func ExampleRegistry_New() {
	registry, s := backends.Builtin(), settings.Default()
	backend, err := registry.New("dummy", s)
	fmt.Printf("%T %v\n", backend, err)
	backend, err = registry.New("django.core.mail.backends.console.EmailBackend", s)
	fmt.Printf("%T %v\n", backend, err)
	_, err = registry.New("smpt", s)
	fmt.Println(err)
	// Output:
	// *dummy.Backend <nil>
	// *console.Backend <nil>
	// backends: no backend is named "smpt"; did you mean smtp? (there are console, dummy, failover, filebased, locmem, smtp)
}
