// Package smtpd takes mail by SMTP and LMTP from the programs that may hand it in, and hands it over to the queue.
//
// The end of a message is answered with 250 when Redis has it, and not before. The envelope alone decides who gets a message,
// never its header. The message keeps its bytes, but for what a raw message of the package mailer changes, the fields below,
// which are taken out, and a Received field, which is put in front (RFC 5321, 4.4). A line that is no header field ends the header,
// as for Postfix.
//
//	Idempotency-Key       the message is queued once, however often it is handed in with this key
//	X-Mailpouch-Queue     the queue that it waits in
//	X-Mailpouch-Mailer    the mailer that delivers it
//	X-Mailpouch-Tag       a tag; the field may be there several times
//	X-Mailpouch-Mailing   the mailing that it belongs to
//	X-Mailpouch-Schedule  when it is sent, as RFC 3339 writes a time
//
// All but the first take a key that lets its client choose that, or a client that is trusted.
//
// It speaks SMTP (RFC 5321) and LMTP (RFC 2033) with SIZE (RFC 1870), PIPELINING (2920), 8BITMIME (6152), SMTPUTF8 (6531), CHUNKING
// (3030), ENHANCEDSTATUSCODES (2034), STARTTLS (3207) and AUTH (4954). Lines end with CRLF. A bare CR or LF is refused, and its
// connection closed, so that what is one message here is one for all who read it.
package smtpd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/mailer"
)

// Submitter takes what clients hand in: an *intake.Submitter.
type Submitter interface {
	Find(secret string) *intake.Key      // nil if there is none
	Current(key *intake.Key) *intake.Key // as it is now, nil if it was taken away
	Submit(ctx context.Context, key *intake.Key, m *mailer.EmailMessage, o mailer.Options) (id string, err error)
}

// Listener is where clients connect.
type Listener struct {
	Network     string      // "tcp" or "unix"
	Address     string      // host and port, or the path of a socket
	ImplicitTLS bool        // TLS from the first byte (RFC 8314, 3.3)
	LMTP        bool        // LMTP instead of SMTP: a reply for each recipient
	Mode        fs.FileMode // of the socket: 0660 if zero
}

// String is the listener as a URL, such as smtps://0.0.0.0:465.
func (l Listener) String() string {
	scheme := "smtp"
	if l.LMTP {
		scheme = "lmtp"
	}
	if l.ImplicitTLS {
		scheme += "s"
	}
	if l.Network == "unix" {
		return scheme + "+unix://" + l.Address
	}
	return scheme + "://" + l.Address
}

// Config configures a Server. Only Listeners is required.
type Config struct {
	Listeners []Listener
	Hostname  string // in the greeting and in Received fields: the name of the machine if empty

	// TLS offers STARTTLS, and is what listeners with ImplicitTLS speak. Its GetCertificate may give a new certificate at any time.
	TLS *tls.Config

	// Clients from these networks are trusted: they need not log in, may log in without TLS, and do not count for
	// MaxPerAddress. TrustSockets says the same of those who can open a unix socket.
	Networks     []netip.Prefix
	TrustSockets bool

	// LocalLogins lets clients of this machine log in without TLS: what they say does not leave it.
	LocalLogins bool

	MaxConnections int // at the same time, then 421: 1,000 if zero
	MaxPerAddress  int // of them from one address, or one network of 64 bits with IPv6, then 421: 100 if zero
	MaxCommands    int // before the login, then 421: 20 if zero
	MaxLogins      int // that fail over one connection, then 421: 3 if zero
	MaxErrors      int // commands that are refused for good (5yz) without a message that is accepted, then 421: 20 if zero
	MaxRecipients  int // of a message, then 452: 1,000 if zero. RFC 5321, 4.5.3.1.8, wants at least 100

	// MaxMessageSize is how many bytes a message may have as it is handed in, without a Received field of ours, which has less than
	// ReceivedSize: 25,000,000 if zero. SIZE announces it, and a bigger one gets 552.
	MaxMessageSize int

	// MaxBytes is how many bytes all messages together may have that are being received or handed over, in blocks of 64 KiB; then
	// 452: 256 MiB if zero. A message that is being handed over takes several times its size in memory.
	MaxBytes int64

	LoginTimeout   time.Duration // from the connection to the login: a minute if zero
	Timeout        time.Duration // for the next command, for more of a message, and for a client to take a reply: 5 minutes if zero (RFC 5321, 4.5.3.2.7)
	MessageTimeout time.Duration // for a whole message: 10 minutes if zero
	QueueTimeout   time.Duration // for Redis to take a message: 30 seconds if zero

	Log   zerolog.Logger
	Hooks Hooks
}

// Hooks are told what happens, if they are not nil. Many goroutines call them, so they must be quick.
type Hooks struct {
	Opened     func()              // a connection
	Closed     func()              // one that was opened
	TurnedAway func(reason Reason) // a connection, or what a client did over it, was too much
	Login      func(ok bool)

	// Message is told the reply to a whole message, how many bytes it had, and how long Redis and all that goes before it took.
	Message func(code, bytes int, took time.Duration)
}

// Reason is the limit that a client came up against.
type Reason string

// The reasons for which clients are turned away.
const (
	TooManyConnections Reason = "connections"
	TooManyPerAddress  Reason = "address"
	TooManyCommands    Reason = "commands"
	TooManyLogins      Reason = "logins"
	TooManyErrors      Reason = "errors"
	TooSlow            Reason = "timeout"
	BareLineEnd        Reason = "bare line end"
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{TooManyConnections, TooManyPerAddress, TooManyCommands, TooManyLogins, TooManyErrors, TooSlow, BareLineEnd}
}

func (h Hooks) opened() {
	if h.Opened != nil {
		h.Opened()
	}
}

func (h Hooks) closed() {
	if h.Closed != nil {
		h.Closed()
	}
}

func (h Hooks) turnedAway(reason Reason) {
	if h.TurnedAway != nil {
		h.TurnedAway(reason)
	}
}

func (h Hooks) login(ok bool) {
	if h.Login != nil {
		h.Login(ok)
	}
}

func (h Hooks) message(code, bytes int, took time.Duration) {
	if h.Message != nil {
		h.Message(code, bytes, took)
	}
}

// complete fills in what is left open, and reports what cannot be.
func (c Config) complete() (Config, error) {
	if c.Hostname == "" {
		c.Hostname, _ = os.Hostname()
		if !hostname.IsASCII(c.Hostname) {
			c.Hostname = "localhost"
		}
	}
	c.MaxConnections = cmp.Or(c.MaxConnections, 1000)
	c.MaxPerAddress = cmp.Or(c.MaxPerAddress, 100)
	c.MaxCommands = cmp.Or(c.MaxCommands, 20)
	c.MaxLogins = cmp.Or(c.MaxLogins, 3)
	c.MaxErrors = cmp.Or(c.MaxErrors, 20)
	c.MaxRecipients = cmp.Or(c.MaxRecipients, 1000)
	c.MaxMessageSize = cmp.Or(c.MaxMessageSize, 25_000_000)
	c.MaxBytes = cmp.Or(c.MaxBytes, 256<<20)
	c.LoginTimeout = cmp.Or(c.LoginTimeout, time.Minute)
	c.Timeout = cmp.Or(c.Timeout, 5*time.Minute)
	c.MessageTimeout = cmp.Or(c.MessageTimeout, 10*time.Minute)
	c.QueueTimeout = cmp.Or(c.QueueTimeout, 30*time.Second)
	return c, c.check()
}

// minRecipients is how many recipients a server must take (RFC 5321, 4.5.3.1.8).
const minRecipients = 100

func (c Config) check() error {
	switch {
	case len(c.Listeners) == 0:
		return errors.New("smtpd: there is nothing to listen on")
	case !hostname.IsASCII(c.Hostname):
		return fmt.Errorf("smtpd: %q is no host name", c.Hostname)
	case c.MaxRecipients < minRecipients:
		return fmt.Errorf("smtpd: %d recipients of a message are too few: RFC 5321 wants at least %d", c.MaxRecipients, minRecipients)
	case c.MaxBytes < int64(c.MaxMessageSize):
		return fmt.Errorf("smtpd: MaxBytes, %d, is less than one message may have, %d", c.MaxBytes, c.MaxMessageSize)
	}
	for _, l := range c.Listeners {
		switch {
		case l.ImplicitTLS && c.TLS == nil:
			return fmt.Errorf("smtpd: %s takes a certificate", l)
		case c.TLS == nil && !c.LocalLogins && !c.trusts(l):
			return fmt.Errorf("smtpd: nobody can hand in mail at %s: a login takes a certificate, and no clients are trusted", l)
		}
	}
	return nil
}

// trusts reports whether clients of a listener may be trusted.
func (c Config) trusts(l Listener) bool {
	if l.Network == "unix" {
		return c.TrustSockets
	}
	return len(c.Networks) > 0
}

// private reports whether what a client says goes through no open network, though it is in clear text: from goes with trusted.
func (c Config) private(l Listener, from netip.Addr) bool {
	return c.trusted(l, from) || c.LocalLogins && (l.Network == "unix" || from.IsLoopback())
}

// trusted reports whether a client is trusted that came to a listener from an address, which is the zero Addr for a unix socket.
func (c Config) trusted(l Listener, from netip.Addr) bool {
	if l.Network == "unix" {
		return c.TrustSockets
	}
	return slices.ContainsFunc(c.Networks, func(p netip.Prefix) bool { return p.Contains(from) })
}
