package smtp

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/auth"
	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/mailer"
)

const (
	maxAuthRounds = 10  // challenges in one login
	maxAuthLine   = 512 // RFC 4954, 4: a longer initial response must not ride on AUTH
)

var (
	errNoAuth       = errors.New("the server does not offer AUTH, and a login is configured")
	errAuthAfterTLS = errors.New("the server offers no AUTH before STARTTLS, and a login is configured: use EMAIL_USE_TLS")
	errInsecureAuth = errors.New("no login over a connection without TLS to another machine: " +
		"use EMAIL_USE_TLS or EMAIL_USE_SSL, or allow it explicitly")
	errInsecureToken = errors.New("no OAuth 2 token over a connection without TLS to another machine: use EMAIL_USE_TLS or EMAIL_USE_SSL")
)

// login authenticates us. It tries one mechanism: the one that has worked before, or the
// first of ours that the server offers. The next one is tried where the server offers a mechanism and does not
// know it after all, and once, as Logins says, where it refuses the password with one. It is not where
// the server has failed to prove who it is.
func (c *conn) login(ctx context.Context, secret string) error {
	if len(c.ext.auth) == 0 && c.ext.startTLS && !c.link.IsEncrypted() {
		return unavailable(mailer.StepAuth, errAuthAfterTLS)
	}
	if len(c.ext.auth) == 0 {
		return unavailable(mailer.StepAuth, errNoAuth)
	}
	if !c.link.IsEncrypted() && !isLocal(c.link.RemoteAddr()) {
		switch {
		case c.cfg.TokenSource != nil: // RFC 7628, 3: over TLS only
			return unavailable(mailer.StepAuth, errInsecureToken)
		case !c.cfg.AllowInsecureAuth:
			return unavailable(mailer.StepAuth, errInsecureAuth)
		}
	}
	common := slices.DeleteFunc(slices.Clone(c.cfg.AuthMechanisms), func(mech string) bool { return !slices.Contains(c.ext.auth, mech) })
	if len(common) == 0 {
		return unavailable(mailer.StepAuth, fmt.Errorf("no mechanism in common: the server offers %s, and we may use %s",
			transport.Printable(strings.Join(c.ext.auth, " ")), strings.Join(c.cfg.AuthMechanisms, " ")))
	}
	var order []string
	c.known(func(k *knownLogin) { order = k.order(common) })
	var refusals []*mailer.SendError
	renewed := false
	for _, mech := range order {
		err := c.loginWith(mech, secret)
		if isBadLogin(err) && !renewed {
			newer, none := c.again(ctx, secret)
			if none != nil {
				return unavailable(mailer.StepAuth, none)
			}
			if newer != "" {
				secret, renewed = newer, true
				err = c.loginWith(mech, secret)
			}
		}
		if err == nil {
			c.known(func(k *knownLogin) { k.worked(mech) })
			return nil
		}
		var refused *mailer.SendError
		if !errors.As(err, &refused) || refused.Code == 0 {
			return err
		}
		refusals = append(refusals, refused)
		if !c.tryNext(mech, refused.Code, len(common)) || renewed && refused.Code == 535 {
			break
		}
	}
	return loginError(refusals)
}

// known calls f with what is known of our login at this server.
func (c *conn) known(f func(*knownLogin)) { c.cfg.Logins.of(c.addr, c.cfg.Username, c.cfg.Password, f) }

// tryNext reports whether another of so many mechanisms may be tried after one was refused.
func (c *conn) tryNext(mech string, code, of int) bool {
	switch code {
	case 500, 501, 502, 503, 504: // it does not know this one, or not in this form
		return true
	case 534, 553: // it wants another one; 553 is Naver's word for that
		return true
	case 535:
		another := false
		c.known(func(k *knownLogin) { another = k.wrong(mech, of) })
		return another
	}
	return false
}

// loginError is the last refusal, with those before it in its text.
func loginError(refusals []*mailer.SendError) error {
	last := *refusals[len(refusals)-1]
	for _, r := range refusals {
		if r.Code == 535 { // of several it is this one that counts against the account
			last.Code, last.Enhanced = r.Code, r.Enhanced
		}
	}
	if len(refusals) > 1 {
		answers := make([]string, 0, len(refusals))
		for _, r := range refusals {
			answers = append(answers, strings.Join(strings.Fields(strconv.Itoa(r.Code)+" "+r.Enhanced+" "+r.Text), " "))
		}
		last.Text = "no mechanism works: " + strings.Join(answers, "; ")
	}
	return &last
}

// isLocal reports whether what is said to a cannot be heard outside this machine.
func isLocal(a net.Addr) bool {
	if a.Network() == "unix" {
		return true
	}
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// isBadLogin reports whether a server has refused password or token.
func isBadLogin(err error) bool {
	var refused *mailer.SendError
	return errors.As(err, &refused) && refused.Code == 535
}

func (c *conn) loginWith(mech, secret string) error {
	client, initial, err := auth.Start(mech, c.credentials(secret))
	if err != nil {
		return unavailable(mailer.StepAuth, fmt.Errorf("%s: %w", mech, err))
	}
	c.replies.Hide = auth.NewHider(secret, string(initial))
	r, err := c.converse(mech, initial, client)
	if err != nil {
		return unavailable(mailer.StepAuth, fmt.Errorf("%s: %w", mech, err))
	}
	if !r.Positive() {
		return c.loginRefused(mech, auth.Reason(client), r, secret, string(initial))
	}
	if err := auth.Verify(client); err != nil {
		return unavailable(mailer.StepAuth, fmt.Errorf("%s: %w", mech, err))
	}
	c.about.Mechanism = mech
	return nil
}

func (c *conn) credentials(secret string) auth.Credentials {
	_, port, _ := net.SplitHostPort(c.addr)
	number, _ := strconv.Atoi(port)
	return auth.Credentials{Username: c.cfg.Username, Secret: secret, Host: c.host, Port: number}
}

// converse carries the mechanism's messages (RFC 4954, 4) and returns the last reply.
// The trace has only its beginning and its end.
func (c *conn) converse(mech string, initial []byte, client sasl.Client) (*transport.Reply, error) {
	c.trace("C: ", "AUTH "+mech+" (hidden)")
	trace, hide := c.replies.Trace, c.replies.Hide
	c.replies.Trace, c.replies.Hide = nil, nil // a challenge has to be read as it is
	defer func() { c.replies.Trace, c.replies.Hide = trace, hide }()
	line := "AUTH " + mech
	if initial != nil {
		if with := line + " " + encodeInitial(initial); len(with)+len(crlf) <= maxAuthLine {
			line, initial = with, nil
		}
	}
	r, err := c.roundTrip(line)
	for round := 0; err == nil && r.Code == 334; round++ {
		if round == maxAuthRounds {
			return nil, errors.New("the server does not stop asking")
		}
		r, err = c.respond(client, r, initial)
		initial = nil
	}
	if err == nil {
		c.trace("S: ", strconv.Itoa(r.Code)+" (hidden)")
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
func (c *conn) respond(client sasl.Client, r *transport.Reply, initial []byte) (*transport.Reply, error) {
	answer := initial
	if initial == nil {
		challenge, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(r.Text)))
		if err == nil || auth.IsPrompted(client) {
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
// what we have sent: of the secrets nothing is kept. reason is what it has said beside the reply.
func (c *conn) loginRefused(mech, reason string, r *transport.Reply, secrets ...string) error {
	refused := refusal(mailer.StepAuth, r)
	about := mech + " as " + transport.Printable(c.cfg.Username)
	if reason != "" {
		about += ": " + transport.Printable(auth.Hide(reason, secrets...))
	}
	refused.Text = strings.TrimSpace(auth.Hide(refused.Text, secrets...) + " (" + about + ")")
	return refused
}
