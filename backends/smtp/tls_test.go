package smtp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// pki is an authority and a certificate of its, for servers and clients alike.
type pki struct {
	caFile, certFile, keyFile string
	server                    *tls.Config
}

// newPKI makes them for peer.example, valid from until until.
func newPKI(t *testing.T, until time.Time) pki {
	t.Helper()
	dir := t.TempDir()
	p := pki{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), nil}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: until.AddDate(-100, 0, 0), NotAfter: until, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"peer.example"}, NotBefore: ca.NotBefore, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		path, kind string
		cert       *x509.Certificate
	}{{p.caFile, "CERTIFICATE", ca}, {p.certFile, "CERTIFICATE", leaf}, {p.keyFile, "PRIVATE KEY", nil}} {
		der := private
		if f.cert != nil {
			if der, err = x509.CreateCertificate(rand.Reader, f.cert, ca, key.Public(), key); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := readPool(p.caFile)
	if err != nil {
		t.Fatal(err)
	}
	p.server = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, MinVersion: tls.VersionTLS10}
	return p
}

func never() time.Time { return time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC) }

func TestBackend_TLS(t *testing.T) {
	tests := []struct {
		name string
		mode TLSMode
		set  func(cfg *Config, p *peer, k pki)
		want string
		text string // in the error
	}{
		{"STARTTLS", TLSStart, nil, "sent sent", ""},
		{"implicit", TLSImplicit, nil, "sent sent", ""},
		{"none though offered", TLSNone, nil, "sent sent", ""},
		{"STARTTLS not offered", TLSStart, func(_ *Config, p *peer, _ pki) { p.offers = nil }, "unavailable unavailable", "clear text"},
		{"STARTTLS refused for now", TLSStart, func(_ *Config, p *peer, _ pki) { p.script = on("STARTTLS", "", "454 4.7.0 not now") },
			"unavailable unavailable", "454"},
		{"STARTTLS refused", TLSStart, func(_ *Config, p *peer, _ pki) { p.script = on("STARTTLS", "", "501 5.5.4 no") },
			"unavailable unavailable", "501"},
		{"EHLO refused", TLSStart, func(_ *Config, p *peer, _ pki) { p.script = on("EHLO", "", "502 5.5.1 no") },
			"unavailable unavailable", "502"},
		{"injected replies", TLSStart, func(_ *Config, p *peer, _ pki) {
			p.script = on("STARTTLS", "", "220 go ahead|250-peer.example|250 AUTH PLAIN")
		}, "unavailable unavailable", "plain text"},
		{"unknown authority", TLSStart, func(cfg *Config, _ *peer, _ pki) { cfg.CAFile = "" }, "unavailable unavailable", "unknown authority"},
		{"wrong name", TLSStart, func(cfg *Config, _ *peer, _ pki) { cfg.Addrs = []string{"other.example:25"} }, "unavailable unavailable", "other.example"},
		{"another name", TLSImplicit, func(cfg *Config, _ *peer, _ pki) {
			cfg.Addrs, cfg.ServerName = []string{"10.0.0.1:25"}, "peer.example"
		}, "sent sent", ""},
		{"expired", TLSStart, func(cfg *Config, p *peer, _ pki) {
			old := newPKI(p.t, time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC))
			p.tls, cfg.CAFile = old.server, old.caFile
		}, "unavailable unavailable", "expired"},
		{"TLS 1.1", TLSStart, func(_ *Config, p *peer, _ pki) { p.tls.MaxVersion = tls.VersionTLS11 }, "unavailable unavailable", "no version of TLS from 1.2 on"},
		{"old key exchange", TLSStart, oldKeyExchange, "unavailable unavailable", "only old ones (RSA or DHE, not ECDHE)"},
		{"old key exchange, implicit", TLSImplicit, oldKeyExchange, "unavailable unavailable", "only old ones (RSA or DHE, not ECDHE)"},
		{"TLS 1.2", TLSStart, func(_ *Config, p *peer, _ pki) { p.tls.MaxVersion = tls.VersionTLS12 }, "sent sent", ""},
		{"client certificate", TLSStart, func(cfg *Config, p *peer, k pki) {
			p.tls.ClientAuth = tls.RequireAndVerifyClientCert
			cfg.CertFile, cfg.KeyFile = k.certFile, k.keyFile
		}, "sent sent", ""},
		{"client certificate missing", TLSStart, func(_ *Config, p *peer, _ pki) {
			// With TLS 1.3 the refusal comes behind the handshake.
			p.tls.ClientAuth, p.tls.MaxVersion = tls.RequireAndVerifyClientCert, tls.VersionTLS12
		}, "unavailable unavailable", "TLS: remote error: tls: handshake failure"}, // nothing about key exchange
		{"no TLS behind STARTTLS", TLSStart, func(_ *Config, p *peer, _ pki) {
			p.script = func(at event) string { return map[string]string{"STARTTLS": "220 go ahead"}[at.step] }
			p.tls = nil
		}, "unavailable unavailable", "TLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newPKI(t, never())
				p := newPeer(t, "STARTTLS", "PIPELINING")
				p.tls, p.implicit = k.server, tt.mode == TLSImplicit
				cfg := testConfig(t, p)
				cfg.TLS, cfg.CAFile = tt.mode, k.caFile
				if tt.set != nil {
					tt.set(&cfg, p, k)
				}
				results := sendAll(t, newBackend(t, cfg), letters(2))
				if got := fates(results); got != tt.want {
					t.Errorf("got %s, want %s: %v", got, tt.want, results[0].Err)
				}
				if tt.text != "" && !strings.Contains(results[0].Err.Error(), tt.text) {
					t.Errorf("got %v, want one about %q", results[0].Err, tt.text)
				}
				synctest.Wait()
				for _, c := range p.plain {
					if tt.mode != TLSNone && (strings.HasPrefix(c, "MAIL") || strings.HasPrefix(c, "AUTH")) {
						t.Errorf("in clear text: %s", c)
					}
				}
			})
		})
	}
}

// oldKeyExchange makes a server that encrypts keys with RSA and knows no other way.
func oldKeyExchange(_ *Config, p *peer, _ pki) {
	p.tls.MaxVersion, p.tls.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
}

// TestBackend_TLSHints: the two ways to get the mode of TLS wrong are explained.
func TestBackend_TLSHints(t *testing.T) {
	for _, mode := range []TLSMode{TLSNone, TLSStart} {
		t.Run(fmt.Sprintf("TLS expected by the server, mode %v", mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.tls, p.implicit = newPKI(t, never()).server, true
				cfg := testConfig(t, p)
				cfg.Addrs, cfg.TLS = []string{"peer.example:2465"}, mode // whatever the port
				cfg.CommandTimeout = time.Minute
				start := time.Now()
				_, err := newBackend(t, cfg).Open(t.Context())
				if err == nil || !strings.Contains(err.Error(), "EMAIL_USE_SSL") || mailer.ClassOf(err) != mailer.Unavailable {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took != cfg.CommandTimeout || p.conns != 2 {
					t.Errorf("it took %v and %d connections", took, p.conns)
				}
			})
		})
	}
	t.Run("a server that is only slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			p.script = func(e event) string {
				if e.step == "greeting" {
					time.Sleep(time.Minute)
				}
				return ""
			}
			b := newBackend(t, testConfig(t, p))
			if _, err := b.Open(t.Context()); err != nil || p.conns != 1 {
				t.Errorf("got %v with %d connections", err, p.conns)
			}
			_ = b.Close()
		})
	})
	t.Run("AUTH only after STARTTLS", func(t *testing.T) {
		for _, tt := range []struct {
			mode TLSMode
			want string
		}{{TLSNone, "no AUTH before STARTTLS, and a login is configured: use EMAIL_USE_TLS"}, {TLSStart, "does not offer AUTH"}} {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, "STARTTLS")
				pki := newPKI(t, never())
				p.tls = pki.server
				cfg := testConfig(t, p)
				cfg.TLS, cfg.CAFile = tt.mode, pki.caFile
				cfg.Username, cfg.Password = "me", "secret"
				_, err := newBackend(t, cfg).Open(t.Context())
				if err == nil || !strings.Contains(err.Error(), tt.want) || mailer.ClassOf(err) != mailer.Unavailable {
					t.Errorf("mode %v: %v", tt.mode, err)
				}
			})
		}
	})
	t.Run("TLS not expected", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			p.tls = newPKI(t, never()).server // and not used at once
			cfg := testConfig(t, p)
			cfg.TLS = TLSImplicit
			_, err := newBackend(t, cfg).Open(t.Context())
			if err == nil || !strings.Contains(err.Error(), "EMAIL_USE_TLS") {
				t.Errorf("got %v", err)
			}
			p.forgive() // a handshake is no command
		})
	})
}

// TestBackend_brokenTLS: faults in the middle of TLS are no different.
func TestBackend_brokenTLS(t *testing.T) {
	for _, tt := range []struct{ step, fault, want string }{
		{"MAIL", "close", "sent temporary sent"},
		{"MAIL", "stall", "sent unavailable sent"},
		{"body", "stall", "sent temporary sent"},
		{"body", "close", "sent temporary sent"},
		{"dot", "close", "sent unknown sent"},
		{"dot", "stall", "sent unknown sent"},
	} {
		for _, w := range ways()[:2] {
			w.run(t, tt.step+"/"+tt.fault, func(t *testing.T, p *peer, cfg Config) {
				k := newPKI(t, never())
				p.tls, p.implicit = k.server, true
				cfg.TLS, cfg.CAFile = TLSImplicit, k.caFile
				p.script = on(tt.step, "b@x", fault(tt.fault))
				messages := letters(3)
				if tt.step == "body" {
					messages[1].Body = strings.Repeat(strings.Repeat("x", 70)+"\n", 5000)
				}
				if got := fates(sendAll(t, newBackend(t, cfg), messages)); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				checkTaken(t, p, tt.want)
			})
		}
	}
}

func TestNew_files(t *testing.T) {
	k := newPKI(t, never())
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no such CA":       {CAFile: "/does/not/exist"},
		"empty CA":         {CAFile: empty},
		"no such cert":     {CertFile: "/does/not/exist", KeyFile: k.keyFile},
		"cert without key": {CertFile: k.certFile},
		"key without cert": {KeyFile: k.keyFile},
		"key is no key":    {CertFile: k.certFile, KeyFile: k.certFile},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestBackend_unix is the way to a server on this machine.
func TestBackend_unix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smtp.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, "AUTH PLAIN")
	p.running.Go(func() {
		c, err := l.Accept()
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
			return
		}
		(&peerConn{peer: p, conn: c, number: 1}).serve()
	})
	defer func() { _ = l.Close() }()
	b := newBackend(t, Config{Network: "unix", Addrs: []string{path}, Username: "me", Password: "secret"})
	if got := fates(sendAll(t, b, letters(2))); got != "sent sent" {
		t.Error(got)
	}
}

// TestBackend_localAddr connects from an address that is not the usual one.
func TestBackend_localAddr(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(from)
			return
		}
		from <- c.RemoteAddr().String()
		_, _ = io.WriteString(c, "421 not now\r\n")
		_ = c.Close()
	}()
	defer func() { _ = l.Close() }()
	b := newBackend(t, Config{Addrs: []string{l.Addr().String()}, LocalAddr: "127.0.0.2"})
	if _, err := b.Open(context.Background()); mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("got %v", err)
	}
	if got := <-from; !strings.HasPrefix(got, "127.0.0.2:") {
		t.Errorf("from %s", got)
	}
}
