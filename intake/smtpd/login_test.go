package smtpd_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/intake/smtpd"
)

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// withKey is a desk with one key, and its secret.
func withKey(choices ...intake.Choice) (*desk, *intake.Key, string) {
	key, secret := intake.NewKey("shop")
	key.Choices = choices
	return &desk{keys: map[string]*intake.Key{secret: &key}}, &key, secret
}

func TestLogin(t *testing.T) {
	t.Parallel()
	d, key, secret := withKey()
	roots, _, config := certificate(t)
	plain := base64Of("\x00anybody\x00" + secret)
	for _, tt := range []struct{ name, script string }{
		{"PLAIN", "> AUTH PLAIN " + plain + "\n235 2.7.0"},
		{"PLAIN after two blanks", "> AUTH PLAIN  " + plain + "\n235"},
		{"PLAIN, asked", "> AUTH plain\n334 \n> " + plain + "\n235"},
		{"PLAIN with another identity", "> AUTH PLAIN " + base64Of("eve\x00anybody\x00"+secret) + "\n235"},
		{"LOGIN", "> AUTH LOGIN\n334 " + base64Of("Username:") + "\n> " + base64Of("apikey") + "\n334 " + base64Of("Password:") + "\n> " + base64Of(secret) + "\n235"},
		{"LOGIN with the name", "> AUTH LOGIN " + base64Of("apikey") + "\n334\n> " + base64Of(secret) + "\n235"},
		{"LOGIN with an empty name", "> AUTH LOGIN =\n334\n> " + base64Of(secret) + "\n235"},
		{"once", "> AUTH PLAIN " + plain + "\n235\n> AUTH PLAIN " + plain + "\n503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &desk{keys: d.keys}
			c := dial(t, serve(t, d, smtpd.Config{Hostname: "mx.example.com", TLS: config}))
			c.talk("> EHLO client\n250\n> STARTTLS\n220")
			c.startTLS(roots)
			c.send("EHLO client\r\n")
			if got := c.reply(); !strings.HasSuffix(got, "250 AUTH PLAIN LOGIN") || strings.Contains(got, "STARTTLS") {
				t.Errorf("EHLO: %q", got)
			}
			c.talk("> MAIL FROM:<ann@example.com>\n530 5.7.0 Authentication required")
			c.talk(tt.script)
			c.begin()
			c.send(message + ".\r\n")
			c.expect("250")
			h := d.one(t)
			if h.key != key {
				t.Errorf("handed in under the key %+v", h.key)
			}
			if field, _ := cutReceived(string(h.message.Raw)); !strings.Contains(field, " with ESMTPSA id ") || strings.Contains(field, "shop") {
				t.Errorf("field %q", field)
			}
		})
	}
}

// A key that is taken away hands in nothing more, also over a connection that is open, and one that has changed is as it is now. The message
// under way is accepted.
func TestLogin_takenAway(t *testing.T) {
	t.Parallel()
	d, _, secret := withKey()
	cfg := trusting() // the key counts though its client is trusted without one
	c := dial(t, serve(t, d, cfg))
	c.talk("> EHLO client\n250\n> AUTH PLAIN " + base64Of("\x00any\x00"+secret) + "\n235")
	c.talk("> MAIL FROM:<ann@example.com>\n250\n> RCPT TO:<bob@example.org>\n250\n> DATA\n354")
	changed := &intake.Key{Name: "shop", Queue: "bulk"}
	d.setKeys(map[string]*intake.Key{secret: changed})
	c.send(message + ".\r\n")
	c.expect("250")
	c.begin()
	d.setKeys(nil)
	c.send(message + ".\r\n")
	c.expect("250")
	if all := d.taken(); len(all) != 2 || all[0].key == changed || all[1].key != changed {
		t.Errorf("handed in as %+v", all)
	}
	c.talk("> MAIL FROM:<ann@example.com>\n421 4.7.0\nhangs up")
}

func TestLogin_refused(t *testing.T) {
	t.Parallel()
	_, _, secret := withKey()
	roots, _, config := certificate(t)
	for _, tt := range []struct{ name, script string }{
		{"not coded", "> AUTH PLAIN x\n501 5.5.2"},
		{"not of PLAIN", "> AUTH PLAIN " + base64Of(secret) + "\n501 5.5.2"},
		{"empty", "> AUTH PLAIN =\n501 5.5.2"},
		{"given up", "> AUTH LOGIN\n334\n> *\n501 5.7.0\n> NOOP\n250"},
		{"another mechanism", "> AUTH CRAM-MD5\n504 5.5.4\n> AUTH\n504"},
		{"wrong password", "> AUTH PLAIN " + base64Of("\x00a\x00mp_wrong") + "\n535 5.7.8\n> MAIL FROM:<ann@example.com>\n530"},
		{"too often", strings.Repeat("> AUTH PLAIN "+base64Of("\x00a\x00mp_wrong")+"\n535 5.7.8\n", 3) + "421 4.7.0\nhangs up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, _, _ := withKey()
			c := dial(t, serve(t, d, smtpd.Config{TLS: config}))
			c.talk("> EHLO client\n250\n> STARTTLS\n220")
			c.startTLS(roots)
			c.talk("> EHLO client\n250")
			c.talk(tt.script)
		})
	}
}

// No password goes through an open network, unless the client's is trusted.
func TestLogin_withoutTLS(t *testing.T) {
	t.Parallel()
	d, key, secret := withKey()
	_, _, config := certificate(t)
	c := dial(t, serve(t, d, smtpd.Config{TLS: config}))
	c.send("EHLO client\r\n")
	if got := c.reply(); strings.Contains(got, "AUTH") {
		t.Errorf("EHLO: %q", got)
	}
	c.talk("> MAIL FROM:<ann@example.com>\n530 5.7.0 Must issue a STARTTLS command first\n> AUTH PLAIN " + base64Of("\x00a\x00"+secret) + "\n538 5.7.11")

	c = dial(t, serve(t, d, trusting()))
	c.talk("> EHLO client\n250\n> AUTH PLAIN " + base64Of("\x00a\x00"+secret) + "\n235")
	c.begin()
	c.send(message + ".\r\n")
	c.expect("250")
	if d.one(t).key != key {
		t.Error("handed in without the key")
	}
}

// What comes behind STARTTLS before the handshake may be somebody else's.
func TestStartTLS_injection(t *testing.T) {
	t.Parallel()
	_, _, config := certificate(t)
	c := dial(t, serve(t, &desk{}, smtpd.Config{TLS: config}))
	c.talk("> EHLO client\n250")
	c.send("STARTTLS\r\nMAIL FROM:<eve@example.com>\r\n")
	c.expect("503 5.5.1")
	c.expect("")
}

func TestStartTLS_fails(t *testing.T) {
	t.Parallel()
	_, _, config := certificate(t)
	c := dial(t, serve(t, &desk{}, smtpd.Config{TLS: config}))
	c.talk("> EHLO client\n250\n> STARTTLS now\n501\n> STARTTLS\n220")
	conn := tls.Client(c.conn, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
	if err := conn.Handshake(); err == nil {
		t.Fatal("the certificate is trusted")
	}
	rest, err := io.ReadAll(c.r) // up to the end of the connection
	if errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(rest, []byte("421")) {
		t.Errorf("the server goes on with %q", rest)
	}
}

// A certificate is replaced while connections are open.
func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	d := &desk{}
	roots, ca, _ := certificate(t)
	var current atomic.Pointer[tls.Certificate]
	load := func() *x509.Certificate {
		if err := ca.Issue("server", "smtpd", x509.ExtKeyUsageServerAuth); err != nil {
			t.Fatal(err)
		}
		cert, err := tls.LoadX509KeyPair(ca.CertFiles("server"))
		if err != nil {
			t.Fatal(err)
		}
		current.Store(&cert)
		return cert.Leaf
	}
	cfg := trusting()
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }}
	cfg.Listeners = []smtpd.Listener{{Network: "tcp", Address: "127.0.0.1:0", ImplicitTLS: true}}
	load()
	s := serve(t, d, cfg)
	for range 2 {
		want := load()
		c := dialAddr(t, s.Addrs()[0])
		c.startTLS(roots)
		c.expect("220")
		if got := c.conn.(*tls.Conn).ConnectionState().PeerCertificates[0]; !got.Equal(want) {
			t.Errorf("certificate %v, want %v", got.SerialNumber, want.SerialNumber)
		}
		c.begin()
		c.send(message + ".\r\n")
		c.expect("250")
	}
	if field, _ := cutReceived(string(d.taken()[0].message.Raw)); !strings.Contains(field, " with ESMTPS id ") {
		t.Errorf("field %q", field)
	}
}

// The field says who has handed the message in as Postfix says it.
func TestReceived(t *testing.T) {
	t.Parallel()
	d := &desk{}
	for _, script := range []string{"EHLO client.example.com", "EHLO [192.0.2.1]", "HELO client", "EHLO bad(name);", "EHLO a b"} {
		c := dial(t, serve(t, d, trusting()))
		c.talk("> " + script + "\n250\n> MAIL FROM:<ann@example.com>\n250\n> RCPT TO:<bob@example.org>\n250\n> DATA\n354")
		c.send(message + ".\r\n")
		c.expect("250")
	}
	c := dial(t, serve(t, d, trusting()))
	c.talk("> EHLO client\n250\n> MAIL FROM:<ann@example.com> SMTPUTF8\n250\n> RCPT TO:<bob@example.org>\n250\n> DATA\n354")
	c.send(message + ".\r\n")
	c.expect("250")
	for i, want := range []struct{ from, with string }{
		{"client.example.com", "ESMTP"}, {"[192.0.2.1]", "ESMTP"}, {"client", "SMTP"}, {"unknown", "ESMTP"}, {"unknown", "ESMTP"}, {"client", "UTF8SMTP"},
	} {
		field, rest := cutReceived(string(d.taken()[i].message.Raw))
		before, date, _ := strings.Cut(field, ";\r\n\t")
		begins := "Received: from " + want.from + " ([127.0.0.1])\r\n\tby mx.example.com (Mailpouch) with " + want.with + " id "
		if !strings.HasPrefix(before, begins) || len(before) != len(begins)+26 || rest != message {
			t.Errorf("field %q, want %q", field, begins)
		}
		if at, err := time.Parse(time.RFC1123Z+"\r\n", date); err != nil || time.Since(at) > time.Hour || at.Location() != time.UTC && !strings.HasSuffix(date, "+0000\r\n") {
			t.Errorf("date %q: %v", date, err)
		}
	}
}
