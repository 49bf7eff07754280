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
	errInsecureAuth = errors.New("no login over a connection without TLS to another machine: " +
		"use EMAIL_USE_TLS or EMAIL_USE_SSL, or allow it explicitly")
)

// login authenticates us. It tries one mechanism, the
// first of ours that the server offers, and the next only if the server does not
// know that one after all: each refused password counts against the account.
func (c *conn) login(ctx context.Context) error {
	if len(c.ext.auth) == 0 {
		return unavailable(mailer.StepAuth, errNoAuth)
	}
	if !c.cfg.AllowInsecureAuth && !c.link.IsEncrypted() && !isLocal(c.link.RemoteAddr()) {
		return unavailable(mailer.StepAuth, errInsecureAuth)
	}
	err := unavailable(mailer.StepAuth, fmt.Errorf("no mechanism in common: the server offers %s, and we may use %s",
		transport.Printable(strings.Join(c.ext.auth, " ")), strings.Join(c.cfg.AuthMechanisms, " ")))
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

// isLocal reports whether what is said to a cannot be heard outside this machine.
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
		return c.loginRefused(mech, r, secret, string(initial))
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
func (c *conn) loginRefused(mech string, r *transport.Reply, secrets ...string) error {
	refused := refusal(mailer.StepAuth, r)
	refused.Text = strings.TrimSpace(auth.Hide(refused.Text, secrets...) + " (" + mech + " as " + transport.Printable(c.cfg.Username) + ")")
	return refused
}
