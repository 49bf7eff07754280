package settings

import "github.com/mailpouch/mailpouch/internal/webhook/target"

// Variables that texts name.
const (
	eventsVariable = "EMAIL_EVENTS"
	webhookURL     = "EMAIL_WEBHOOK_URL"
	webhookSecret  = "EMAIL_WEBHOOK_SECRET" //nolint:gosec // the name of a variable
	webhookPrivate = "EMAIL_WEBHOOK_ALLOW_PRIVATE"
)

// On reports whether events are written.
func (e Events) On() bool { return e.Write == "true" || e.Write != "false" && len(e.URLs.All()) > 0 }

func (e Events) check(p *Problems) {
	for _, raw := range e.URLs.All() {
		if err := target.CheckURL(raw, e.Private); err != nil && !p.has(webhookURL, webhookPrivate) {
			p.add(webhookURL, "%v (%s)", numbered(e.URLs.Reveal(), raw, err), webhookPrivate)
		}
	}
	if e.Write == "false" && len(e.URLs.All()) > 0 && !p.has(eventsVariable, webhookURL) {
		p.add(eventsVariable, "is false, so there is nothing to post to %s: leave out the one or the other", webhookURL)
	}
}

// checkWebhooks reports what is missing where webhooks are posted.
func (e Events) checkWebhooks(p *Problems) {
	if len(e.URLs.All()) > 0 && len(e.Secret.All()) == 0 && !p.has(webhookURL, webhookSecret) {
		p.add(webhookSecret, "is not set: what is posted to %s has to be signed; echo \"whsec_$(openssl rand -base64 32)\" makes one", webhookURL)
	}
}

// warn says which settings have no effect.
func (e Events) warn(sets func(variable string) bool, w *Problems) {
	if len(e.URLs.All()) == 0 {
		for _, v := range []string{webhookSecret, webhookPrivate} {
			if sets(v) {
				w.add(v, "has no effect without %s", webhookURL)
			}
		}
	}
	if !e.On() && sets("EMAIL_EVENTS_SIZE") {
		w.add("EMAIL_EVENTS_SIZE", "has no effect without %s or %s", eventsVariable, webhookURL)
	}
}
