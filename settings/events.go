package settings

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

// Variables that texts name.
const (
	eventsVariable = "EMAIL_EVENTS"
	webhookURL     = "EMAIL_WEBHOOK_URL"
	webhookSecret  = "EMAIL_WEBHOOK_SECRET" //nolint:gosec // the name of a variable
	webhookPrivate = "EMAIL_WEBHOOK_ALLOW_PRIVATE"
)

// On reports whether events are written.
func (e Events) On() bool { return e.Write == "true" || e.Write != "false" && len(e.URLs.All()) > 0 }

// WebhookURLs are addresses that events are posted to. They print, log and encode without all behind the host, which may be secret. The
// zero value is empty.
type WebhookURLs struct {
	text *string // a pointer for the same reason as in Secret
}

// NewWebhookURLs checks URLs that are separated by commas. The error never repeats any of them.
func NewWebhookURLs(text string) (WebhookURLs, error) {
	if len(split(text)) == 0 {
		return WebhookURLs{}, errors.New("names no URL")
	}
	for _, raw := range split(text) {
		if err := target.CheckURL(raw, true); err != nil { // which addresses are allowed is another setting
			return WebhookURLs{}, numbered(text, raw, err)
		}
	}
	return WebhookURLs{text: &text}, nil
}

// numbered says which entry of a list of secrets an error is about.
func numbered(list, entry string, err error) error {
	if all := split(list); len(all) > 1 {
		return fmt.Errorf("number %d: %w", slices.Index(all, entry)+1, err)
	}
	return err
}

// Reveal returns the URLs as they were written.
func (u WebhookURLs) Reveal() string {
	if u.text == nil {
		return ""
	}
	return *u.text
}

// All returns each of the URLs as it was written.
func (u WebhookURLs) All() []string { return split(u.Reveal()) }

// String returns the URLs without all behind their hosts.
func (u WebhookURLs) String() string {
	all := u.All()
	for i, raw := range all {
		parsed, err := url.Parse(raw)
		if err != nil {
			all[i] = redacted // NewWebhookURLs has seen that it can be parsed
			continue
		}
		all[i] = parsed.Scheme + "://" + parsed.Host
		if strings.Trim(parsed.Path, "/") != "" || parsed.User != nil || parsed.RawQuery != "" {
			all[i] += "/" + redacted
		}
	}
	return strings.Join(all, ", ")
}

// GoString is String, for %#v.
func (u WebhookURLs) GoString() string { return u.String() }

// Format prints String under every verb.
func (u WebhookURLs) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// MarshalText returns String; encoding/json uses it too.
func (u WebhookURLs) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is NewWebhookURLs.
func (u *WebhookURLs) UnmarshalText(text []byte) error {
	parsed, err := NewWebhookURLs(string(text))
	if err == nil {
		*u = parsed
	}
	return err
}

// WebhookSecrets are secrets that webhooks are signed with.
type WebhookSecrets struct{ Secret }

// UnmarshalText reads secrets separated by commas. The error repeats none of them.
func (s *WebhookSecrets) UnmarshalText(text []byte) error {
	for _, secret := range split(string(text)) {
		if err := target.CheckSecret(secret); err != nil {
			return numbered(string(text), secret, err)
		}
	}
	return s.Secret.UnmarshalText(text)
}

// All returns each of the secrets.
func (s WebhookSecrets) All() []string { return split(s.Reveal()) }

// split returns the entries of a list, which commas and blanks separate.
func split(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' })
}

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
