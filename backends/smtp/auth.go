package smtp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/mailpouch/mailpouch/mailer"
)

// The mechanisms that we know (RFC 4954 and the documents named beside them).
const (
	mechScram       = "SCRAM-SHA-256" // RFC 7677
	mechCramMD5     = "CRAM-MD5"      // RFC 2195
	mechPlain       = "PLAIN"         // RFC 4616
	mechLogin       = "LOGIN"         // draft-murchison-sasl-login
	mechOAuthBearer = "OAUTHBEARER"   // RFC 7628
	mechXOAuth2     = "XOAUTH2"       // Google's forerunner of it
)

const (
	maxAuthRounds = 10  // challenges in one login
	maxAuthLine   = 512 // RFC 4954, 4: a longer initial response must not ride on AUTH
)

var (
	errNoAuth       = errors.New("the server does not offer AUTH, and a login is configured")
	errInsecureAuth = errors.New("no login over a connection without TLS to another machine: " +
		"use EMAIL_USE_TLS or EMAIL_USE_SSL, or allow it explicitly")
	errNoProof = errors.New("the server did not prove that it knows the password")
)

// login authenticates us if the configuration says so. It tries one mechanism, the
// first of ours that the server offers, and the next only if the server does not
// know that one after all: each refused password counts against the account.
func (c *conn) login(ctx context.Context) error {
	if !c.cfg.login() {
		return nil
	}
	if len(c.ext.auth) == 0 {
		return unavailable(mailer.StepAuth, errNoAuth)
	}
	if !c.cfg.AllowInsecureAuth && c.link.Conn == c.link.raw && !isLocal(c.link.raw.RemoteAddr()) {
		return unavailable(mailer.StepAuth, errInsecureAuth)
	}
	err := unavailable(mailer.StepAuth, fmt.Errorf("no mechanism in common: the server offers %s, and we may use %s",
		printable(strings.Join(c.ext.auth, " ")), strings.Join(c.cfg.AuthMechanisms, " ")))
	for _, mech := range c.cfg.AuthMechanisms {
		if !slices.Contains(c.ext.auth, mech) {
			continue
		}
		err = c.loginWith(ctx, mech)
		var refused *mailer.SendError
		if !errors.As(err, &refused) || refused.Code != 504 && refused.Code != 534 {
			return err
		}
	}
	return err
}

// isLocal says whether what is said to a cannot be heard outside this machine.
func isLocal(a net.Addr) bool {
	if a.Network() == "unix" {
		return true
	}
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func (c *conn) loginWith(ctx context.Context, mech string) error {
	secret := c.cfg.Password
	if c.cfg.TokenSource != nil {
		var err error
		if secret, err = c.cfg.TokenSource(ctx); err != nil {
			return unavailable(mailer.StepAuth, fmt.Errorf("token source: %w", err))
		}
	}
	client, initial, err := c.mechanism(mech, secret)
	if err != nil {
		return unavailable(mailer.StepAuth, fmt.Errorf("%s: %w", mech, err))
	}
	c.in.veil = newVeil(secret, string(initial))
	r, err := c.converse(mech, initial, client)
	if err != nil {
		return unavailable(mailer.StepAuth, fmt.Errorf("%s: %w", mech, err))
	}
	if !r.positive() {
		return c.loginRefused(mech, r, secret, string(initial))
	}
	if proof, ok := client.(interface{ proven() bool }); ok && !proof.proven() {
		return unavailable(mailer.StepAuth, fmt.Errorf("%s: %w", mech, errNoProof))
	}
	c.about.Mechanism = mech
	return nil
}

// mechanism returns the client's side of a mechanism and its initial response.
func (c *conn) mechanism(mech, secret string) (client sasl.Client, initial []byte, err error) {
	switch user := c.cfg.Username; mech {
	case mechScram:
		client, err = newScram(user, secret)
		if err != nil {
			return nil, nil, err
		}
	case mechCramMD5:
		client = &cramMD5{user: user, password: secret}
	case mechPlain:
		client = sasl.NewPlainClient("", user, secret)
	case mechLogin:
		client = &loginClient{answers: []string{user, secret}}
	case mechXOAuth2:
		client = &xoauth2{user: user, token: secret}
	default:
		_, port, _ := net.SplitHostPort(c.addr)
		number, _ := strconv.Atoi(port)
		client = sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: user, Token: secret, Host: c.host, Port: number})
	}
	_, initial, err = client.Start()
	return client, initial, err
}

// converse carries the mechanism's messages (RFC 4954, 4) and returns the last reply.
// The trace has only its beginning and its end.
func (c *conn) converse(mech string, initial []byte, client sasl.Client) (*reply, error) {
	c.trace("C: ", "AUTH "+mech+" (hidden)")
	trace, veil := c.in.trace, c.in.veil
	c.in.trace, c.in.veil = nil, nil // a challenge has to be read as it is
	defer func() { c.in.trace, c.in.veil = trace, veil }()
	line := "AUTH " + mech
	if initial != nil {
		if with := line + " " + encodeInitial(initial); len(with)+len(crlf) <= maxAuthLine {
			line, initial = with, nil
		}
	}
	r, err := c.roundTrip(line)
	for round := 0; err == nil && r.code == 334; round++ {
		if round == maxAuthRounds {
			return nil, errors.New("the server does not stop asking")
		}
		r, err = c.respond(client, r, initial)
		initial = nil
	}
	if err == nil {
		c.trace("S: ", strconv.Itoa(r.code)+" (hidden)")
	}
	return r, err
}

// encodeInitial writes an empty response as "=", for it is not the same as none.
func encodeInitial(initial []byte) string {
	if len(initial) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(initial)
}

// respond answers a challenge, with the initial response if that could not ride on AUTH.
func (c *conn) respond(client sasl.Client, r *reply, initial []byte) (*reply, error) {
	answer := initial
	if initial == nil {
		challenge, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(r.text)))
		if err == nil {
			answer, err = client.Next(challenge)
		}
		if err != nil {
			_, _ = c.roundTrip("*") // RFC 4954, 4: cancels
			return nil, err
		}
	}
	return c.roundTrip(base64.StdEncoding.EncodeToString(answer))
}

// loginRefused is the error of a refused login. A server may repeat in its text
// what we have sent: of the secrets nothing is kept.
func (c *conn) loginRefused(mech string, r *reply, secrets ...string) error {
	refused := refusal(mailer.StepAuth, r)
	for _, secret := range secrets {
		for _, form := range forms(secret) {
			refused.Text = strings.ReplaceAll(refused.Text, form, "(hidden)")
		}
	}
	refused.Text = strings.TrimSpace(refused.Text + " (" + mech + " as " + printable(c.cfg.Username) + ")")
	return refused
}

// newVeil takes secrets out of all that a server says, before, after and long after the
// login. A word of a few letters, which a password should not be, may stand in any reply.
func newVeil(secrets ...string) *strings.Replacer {
	const shortest = 6
	var pairs []string
	for _, secret := range secrets {
		if len(secret) < shortest {
			continue
		}
		for _, form := range forms(secret) {
			pairs = append(pairs, form, "(hidden)")
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
