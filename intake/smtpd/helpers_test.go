package smtpd_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/intake/smtpd"
	"github.com/mailpouch/mailpouch/internal/testserver"
	"github.com/mailpouch/mailpouch/mailer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handedIn is a message as a server handed it over.
type handedIn struct {
	key     *intake.Key
	message *mailer.EmailMessage
	options mailer.Options
}

// raw is the message without the Received field in front.
func (h handedIn) raw() string {
	_, rest := cutReceived(string(h.message.Raw))
	return rest
}

// cutReceived cuts the field off that a message begins with.
func cutReceived(raw string) (field, rest string) {
	end := 0
	for i, line := range slices.Collect(strings.Lines(raw)) {
		if i > 0 && line[0] != '\t' && line[0] != ' ' {
			break
		}
		end += len(line)
	}
	return raw[:end], raw[end:]
}

// desk is a smtpd.Submitter that keeps what it gets.
type desk struct {
	answer func(ctx context.Context, h handedIn) error // nil: everything is taken

	mu   sync.Mutex
	all  []handedIn
	keys map[string]*intake.Key
}

func (d *desk) Find(secret string) *intake.Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys[secret]
}

func (d *desk) Current(key *intake.Key) *intake.Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range d.keys {
		if k.Name == key.Name {
			return k
		}
	}
	return nil
}

func (d *desk) setKeys(keys map[string]*intake.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys = keys
}

func (d *desk) Submit(ctx context.Context, key *intake.Key, m *mailer.EmailMessage, o mailer.Options) (string, error) {
	h := handedIn{key, m, o}
	if d.answer != nil {
		if err := d.answer(ctx, h); err != nil {
			return "", err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, h)
	return "ID", nil
}

func (d *desk) taken() []handedIn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// one is the only message that was handed in.
func (d *desk) one(t *testing.T) handedIn {
	t.Helper()
	all := d.taken()
	if len(all) != 1 {
		t.Fatalf("%d messages were handed in, want one", len(all))
	}
	return all[0]
}

func local() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// trusting is a configuration that takes mail from this machine.
func trusting() smtpd.Config { return smtpd.Config{Hostname: "mx.example.com", Networks: local()} }

// serve starts a server, at a free port if the configuration does not say where. It is shut down at the end of the test.
func serve(t testing.TB, s smtpd.Submitter, cfg smtpd.Config) *smtpd.Server {
	t.Helper()
	if cfg.Listeners == nil {
		cfg.Listeners = []smtpd.Listener{{Network: "tcp", Address: "127.0.0.1:0"}}
	}
	server, err := smtpd.Start(s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testserver.Timeout)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return server
}

// client is one end of a conversation.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial connects to the first listener and reads the greeting.
func dial(t testing.TB, s *smtpd.Server) *client {
	t.Helper()
	c := dialAddr(t, s.Addrs()[0])
	c.expect("220")
	return c
}

func dialAddr(t testing.TB, addr net.Addr) *client {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t}
	c.use(conn)
	return c
}

func (c *client) use(conn net.Conn) {
	c.conn, c.r = conn, bufio.NewReader(conn)
	c.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testserver.Timeout))
}

// send sends text as it is.
func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads a reply: all its lines, without the last CRLF. It is "" if the server has hung up.
func (c *client) reply() string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.t.Fatalf("no reply (after %q)", all.String())
			}
			return ""
		}
		if !strings.HasSuffix(line, "\r\n") || len(line) < 6 || len(line) > 512 {
			c.t.Fatalf("%q is no line of a reply", line)
		}
		all.WriteString(line)
		if line[3] == ' ' {
			c.checkStatus(line)
			return strings.TrimSuffix(all.String(), "\r\n")
		}
	}
}

// checkStatus checks that a reply has an enhanced status code of the same class, unless it is one to EHLO or the like (RFC 2034, 4).
func (c *client) checkStatus(line string) {
	c.t.Helper()
	hello := strings.HasPrefix(line, "220 ") && strings.HasSuffix(line, " Mailpouch\r\n") || strings.HasPrefix(line, "250 ") && line[5] != '.'
	if line[0] != '3' && !hello && !regexp.MustCompile(`^`+line[:3]+` `+line[:1]+`\.\d\.\d+ `).MatchString(line) {
		c.t.Errorf("%q has not the status code of its class", line)
	}
}

// expect reads a reply that begins so. "" is the end of the connection.
func (c *client) expect(want string) string {
	c.t.Helper()
	got := c.reply()
	if want == "" && got != "" || !strings.HasPrefix(got, want) {
		c.t.Fatalf("reply %q, want %q", got, want)
	}
	return got
}

// talk has a conversation: lines with "> " are sent, and each of the others is what a reply begins with. "hangs up" is the end of the
// connection.
func (c *client) talk(script string) {
	c.t.Helper()
	for line := range strings.Lines(script) {
		line = strings.Trim(line, "\t\n")
		switch text, sends := strings.CutPrefix(line+" ", "> "); {
		case sends:
			c.send(strings.TrimSuffix(text, " ") + "\r\n")
		case line == "hangs up":
			c.expect("")
		case line != "":
			got := c.reply()
			if !strings.HasPrefix(got, line) {
				c.t.Fatalf("reply %q, want %q, in\n%s", got, line, script)
			}
		}
	}
}

// begin says all that comes before a message.
func (c *client) begin() {
	c.t.Helper()
	c.talk(`
		> EHLO client.example.com
		250
		> MAIL FROM:<ann@example.com>
		250
		> RCPT TO:<bob@example.org>
		250
		> DATA
		354`)
}

const message = "From: ann@example.com\r\nSubject: hello\r\n\r\nIt works.\r\n"

// certificate is an authority and a certificate for 127.0.0.1.
func certificate(t testing.TB) (*x509.CertPool, *testserver.Authority, *tls.Config) {
	t.Helper()
	ca, err := testserver.NewAuthority(t.TempDir(), "smtpd authority")
	if err == nil {
		err = ca.Issue("server", "smtpd", x509.ExtKeyUsageServerAuth)
	}
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(ca.CertFiles("server"))
	if err != nil {
		t.Fatal(err)
	}
	return ca.Pool, ca, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }}
}

// startTLS goes on with TLS.
func (c *client) startTLS(roots *x509.CertPool) {
	c.t.Helper()
	conn := tls.Client(c.conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.use(conn)
}

// socket is a path for a socket, which may not be as long as those of a test's own directory.
func socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smtpd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "smtp.sock")
}

// abandon leaves a socket behind that nobody listens on.
func abandon(t testing.TB, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
}

// lockedBuffer is a log of several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
