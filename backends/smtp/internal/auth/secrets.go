package auth

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
)

const hidden = "(hidden)"

// Hide takes secrets, of whatever length, out of a text.
func Hide(text string, secrets ...string) string {
	for _, secret := range secrets {
		for _, form := range forms(secret) {
			text = strings.ReplaceAll(text, form, hidden)
		}
	}
	return text
}

// NewHider takes secrets out of all that a server says, before, after and long after the
// login; nil if there are none. A word of a few letters, which a password should not be, may
// stand in any reply.
func NewHider(secrets ...string) *strings.Replacer {
	const shortest = 6
	var pairs []string
	for _, secret := range secrets {
		if len(secret) < shortest {
			continue
		}
		for _, form := range forms(secret) {
			pairs = append(pairs, form, hidden)
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	return strings.NewReplacer(pairs...)
}

// forms are the ways in which a secret may be written, the longest first.
func forms(secret string) []string {
	if secret == "" {
		return nil
	}
	data := []byte(secret)
	all := []string{
		base64.StdEncoding.EncodeToString(data), base64.RawStdEncoding.EncodeToString(data), base64.RawURLEncoding.EncodeToString(data),
		url.QueryEscape(secret), url.PathEscape(secret), hex.EncodeToString(data), secret,
	}
	slices.SortStableFunc(all, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(all)
}
