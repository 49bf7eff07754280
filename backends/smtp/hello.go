package smtp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// extensions are what a server says in its reply to EHLO that it can do.
type extensions struct {
	pipelining bool     // RFC 2920
	chunking   bool     // RFC 3030
	eightBit   bool     // 8BITMIME, RFC 6152
	smtpUTF8   bool     // RFC 6531
	dsn        bool     // RFC 3461
	startTLS   bool     // RFC 3207
	sized      bool     // SIZE, RFC 1870
	size       int64    // the biggest message taken, 0 if not told
	auth       []string // mechanisms, RFC 4954
}

// names are the keywords of the extensions, the mechanisms of AUTH left out.
func (e *extensions) names() []string {
	var names []string
	for _, ext := range []struct {
		name    string
		offered bool
	}{
		{"PIPELINING", e.pipelining}, {"CHUNKING", e.chunking}, {"8BITMIME", e.eightBit}, {"SMTPUTF8", e.smtpUTF8},
		{"DSN", e.dsn}, {"STARTTLS", e.startTLS}, {"SIZE", e.sized}, {"AUTH", len(e.auth) > 0},
	} {
		if ext.offered {
			names = append(names, ext.name)
		}
	}
	return names
}

// parseExtensions reads the reply to EHLO: its first line is a greeting, each
// other one an extension's keyword and parameters (RFC 5321, 4.1.1.1).
func parseExtensions(text []byte) (ext extensions) {
	_, text, _ = bytes.Cut(text, []byte{'\n'})
	for line := range bytes.Lines(text) {
		// "AUTH=LOGIN" is how it was written before RFC 2554.
		words := strings.Fields(strings.ToUpper(strings.Replace(string(line), "AUTH=", "AUTH ", 1)))
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "PIPELINING":
			ext.pipelining = true
		case "CHUNKING":
			ext.chunking = true
		case "8BITMIME":
			ext.eightBit = true
		case "SMTPUTF8":
			ext.smtpUTF8 = true
		case "DSN":
			ext.dsn = true
		case "STARTTLS":
			ext.startTLS = true
		case "SIZE":
			ext.sized = true
			if len(words) > 1 {
				ext.size, _ = strconv.ParseInt(words[1], 10, 64)
			}
		case "AUTH":
			ext.auth = append(ext.auth, words[1:]...)
		}
	}
	return ext
}

// greet takes a new connection as far as the login. name is ours. The error is an
// Unavailable SendError: no message has been spoken of.
func (c *conn) greet(ctx context.Context, t *tls.Config, name string, told *Connected) error {
	if c.cfg.TLS == TLSImplicit {
		if err := timed(&told.TLS, func() error { return c.startTLS(ctx, t) }); err != nil {
			return unavailable(mailer.StepTLS, hintPlain(err))
		}
	}
	if err := timed(&told.Greeting, c.greeting); err != nil {
		return err
	}
	hello := func() error { return c.hello(name) }
	if err := timed(&told.Hello, hello); err != nil {
		return err
	}
	if c.cfg.TLS != TLSStart {
		return nil
	}
	if err := timed(&told.TLS, func() error { return c.upgrade(ctx, t) }); err != nil {
		return err
	}
	return timed(&told.Hello, hello) // RFC 3207, 4.2: all that was said before is void
}

// timed adds to d how long f takes.
func timed(d *time.Duration, f func() error) error {
	start := time.Now()
	defer func() { *d += time.Since(start) }()
	return f()
}

// greeting reads what the server says first.
func (c *conn) greeting() error {
	r, err := c.reply(c.cfg.CommandTimeout)
	if err != nil {
		return unavailable(mailer.StepGreet, c.hintTLS(err))
	}
	return wantPositive(mailer.StepGreet, r, nil)
}

// wantPositive turns what is no 2yz into the error of a step before MAIL.
func wantPositive(step mailer.Step, r *reply, err error) error {
	if err != nil {
		return unavailable(step, err)
	}
	if !r.positive() {
		return refusal(step, r)
	}
	return nil
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
	if r.positive() {
		c.ext = parseExtensions(r.text)
		return nil
	}
	// RFC 5321, 3.2: an old server that knows HELO only. It can neither encrypt
	// nor log in.
	if r.code/100 != 5 || c.cfg.LMTP || c.cfg.TLS == TLSStart || c.cfg.login() {
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
	if c.in.r.Buffered() > 0 {
		return unavailable(mailer.StepTLS, errInjected)
	}
	if err := c.startTLS(ctx, t); err != nil {
		return unavailable(mailer.StepTLS, err)
	}
	return nil
}

// hintPlain explains a handshake with a server that speaks SMTP at once.
func hintPlain(err error) error {
	var record tls.RecordHeaderError
	if errors.As(err, &record) && bytes.HasPrefix(record.RecordHeader[:], []byte("220")) {
		return fmt.Errorf("the server speaks plain SMTP first: use STARTTLS (EMAIL_USE_TLS), not TLS at once (EMAIL_USE_SSL): %w", err)
	}
	return err
}

// hintTLS explains the silence of a server that waits for a TLS handshake.
func (c *conn) hintTLS(err error) error {
	if strings.HasSuffix(c.addr, ":465") && c.cfg.TLS != TLSImplicit {
		return fmt.Errorf("the server on port 465 speaks TLS at once: use EMAIL_USE_SSL: %w", err)
	}
	return err
}
