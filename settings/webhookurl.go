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
