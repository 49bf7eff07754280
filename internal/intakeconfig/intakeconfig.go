// Package intakeconfig makes the configurations of what a process takes in from other programs, and posts to them, from the
// settings: what mailpouch does for queues and workers. It stands beside that package, so that a program which only
// hands mail over links no servers.
package intakeconfig

import (
	"github.com/mailpouch/mailpouch/intake/httpapi"
	"github.com/mailpouch/mailpouch/intake/smtpd"
	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/internal/webhook"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
	"github.com/mailpouch/mailpouch/settings"
)

// SMTP is the submission server that the settings describe. TLS, Log and Hooks are the caller's.
func SMTP(s settings.Settings) smtpd.Config {
	i := s.Intake
	c := smtpd.Config{
		Networks:     i.Networks,
		TrustSockets: true, LocalLogins: true,
		MaxConnections: i.Connections, MaxPerAddress: i.ConnectionsPerAddress, MaxRecipients: i.Recipients,
		MaxMessageSize: int(s.Queue.MaxMessageSize), MaxBytes: int64(i.Memory), Timeout: i.Timeout,
	}
	// A message is as big as it waits in the queue, with the Received field. Without a limit there is that of all together.
	if c.MaxMessageSize == 0 {
		c.MaxMessageSize = int(i.Memory)
	}
	c.MaxMessageSize = max(c.MaxMessageSize-smtpd.ReceivedSize, 1)
	if hostname.IsASCII(s.Message.Hostname) { // which an address literal is not
		c.Hostname = s.Message.Hostname
	}
	for _, l := range i.Submission {
		c.Listeners = append(c.Listeners, smtpd.Listener{Network: l.Network, Address: l.Address, ImplicitTLS: l.TLS, LMTP: l.LMTP})
	}
	return c
}

// HTTP is the JSON API that the settings describe. Log and Observe are the caller's.
func HTTP(s settings.Settings) httpapi.Config {
	// A file has a third more as base64, and a client writes some around it.
	const atLeast = 64 << 20
	return httpapi.Config{MaxBody: max(atLeast, 2*int64(s.Queue.MaxMessageSize))}
}

// Webhooks is the dispatcher of events that the settings describe. Redis, Observers and Logger are the caller's. An error is settings.Problems.
func Webhooks(s settings.Settings) (webhook.Config, error) {
	cfg := webhook.Config{AllowPrivate: s.Events.Private}
	seen := map[string]bool{}
	for _, url := range s.Events.URLs.All() {
		t, err := target.New(url, s.Events.Secret.All(), s.Events.Private)
		if err == nil && seen[t.Key()] {
			err = webhook.ErrTwice
		}
		if err != nil {
			return webhook.Config{}, settings.Problems{{Name: "EMAIL_WEBHOOK_URL", Text: err.Error()}}
		}
		seen[t.Key()] = true
		cfg.Targets = append(cfg.Targets, t)
	}
	return cfg, nil
}
