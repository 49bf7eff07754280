// Package target reads what is set about an endpoint of webhooks: its URL and its secrets. It signs what is posted there as the
// specification Standard Webhooks says (version 1.0.0, https://www.standardwebhooks.com).
package target

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/publicaddr"
)

// What may be wrong with a URL. No error shows the URL, which may have a password or token in it.
var (
	ErrURL      = errors.New("a webhook's URL must be one such as https://example.com/hooks/mail")
	ErrFragment = errors.New("a webhook's URL must have no fragment (#...): it is not sent")
	ErrNotHTTPS = errors.New("a webhook's URL must begin with https://, unless private addresses are allowed")
	ErrPrivate  = errors.New("a webhook's URL must not name this machine or a private network, unless private addresses are allowed")
	ErrNoSecret = errors.New("a webhook needs a secret to sign with")
)

// Target is an endpoint: where events are posted to, and what they are signed with. It prints as its name.
type Target struct {
	url     *url.URL
	secrets []Secret
}

// New reads a URL and the secrets of its endpoint: the one in use and, while it is being changed, those before it. private says that
// the URL may lead to private addresses, and may be an http one.
func New(address string, secrets []string, private bool) (Target, error) {
	u, err := parseURL(address, private)
	if err != nil {
		return Target{}, err
	}
	t := Target{url: u}
	for _, text := range secrets {
		s, err := ParseSecret(text)
		if err != nil {
			return Target{}, err
		}
		t.secrets = append(t.secrets, s)
	}
	if len(t.secrets) == 0 {
		return Target{}, ErrNoSecret
	}
	return t, nil
}

// CheckURL reports what is wrong with a URL: an error that wraps one of ErrURL, ErrFragment, ErrNotHTTPS and ErrPrivate. What a name means is
// looked up only when a connection is opened.
func CheckURL(address string, private bool) error {
	_, err := parseURL(address, private)
	return err
}

// CheckSecret reports what is wrong with a secret: an error that wraps one of ErrSecretPrefix, ErrSecretBase64 and ErrSecretLength.
func CheckSecret(text string) error {
	_, err := ParseSecret(text)
	return err
}

func parseURL(address string, private bool) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil || u.Opaque != "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, ErrURL // the error of url.Parse repeats the URL
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, ErrURL
		}
	}
	if u.Fragment != "" || strings.HasSuffix(address, "#") {
		return nil, ErrFragment
	}
	if private {
		return u, nil
	}
	if u.Scheme != "https" {
		return nil, ErrNotHTTPS
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if addr, err := netip.ParseAddr(host); err == nil && !publicaddr.Is(addr) || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return nil, ErrPrivate
	}
	return u, nil
}

// URL is where it is posted to. It may hold a password or token.
func (t Target) URL() string { return t.url.String() }

// Name is host and port: all of the URL that logs, pages and metrics show.
func (t Target) Name() string { return strings.ToLower(t.url.Host) }

// Hide returns a text that the endpoint has sent without what it repeats of the URL, such as "Cannot POST /hooks/TOKEN", of its login and of the
// secrets. Words of the URL that are too short to be secret stay.
func (t Target) Hide(text string) string {
	const short = 8 // bytes
	hidden := []string{t.url.RequestURI(), t.url.RawQuery}
	for _, segment := range strings.Split(t.url.Path, "/") {
		hidden = append(hidden, segment, url.PathEscape(segment))
	}
	for name, values := range t.url.Query() {
		for _, v := range append(values, name) {
			hidden = append(hidden, v, url.QueryEscape(v))
		}
	}
	if user := t.url.User; user != nil {
		password, _ := user.Password()
		hidden = append(hidden, password, url.QueryEscape(password), base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	for _, s := range t.secrets {
		key := bytes.TrimRight(s.key[:], "\x00")
		hidden = append(hidden, string(key), base64.StdEncoding.EncodeToString(key))
	}
	slices.SortFunc(hidden, func(a, b string) int { return len(b) - len(a) })
	for _, h := range hidden {
		if len(h) >= short {
			text = strings.ReplaceAll(text, h, "(hidden)")
		}
	}
	return text
}

// Key tells endpoints apart, and is the same in all workers and after a new start: the host, as far as a person needs it, and a hash. A query and
// a login are no part of it: they may change, as secrets do. It has letters, digits and hyphens, 47 at most.
func (t Target) Key() string {
	host := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	u := url.URL{Scheme: t.url.Scheme, Host: strings.ToLower(t.url.Host), Path: t.url.Path, RawPath: t.url.RawPath}
	sum := sha256.Sum256([]byte(u.String()))
	return strings.Trim(host[:min(len(host), 30)], "-") + "-" + hex.EncodeToString(sum[:8])
}

// Format prints its name under every verb.
func (t Target) Format(f fmt.State, _ rune) {
	if t.url != nil {
		_, _ = io.WriteString(f, t.Name())
	}
}

// Sign adds the header fields of Standard Webhooks to a post, and again under the names that Svix gave them before. id is the
// event's, at is the time of this try: receivers refuse what is older than five minutes. Each secret makes one signature, and one that the receiver
// knows is enough.
func (t Target) Sign(h http.Header, id string, at time.Time, body []byte) {
	signatures := make([]string, len(t.secrets))
	for i, s := range t.secrets {
		signatures[i] = s.sign(id, at, body)
	}
	for _, prefix := range []string{"webhook-", "svix-"} {
		// As the specification writes them. Header.Set would change the letters.
		h[prefix+"id"] = []string{id}
		h[prefix+"timestamp"] = []string{strconv.FormatInt(at.Unix(), 10)}
		h[prefix+"signature"] = []string{strings.Join(signatures, " ")}
	}
}
