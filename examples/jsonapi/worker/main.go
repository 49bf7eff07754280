// Command worker is Mailpouch's worker with the jsonapi backend beside the others:
//
//	EMAIL_URL=jsonapi+https://TOKEN@api.example.com worker run
package main

import (
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	"github.com/mailpouch/mailpouch/examples/jsonapi"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

func main() { workercli.Main(registry()) }

func registry() backends.Registry {
	all := backends.Builtin()
	all["jsonapi"] = backends.Entry{
		Schemes: []string{"jsonapi+http", "jsonapi+https"},
		New: func(s settings.Settings) (mailer.Backend, error) {
			return jsonapi.FromURL(s.Delivery.URL.Custom(), backends.Defaults(s))
		},
	}
	return all
}
