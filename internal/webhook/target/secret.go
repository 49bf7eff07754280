package target

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// What may be wrong with a secret. No error shows the secret.
var (
	ErrSecretPrefix = errors.New(`a webhook's secret must begin with whsec_; echo "whsec_$(openssl rand -base64 32)" makes one`)
	ErrSecretBase64 = errors.New(`a webhook's secret must be whsec_ and base64 with its padding (letters, digits, + and /); echo "whsec_$(openssl rand -base64 32)" makes one`)
	ErrSecretLength = errors.New(`a webhook's secret must be 24 to 64 bytes in base64; echo "whsec_$(openssl rand -base64 32)" makes one of 32`)
)

const secretPrefix = "whsec_"

// Secret is what posts to an endpoint are signed with. It is shown nowhere, whatever prints it.
type Secret struct{ key *[sha256.BlockSize]byte } // a pointer: fmt prints unexported fields without asking their methods; HMAC fills a shorter key with zeros

// ParseSecret reads a secret in the form of Standard Webhooks: whsec_ and 24 to 64 bytes in base64. It is as strict as the strictest
// library of receivers: a secret that is read here in one way and there in another would make every signature a wrong one.
func ParseSecret(text string) (Secret, error) {
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return Secret{}, fmt.Errorf("%w%s", ErrSecretPrefix, likely(text))
	}
	if strings.ContainsAny(encoded, "\r\n") { // which the decoder skips
		return Secret{}, ErrSecretBase64
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	switch {
	case err != nil:
		return Secret{}, ErrSecretBase64 // its own text tells where
	case len(key) < 24 || len(key) > sha256.BlockSize:
		return Secret{}, ErrSecretLength
	}
	s := Secret{new([sha256.BlockSize]byte)}
	copy(s.key[:], key)
	return s, nil
}

// likely says what a text without whsec_ probably is.
func likely(text string) string {
	switch {
	case strings.HasPrefix(text, "v1,"):
		return "; leave out the v1, before it"
	case strings.HasPrefix(text, "whsk_"), strings.HasPrefix(text, "whpk_"):
		return "; keys of asymmetric signatures are not supported"
	}
	return ""
}

// Format prints nothing of it under any verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// MarshalText is Format for encoding/json and its like.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// sign returns the signature of a post as Standard Webhooks have it.
func (s Secret) sign(id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, s.key[:])
	_, _ = mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	_, _ = mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
