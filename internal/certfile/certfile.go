// Package certfile is the certificate of a server, from files that may be replaced while it runs.
package certfile

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"
)

// Certificate is what a server shows to its clients. It may be used by several goroutines.
type Certificate struct {
	certFile, keyFile string
	loaded            atomic.Pointer[tls.Certificate]
}

// Read reads a certificate, with those between it and its authority, and its key, both in PEM. The error says what is wrong with
// the files, among it that they do not belong together.
func Read(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	return c, c.Reload()
}

// Reload reads the files again: connections from now on get what they have. If that cannot be used, the certificate before stays.
func (c *Certificate) Reload() error {
	loaded, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.certFile, c.keyFile, err)
	}
	c.loaded.Store(&loaded)
	return nil
}

// Warning says that the certificate has expired, or does so within the time, "" if neither. A server with an expired one goes on: its clients
// decide what they take.
func (c *Certificate) Warning(within time.Duration) string {
	end := c.Leaf().NotAfter
	switch left := time.Until(end); {
	case left <= 0:
		return fmt.Sprintf("the certificate in %s has expired on %s: clients that check it refuse it", c.certFile, end.UTC().Format(time.DateOnly))
	case left < within:
		return fmt.Sprintf("the certificate in %s expires on %s", c.certFile, end.UTC().Format(time.DateOnly))
	}
	return ""
}

// Leaf is the certificate as it is now.
func (c *Certificate) Leaf() *x509.Certificate { return c.loaded.Load().Leaf }

// Config is what a server speaks TLS with: version 1.2 at least (RFC 8996).
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.loaded.Load(), nil },
	}
}
