// Command worker is Mailpouch's worker with the webhook backend beside the others:
//
//	EMAIL_URL=webhook+https://TOKEN@mail.example.com/v1/send worker run
//
// or, for one of several mailers,
//
//	EMAIL_MAILERS=marketing EMAIL_MARKETING_URL=webhook+https://TOKEN@mail.example.com/v1/send worker run
package main

import (
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	"github.com/mailpouch/mailpouch/examples/webhook"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

func main() { workercli.Main(registry()) }

func registry() backends.Registry {
	all := backends.Builtin()
	all["webhook"] = backends.Entry{
		Schemes: []string{"webhook+http", "webhook+https"},
		New: func(s settings.Settings) (mailer.Backend, error) {
			return webhook.FromURL(s.Delivery.URL.Custom(), backends.Defaults(s))
		},
	}
	return all
}
