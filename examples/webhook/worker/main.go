// Command worker is Mailpouch's worker with the webhook backend beside the others:
//
//	EMAIL_QUEUE_BACKEND=webhook WEBHOOK_URL=https://mail.example.com/v1/send WEBHOOK_TOKEN=... worker run
package main

import (
	"os"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	"github.com/mailpouch/mailpouch/examples/webhook"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

func main() {
	registry := backends.Builtin()
	registry["webhook"] = func(s settings.Settings) (mailer.Backend, error) {
		return webhook.New(webhook.Config{
			URL: os.Getenv("WEBHOOK_URL"), Token: os.Getenv("WEBHOOK_TOKEN"),
			Defaults: backends.Defaults(s),
		})
	}
	workercli.Main(registry)
}
