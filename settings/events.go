package settings

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
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

// WebhookURLs are addresses that events are posted to. They print, log and encode without what is likely to be secret in them: user,
// password and query. The zero value is empty.
type WebhookURLs struct {
	text *string // a pointer for the same reason as in Secret
}

// NewWebhookURLs checks URLs that are separated by commas. The error never repeats any of a password.
func NewWebhookURLs(text string) (WebhookURLs, error) {
	if len(split(text)) == 0 {
		return WebhookURLs{}, errors.New("names no URL")
	}
	for i, raw := range split(text) {
		u, err := url.Parse(raw)
		switch {
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
			return WebhookURLs{}, fmt.Errorf("number %d is no URL that begins with https:// or http://", i+1)
		case u.Fragment != "":
			return WebhookURLs{}, fmt.Errorf("number %d has a #, behind which nothing is sent: write %%23 if it belongs to the path", i+1)
		case slices.Contains(split(text)[:i], raw):
			return WebhookURLs{}, fmt.Errorf("number %d is there twice", i+1)
		}
	}
	return WebhookURLs{text: &text}, nil
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

// String returns the URLs without user, password and query.
func (u WebhookURLs) String() string {
	all := u.All()
	for i, raw := range all {
		parsed, err := url.Parse(raw)
		if err != nil {
			all[i] = redacted // NewWebhookURLs has seen that it can be parsed
			continue
		}
		all[i] = parsed.Scheme + "://" + parsed.Host + parsed.EscapedPath()
		if parsed.User != nil || parsed.RawQuery != "" {
			all[i] += " (and " + redacted + ")"
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

// How many bytes such a secret has (Standard Webhooks, "Signature scheme").
const (
	minWebhookSecret = 24
	maxWebhookSecret = 64
)

// UnmarshalText reads secrets separated by commas. The error repeats none of them.
func (s *WebhookSecrets) UnmarshalText(text []byte) error {
	for i, secret := range split(string(text)) {
		coded, ok := strings.CutPrefix(secret, "whsec_")
		key, err := base64.StdEncoding.DecodeString(coded)
		if !ok || err != nil || len(key) < minWebhookSecret || len(key) > maxWebhookSecret {
			return fmt.Errorf("number %d is not whsec_ and %d to %d bytes in base64; %s makes one", i+1, minWebhookSecret, maxWebhookSecret, makeSecret)
		}
	}
	return s.Secret.UnmarshalText(text)
}

const makeSecret = "echo whsec_$(openssl rand -base64 32)"

// All returns each of the secrets.
func (s WebhookSecrets) All() []string { return split(s.Reveal()) }

// split returns the entries of a list, which commas and blanks separate.
func split(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' })
}

func (e Events) check(p *Problems) {
	if e.Write == "false" && len(e.URLs.All()) > 0 && !p.has(eventsVariable, webhookURL) {
		p.add(eventsVariable, "is false, so there is nothing to post to %s: leave out the one or the other", webhookURL)
	}
}

// checkWebhooks reports what is missing where webhooks are posted.
func (e Events) checkWebhooks(p *Problems) {
	if len(e.URLs.All()) > 0 && len(e.Secret.All()) == 0 && !p.has(webhookURL, webhookSecret) {
		p.add(webhookSecret, "is not set: what is posted to %s has to be signed; %s makes one", webhookURL, makeSecret)
	}
}

// warn says which settings have no effect, and of what is posted in clear text.
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
	for _, raw := range e.URLs.All() {
		u, err := url.Parse(raw)
		if err == nil && u.Scheme == "http" && !e.Private {
			w.add(webhookURL, "%s is not https: addresses of recipients go there in clear text", u.Hostname())
			return
		}
	}
}
