package catcher_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/textproto"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// rawClient speaks SMTP line by line.
type rawClient struct {
	*textproto.Conn
	conn net.Conn
}

func rawDial(t *testing.T, s *catcher.Server) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c := &rawClient{Conn: textproto.NewConn(conn), conn: conn}
	t.Cleanup(func() { _ = c.Close() })
	if _, _, err := c.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	return c
}

// certificate makes one for localhost that signs itself.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "localhost"}
}

func TestConfig_TLS(t *testing.T) {
	serverConfig, clientConfig := certificate(t)
	for _, implicit := range []bool{false, true} {
		s := start(t, catcher.Config{TLS: serverConfig, ImplicitTLS: implicit})
		dialTLS := smtp.DialStartTLS
		if implicit {
			dialTLS = smtp.DialTLS
		}
		c, err := dialTLS(s.Addr(), clientConfig)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		send(t, c, "x\r\n", "a@example.com")
		if got := s.Messages(); len(got) != 1 || !got[0].TLS || got[0].Connection != 1 {
			t.Errorf("implicit %v: messages = %+v", implicit, got)
		}
	}
}
