package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/auth"
	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/internal/replyrule"
	"github.com/mailpouch/mailpouch/mailer"
)

// TLSMode says when the connection is encrypted.
type TLSMode int

const (
	// TLSNone sends in clear text, even if the server offers STARTTLS.
	TLSNone TLSMode = iota
	// TLSStart begins in clear text and requires STARTTLS (RFC 3207). A server
	// that does not offer it, or refuses it, gets no mail.
	TLSStart
	// TLSImplicit speaks TLS from the first octet (RFC 8314, 3.3).
	TLSImplicit
)

// Mode switches the use of an extension that a server may offer.
type Mode string

const (
	// Auto uses the extension where the server offers it.
	Auto Mode = "auto"
	// Off never uses it.
	Off Mode = "off"
)

// Config says where and how to deliver. Its zero value means localhost, port 25, in
// clear text and without a password. All durations default as written when they
// are zero, and must not be negative.
type Config struct {
	// Addrs are the servers, tried in this order until one takes us: "host",
	// "host:port", or with Network "unix" the path of a socket. The port defaults
	// to 25, 587 or 465 by the mode of TLS. Default: localhost.
	Addrs []string

	// Network is "tcp" (IPv6 and IPv4 raced as in RFC 8305), "tcp4", "tcp6" or
	// "unix". Default: tcp.
	Network string

	// LocalAddr is the IP address to connect from. Default: the system's choice.
	LocalAddr string

	// Hostname is our name in EHLO. Default: the machine's full name, or, if it has
	// none, our IP address as a literal (RFC 5321, 4.1.4).
	Hostname string

	// Username and Password log in (RFC 4954) if neither is empty.
	Username string
	Password string

	// TokenSource gives the OAuth 2 access token of each login. With it, Username logs in by
	// OAUTHBEARER or XOAUTH2, never with Password, and never to another machine without TLS. The package
	// oauth has one. Backends that log in as the same user should share it.
	TokenSource TokenSource

	// AuthMechanisms are the mechanisms that may be used, in order of preference.
	// Default: SCRAM-SHA-256, CRAM-MD5, PLAIN, LOGIN; with a TokenSource
	// OAUTHBEARER, XOAUTH2.
	AuthMechanisms []string

	// Logins is what backends know of the logins that were tried. Those that log in to the same server
	// should share one. Default: one of its own.
	Logins *Logins

	// AllowInsecureAuth lets a login with a password go over a connection without TLS to another
	// machine. To this machine (loopback, unix) it always may.
	AllowInsecureAuth bool

	// TLS is the mode of encryption. TLS 1.2 is the oldest version used, and the
	// server's certificate is always verified.
	TLS TLSMode

	// ServerName is the name that the server's certificate must carry. Default:
	// the host of its address.
	ServerName string

	// CAFile is a PEM file of the authorities to trust instead of the system's.
	CAFile string

	// CertFile and KeyFile are PEM files of our own certificate, for servers that
	// ask for one. Both or neither.
	CertFile string
	KeyFile  string

	// ConnectTimeout limits connecting to one address, TLS handshake excluded.
	// Default: 30 s.
	ConnectTimeout time.Duration

	// CommandTimeout limits the wait for the greeting, for the TLS handshake, for
	// the reply to each command, and for the server to take any more of a body: one
	// that is read slowly goes on as long as some of it is read within this time. Default:
	// 5 min (RFC 5321, 4.5.3.2).
	CommandTimeout time.Duration

	// DataTimeout limits the wait for the reply to the final dot, when the server
	// has the whole message: a timeout here may become a second copy. Default:
	// 10 min (RFC 5321, 4.5.3.2.6).
	DataTimeout time.Duration

	// IdleTimeout is how long an open connection may go unused before it is
	// closed; the next message opens a new one. Default: 1 min.
	IdleTimeout time.Duration

	// MaxMessages, MaxBytes and MaxAge retire a connection that has carried so
	// many messages or bytes of them, or has lived so long; the batch goes on over
	// a new one. Default: no limit.
	MaxMessages int
	MaxBytes    int64
	MaxAge      time.Duration

	// Pipelining sends the end of one message together with the envelope of the
	// next (RFC 2920): one round trip a message. Auto or Off. Default: Auto.
	Pipelining Mode

	// Chunking streams messages with BDAT (RFC 3030) to a server that offers both
	// PIPELINING and CHUNKING, with up to a window of them unanswered: next to no
	// round trips. What is in the window when a connection dies may be delivered
	// twice. Exim closes a connection after ten refused messages in a row, as it
	// counts their RSETs: what is in the window then is in doubt too. Not used with
	// LMTP. Auto or Off. Default: Off.
	Chunking Mode

	// Window is how many messages, and WindowBytes how many bytes of them, may be
	// unanswered when chunking; one message may always be. Default: 16, 4 MiB.
	Window      int
	WindowBytes int64

	// LMTP speaks LMTP (RFC 2033) instead of SMTP: one reply for each recipient.
	LMTP bool

	// TemporaryReplies are the permanent refusals (5yz) of a message or a recipient that mean "not now" when
	// this server says them, such as those for a daily limit. Each is a reply code, an enhanced status code, a
	// text that stands somewhere in the reply's, or several of these in this order: "550 5.4.5", "554 5.7.0 too
	// many", "daily*exceeded", where * stands for any text. Such a refusal is of the class Unavailable. Replies whose own
	// enhanced status code says that they are temporary need no rule. Default: none.
	TemporaryReplies []string

	// DSN asks for delivery status notifications where the server offers DSN.
	DSN DSN

	// Defaults completes messages that lack a sender, charset, date or Message-ID.
	Defaults mailer.Defaults

	// Trace, if not nil, is called with each line of the conversation, marked "C: "
	// or "S: ", and with events, marked "*: ". Logins and message bodies are left
	// out. A Backend calls it from one goroutine at a time, which is another one when
	// it closes an idle connection. It must not call the Backend.
	Trace func(line string)

	// Hooks, if not nil, are told of connections and messages.
	Hooks *Hooks

	// Dial, if not nil, connects instead of a net.Dialer with LocalAddr. Network
	// and address are as for net.Dial.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	temporary []replyrule.Rule // TemporaryReplies
}

// TokenSource gives OAuth 2 access tokens to log in with. Several goroutines may use it.
type TokenSource interface {
	// Token returns a token that the server should accept. It is asked before each connection is opened; without one
	// none is. Its error is shown to people: it must not have a secret in it.
	Token(ctx context.Context) (string, error)

	// Refused is called when a server has refused a token (535). If Token returns another one then, the login is tried
	// with that, once.
	Refused(token string)
}

// TokenFunc is a TokenSource that is not told of refusals.
type TokenFunc func(ctx context.Context) (string, error)

// Token implements TokenSource.
func (f TokenFunc) Token(ctx context.Context) (string, error) { return f(ctx) }

// Refused implements TokenSource. It does nothing.
func (f TokenFunc) Refused(string) {}

// DSN is what to ask about the fate of messages (RFC 3461). The zero value asks
// for nothing. The envelope id is the Message-ID.
type DSN struct {
	// Notify is "NEVER", or a list of SUCCESS, FAILURE and DELAY with commas.
	Notify string
	// Return is how much of the message a report returns: "FULL" or "HDRS".
	Return string
}

// String describes the configuration without its secrets.
func (c Config) String() string {
	s := "smtp"
	if c.LMTP {
		s = "lmtp"
	}
	if c.TLS == TLSImplicit {
		s += "s"
	}
	s += "://"
	if c.Username != "" {
		s += c.Username + "@"
	}
	return s + strings.Join(c.Addrs, ",")
}

// GoString is String, so that no verb of fmt prints a password.
func (c Config) GoString() string { return c.String() }

// complete returns c with its defaults filled in, or says what is wrong with it.
func (c Config) complete() (Config, error) {
	c.Network = cmp.Or(c.Network, "tcp")
	if len(c.Addrs) == 0 {
		c.Addrs = []string{"localhost"}
	}
	c.Addrs = slices.Clone(c.Addrs)
	for i, addr := range c.Addrs {
		c.Addrs[i] = c.withPort(addr)
	}
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 30*time.Second)
	c.CommandTimeout = cmp.Or(c.CommandTimeout, 5*time.Minute)
	c.DataTimeout = cmp.Or(c.DataTimeout, 10*time.Minute)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, time.Minute)
	c.Pipelining = cmp.Or(c.Pipelining, Auto)
	c.Chunking = cmp.Or(c.Chunking, Off)
	c.Window = cmp.Or(c.Window, 16)
	c.WindowBytes = cmp.Or(c.WindowBytes, 4<<20)
	if c.Logins == nil {
		c.Logins = new(Logins)
	}
	if len(c.AuthMechanisms) == 0 {
		c.AuthMechanisms = c.knownMechanisms()
	}
	var bad error
	if c.temporary, bad = rules(c.TemporaryReplies); bad != nil {
		bad = fmt.Errorf("smtp: config: TemporaryReplies: %w", bad)
	}
	return c, errors.Join(bad, c.checkNetwork(), c.checkLogin(), c.checkLimits(), c.checkDSN())
}

// rules reads TemporaryReplies.
func rules(texts []string) (list []replyrule.Rule, err error) {
	for _, text := range texts {
		rule, bad := replyrule.Parse(text)
		list, err = append(list, rule), errors.Join(err, bad)
	}
	return list, err
}

// withPort adds the port that belongs to the mode of TLS if addr has none.
func (c Config) withPort(addr string) string {
	if c.Network == "unix" {
		return addr
	}
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	port := "25"
	switch c.TLS {
	case TLSNone:
	case TLSStart:
		port = "587"
	case TLSImplicit:
		port = "465"
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), port)
}

func (c Config) checkNetwork() error {
	if !slices.Contains([]string{"tcp", "tcp4", "tcp6", "unix"}, c.Network) {
		return fmt.Errorf("smtp: config: Network: %q is none of tcp, tcp4, tcp6, unix", c.Network)
	}
	if c.TLS < TLSNone || c.TLS > TLSImplicit {
		return fmt.Errorf("smtp: config: TLS: no such mode: %d", c.TLS)
	}
	if c.LocalAddr != "" && net.ParseIP(c.LocalAddr) == nil {
		return fmt.Errorf("smtp: config: LocalAddr: %q is not an IP address", c.LocalAddr)
	}
	if c.Hostname != "" && !hostname.IsASCII(c.Hostname) && !hostname.IsAddressLiteral(c.Hostname) {
		return errors.New("smtp: config: Hostname: neither a host name in ASCII nor an address literal")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("smtp: config: CertFile and KeyFile need each other")
	}
	return nil
}

func (c Config) checkLogin() error {
	known := c.knownMechanisms()
	for _, mech := range c.AuthMechanisms {
		if !slices.Contains(known, mech) {
			return fmt.Errorf("smtp: config: AuthMechanisms: %q is none of %s", mech, strings.Join(known, ", "))
		}
	}
	if c.TokenSource != nil && c.Username == "" {
		return errors.New("smtp: config: TokenSource needs a Username")
	}
	return nil
}

func (c Config) checkLimits() error {
	for _, d := range []struct {
		name  string
		value int64
	}{
		{"ConnectTimeout", int64(c.ConnectTimeout)}, {"CommandTimeout", int64(c.CommandTimeout)},
		{"DataTimeout", int64(c.DataTimeout)}, {"IdleTimeout", int64(c.IdleTimeout)},
		{"MaxMessages", int64(c.MaxMessages)}, {"MaxBytes", c.MaxBytes}, {"MaxAge", int64(c.MaxAge)},
		{"Window", int64(c.Window)}, {"WindowBytes", c.WindowBytes},
	} {
		if d.value < 0 {
			return fmt.Errorf("smtp: config: %s must not be negative", d.name)
		}
	}
	for _, m := range []Mode{c.Pipelining, c.Chunking} {
		if m != Auto && m != Off {
			return fmt.Errorf("smtp: config: %q is neither %s nor %s", m, Auto, Off)
		}
	}
	return nil
}

func (c Config) checkDSN() error {
	if !slices.Contains([]string{"", "FULL", "HDRS"}, c.DSN.Return) {
		return fmt.Errorf("smtp: config: DSN.Return: %q is neither FULL nor HDRS", c.DSN.Return)
	}
	if c.DSN.Notify == "" || c.DSN.Notify == "NEVER" {
		return nil
	}
	for word := range strings.SplitSeq(c.DSN.Notify, ",") {
		if !slices.Contains([]string{"SUCCESS", "FAILURE", "DELAY"}, word) {
			return fmt.Errorf("smtp: config: DSN.Notify: %q is none of SUCCESS, FAILURE, DELAY", word)
		}
	}
	return nil
}

// knownMechanisms are those that go with the kind of secret we have, strongest first.
func (c Config) knownMechanisms() []string {
	if c.TokenSource != nil {
		return auth.Tokens()
	}
	return auth.Passwords()
}

// login reports whether there is somebody to log in as.
func (c Config) login() bool {
	return c.Username != "" && (c.Password != "" || c.TokenSource != nil)
}

// tlsConfig returns the configuration of TLS for host, with the files read.
func (c Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         c.ServerName,
		ClientSessionCache: tls.NewLRUClientSessionCache(len(c.Addrs)),
	}
	if c.CAFile != "" {
		pool, err := readPool(c.CAFile)
		if err != nil {
			return nil, err
		}
		t.RootCAs = pool
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("smtp: config: CertFile: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path) //nolint:gosec // the path is the configuration's
	if err != nil {
		return nil, fmt.Errorf("smtp: config: CAFile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("smtp: config: CAFile: %s has no certificate in PEM", path)
	}
	return pool, nil
}
