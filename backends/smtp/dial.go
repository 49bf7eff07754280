package smtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/auth"
	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/internal/tlsprobe"
	"github.com/mailpouch/mailpouch/mailer"
)

// A dialer opens connections that are ready for MAIL.
type dialer struct {
	cfg  *Config
	tls  *tls.Config
	fqdn *string // our name, once looked up; "" if there is none
}

// connect opens a connection to the first server that takes us. Where the login is
// refused it stops: more tries would lock the account.
func (d *dialer) connect(ctx context.Context) (*conn, error) {
	var secret string
	if d.cfg.login() {
		var err error
		if secret, err = (&conn{cfg: d.cfg}).secret(ctx); err != nil {
			return nil, unavailable(mailer.StepAuth, err) // no server is asked for what it would not allow
		}
	}
	var failures []error
	for _, addr := range d.cfg.Addrs {
		c, err := d.connectTo(ctx, addr, secret)
		if err == nil {
			return c, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", addr, err))
		var s *mailer.SendError
		if ctx.Err() != nil || errors.As(err, &s) && s.Step == mailer.StepAuth {
			break
		}
	}
	return nil, connectError(failures)
}

// connectError is the last server's failure, with those of the others as its cause.
func connectError(failures []error) *mailer.SendError {
	last := &mailer.SendError{}
	errors.As(failures[len(failures)-1], &last)
	if len(failures) == 1 {
		return last
	}
	return &mailer.SendError{
		Class: mailer.Unavailable, Step: last.Step, Code: last.Code, Enhanced: last.Enhanced, Err: errors.Join(failures...),
	}
}

// connectTo connects to one server, and tells the hooks how that went.
func (d *dialer) connectTo(ctx context.Context, addr, secret string) (*conn, error) {
	event := Connected{Conn: &Conn{ID: rand.Text()[:connIDLength], Addr: addr}, Start: time.Now()}
	c, err := d.connectVia(ctx, &event, secret)
	event.Err = err
	d.cfg.Hooks.connected(ctx, event)
	return c, err
}

// connIDLength makes 40 bits of chance: short enough to be read out, and enough to tell apart
// the connections in a day's logs.
const connIDLength = 8

// connectVia connects to event.Conn.Addr, and notes in event how long each part took.
func (d *dialer) connectVia(ctx context.Context, event *Connected, secret string) (*conn, error) {
	addr := event.Conn.Addr
	socket, err := d.dial(ctx, addr)
	event.Dial = time.Since(event.Start)
	if err != nil {
		return nil, unavailable(mailer.StepConnect, err)
	}
	event.Conn.Remote = socket.RemoteAddr().String()
	c := &conn{cfg: d.cfg, addr: addr, host: hostOf(addr), link: transport.NewLink(socket), opened: time.Now(), about: event.Conn}
	c.writer = transport.NewWriter(c.link, d.cfg.CommandTimeout)
	c.replies.Hide = auth.NewHider(secret)
	c.listen()
	c.trace("*: ", "connected to "+addr)
	err = c.within(ctx, func() error {
		if err := c.greet(ctx, d, d.helloName(ctx, socket), event); err != nil {
			return err
		}
		c.about.Features, c.about.OddSize = c.ext.names(), c.ext.oddSize
		return timed(&event.Auth, func() error {
			if !d.cfg.login() {
				return nil
			}
			return c.login(ctx, secret)
		})
	})
	if err != nil {
		c.trace("*: ", "closed: "+err.Error())
		c.link.Cut()
		return nil, err
	}
	return c, nil
}

// dial connects with the limit of ConnectTimeout.
func (d *dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ConnectTimeout)
	defer cancel()
	if d.cfg.Dial != nil {
		return d.cfg.Dial(ctx, d.cfg.Network, addr)
	}
	var system net.Dialer
	if d.cfg.LocalAddr != "" && d.cfg.Network != "unix" {
		system.LocalAddr = &net.TCPAddr{IP: net.ParseIP(d.cfg.LocalAddr)}
	}
	return system.DialContext(ctx, d.cfg.Network, addr)
}

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "localhost" // a unix socket
	}
	return host
}

// greet takes a new connection as far as the login. name is ours. The error is an
// Unavailable SendError: no message has been spoken of.
func (c *conn) greet(ctx context.Context, d *dialer, name string, event *Connected) error {
	if c.cfg.TLS == TLSImplicit {
		if err := timed(&event.TLS, func() error { return c.encrypt(ctx, d.tls) }); err != nil {
			return unavailable(mailer.StepTLS, hintPlain(hintOld(err)))
		}
	}
	if err := timed(&event.Greeting, func() error { return c.greeting(ctx, d) }); err != nil {
		return err
	}
	hello := func() error { return c.hello(name) }
	if err := timed(&event.Hello, hello); err != nil {
		return err
	}
	if c.cfg.TLS != TLSStart {
		return nil
	}
	if err := timed(&event.TLS, func() error { return c.upgrade(ctx, d.tls) }); err != nil {
		return err
	}
	return timed(&event.Hello, hello) // RFC 3207, 4.2: all that was said before is void
}

// timed adds to d how long f takes.
func timed(d *time.Duration, f func() error) error {
	start := time.Now()
	defer func() { *d += time.Since(start) }()
	return f()
}

var errWaitsForTLS = errors.New("the server says nothing, but speaks TLS at once: use EMAIL_USE_SSL, " +
	"and not EMAIL_USE_TLS, or the port for STARTTLS (587)")

// greeting reads what the server says first. A server that waits for a TLS handshake says nothing,
// however long we wait, and is asked then, over another connection. It is not asked earlier: to one that
// makes clients wait on purpose, a handshake is what it waits for, and the mark of a bad client.
func (c *conn) greeting(ctx context.Context, d *dialer) error {
	r, err := c.reply(c.cfg.CommandTimeout)
	if err == nil {
		return wantPositive(mailer.StepGreet, r, nil)
	}
	dial := func(ctx context.Context) (net.Conn, error) { return d.dial(ctx, c.addr) }
	if c.cfg.TLS != TLSImplicit && transport.IsTimeout(err) && tlsprobe.SpeaksTLS(ctx, dial) {
		err = errWaitsForTLS
	}
	return unavailable(mailer.StepGreet, err)
}

// hello introduces us and learns the server's extensions.
func (c *conn) hello(name string) error {
	verb := "EHLO "
	if c.cfg.LMTP {
		verb = "LHLO " // RFC 2033, 4.1
	}
	r, err := c.do(verb + name)
	if err != nil {
		return unavailable(mailer.StepHello, err)
	}
	if r.Positive() {
		c.ext = parseExtensions(r.Text)
		return nil
	}
	// RFC 5321, 3.2: an old server that knows HELO only. It can neither encrypt
	// nor log in.
	if r.Code/100 != 5 || c.cfg.LMTP || c.cfg.TLS == TLSStart || c.cfg.login() {
		return refusal(mailer.StepHello, r)
	}
	c.ext = extensions{}
	r, err = c.do("HELO " + name)
	return wantPositive(mailer.StepHello, r, err)
}

var (
	errNoSTARTTLS = errors.New("the server does not offer STARTTLS, and nothing is sent in clear text")
	errInjected   = errors.New("the server sent plain text after its reply to STARTTLS")
)

// upgrade is STARTTLS (RFC 3207).
func (c *conn) upgrade(ctx context.Context, t *tls.Config) error {
	if !c.ext.startTLS {
		return unavailable(mailer.StepTLS, errNoSTARTTLS)
	}
	r, err := c.do("STARTTLS")
	if err := wantPositive(mailer.StepTLS, r, err); err != nil {
		return err
	}
	// What came with the reply would be taken for something said under TLS: somebody
	// in between may have put it there (CVE-2011-0411).
	if c.replies.Buffered() > 0 {
		return unavailable(mailer.StepTLS, errInjected)
	}
	if err := c.encrypt(ctx, t); err != nil {
		return unavailable(mailer.StepTLS, hintOld(err))
	}
	return nil
}

// hintPlain explains a handshake with a server that speaks SMTP at once, or anything else but TLS.
func hintPlain(err error) error {
	var record tls.RecordHeaderError
	switch {
	case !errors.As(err, &record):
		return err
	case bytes.HasPrefix(record.RecordHeader[:], []byte("220")):
		return fmt.Errorf("the server speaks plain SMTP first: use STARTTLS (EMAIL_USE_TLS), not TLS at once (EMAIL_USE_SSL): %w", err)
	}
	return fmt.Errorf("what answers there speaks neither TLS nor SMTP: is it the right port (EMAIL_PORT)? %w", err)
}

// hintOld explains a handshake that has failed before the server has shown its certificate. Servers that only know what
// Go has given up say no more than an alert (RFC 8446, 6.2), or go on with a version that we refuse.
func hintOld(err error) error {
	const handshakeFailure, protocolVersion, insufficientSecurity = 40, 70, 71
	var early *noAgreementError
	if !errors.As(err, &early) {
		return err
	}
	err = early.error
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		if strings.HasPrefix(err.Error(), "tls: server selected unsupported protocol version") { // it has no type
			return fmt.Errorf("the server knows no version of TLS from 1.2 on: %w", err)
		}
		return err
	}
	switch remote.Err.Error() { // of the alert's own type, which is not exported
	case tls.AlertError(handshakeFailure).Error(), tls.AlertError(insufficientSecurity).Error():
		return fmt.Errorf("the server and we have no key exchange in common: it seems to know only old ones (RSA or DHE, not ECDHE), "+
			"or to want a cipher that is given up: %w", err)
	case tls.AlertError(protocolVersion).Error():
		return fmt.Errorf("the server knows no version of TLS from 1.2 on: %w", err)
	}
	return err
}

// helloName is our name in EHLO: Config.Hostname, the machine's full name, which is
// looked up once, or the address that we connect from.
func (d *dialer) helloName(ctx context.Context, c net.Conn) string {
	if d.cfg.Hostname != "" {
		return d.cfg.Hostname
	}
	if d.fqdn == nil {
		name := fullName(ctx)
		d.fqdn = &name
	}
	if *d.fqdn != "" {
		return *d.fqdn
	}
	return addressLiteral(c.LocalAddr())
}

// fullName returns the machine's name with its domain, or "".
func fullName(ctx context.Context) string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	if !strings.Contains(name, ".") {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		name, _ = net.DefaultResolver.LookupCNAME(ctx, name)
		name = strings.TrimSuffix(name, ".")
	}
	if !strings.Contains(name, ".") || !hostname.IsASCII(name) {
		return ""
	}
	return name
}

// addressLiteral is RFC 5321, 4.1.3: [192.0.2.1] or [IPv6:2001:db8::1].
func addressLiteral(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return "localhost"
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}
