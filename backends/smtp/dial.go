package smtp

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// connect opens a connection to the first server that takes us. Where the login is
// refused it stops: more tries would lock the account.
func (b *Backend) connect(ctx context.Context) (*conn, error) {
	var failures []error
	for _, addr := range b.cfg.Addrs {
		c, err := b.connectTo(ctx, addr)
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
func (b *Backend) connectTo(ctx context.Context, addr string) (*conn, error) {
	told := Connected{Conn: &Conn{ID: rand.Text()[:connIDLength], Addr: addr}, Start: time.Now()}
	c, err := b.connectVia(ctx, &told)
	told.Err = err
	b.cfg.Hooks.connected(ctx, told)
	return c, err
}

// connIDLength makes 40 bits of chance: short enough to be read out, and enough to tell apart
// the connections in a day's logs.
const connIDLength = 8

// connectVia connects to told.Conn.Addr, and notes in told how long each part took.
func (b *Backend) connectVia(ctx context.Context, told *Connected) (*conn, error) {
	addr := told.Conn.Addr
	transport, err := b.dial(ctx, addr)
	told.Dial = time.Since(told.Start)
	if err != nil {
		return nil, unavailable(mailer.StepConnect, err)
	}
	told.Conn.Remote = transport.RemoteAddr().String()
	c := &conn{cfg: &b.cfg, addr: addr, host: hostOf(addr), link: newLink(transport), opened: time.Now(), about: told.Conn}
	c.writer = newWriter(c.link, b.cfg.CommandTimeout)
	c.in.veil = newVeil(b.cfg.Password)
	c.attach()
	c.trace("*: ", "connected to "+addr)
	err = c.within(ctx, func() error {
		if err := c.greet(ctx, b.tls, b.helloName(ctx, transport), told); err != nil {
			return err
		}
		c.about.Features = c.ext.names()
		return timed(&told.Auth, func() error { return c.login(ctx) })
	})
	if err != nil {
		c.trace("*: ", "closed: "+err.Error())
		c.link.cut()
		return nil, err
	}
	return c, nil
}

// dial connects with the limit of ConnectTimeout.
func (b *Backend) dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.ConnectTimeout)
	defer cancel()
	if b.cfg.Dial != nil {
		return b.cfg.Dial(ctx, b.cfg.Network, addr)
	}
	var d net.Dialer
	if b.cfg.LocalAddr != "" && b.cfg.Network != "unix" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(b.cfg.LocalAddr)}
	}
	return d.DialContext(ctx, b.cfg.Network, addr)
}

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "localhost" // a unix socket
	}
	return host
}

// helloName is our name in EHLO: Config.Hostname, the machine's full name, which is
// looked up once, or the address that we connect from.
func (b *Backend) helloName(ctx context.Context, c net.Conn) string {
	if b.cfg.Hostname != "" {
		return b.cfg.Hostname
	}
	if b.fqdn == nil {
		name := fullName(ctx)
		b.fqdn = &name
	}
	if *b.fqdn != "" {
		return *b.fqdn
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
	if !strings.Contains(name, ".") || !isHostname(name) {
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

func isAddressLiteral(s string) bool {
	inner, ok := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !ok || !closed {
		return false
	}
	inner, six := strings.CutPrefix(inner, "IPv6:")
	ip, err := netip.ParseAddr(inner)
	return err == nil && ip.Zone() == "" && six == ip.Is6()
}

// isHostname wants letters, digits and hyphens between dots (RFC 5321, 4.1.2), and
// bears with underscores, which machines' names have.
func isHostname(s string) bool {
	if len(s) > 255 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
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
