package tlsprobe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"

	"github.com/mailpouch/mailpouch/internal/testserver"
	"github.com/mailpouch/mailpouch/internal/tlsprobe"
)

// serve starts a server that does serve with each connection, and returns how it is dialled.
func serve(t *testing.T, serve func(net.Conn)) tlsprobe.Dial {
	t.Helper()
	addr := testserver.Serve(t, serve)
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	ca, err := testserver.NewAuthority(t.TempDir(), "authority")
	if err == nil {
		err = ca.Issue("server", "server", x509.ExtKeyUsageServerAuth)
	}
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(ca.CertFiles("server"))
	if err != nil {
		t.Fatal(err)
	}
	secure := func(change func(*tls.Config)) func(net.Conn) {
		return func(c net.Conn) {
			cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			change(cfg)
			_, _ = io.Copy(io.Discard, tls.Server(c, cfg))
		}
	}
	echo := func(c net.Conn) { _, _ = io.Copy(c, c) }
	for _, tt := range []struct {
		name          string
		serve         func(net.Conn)
		tls, answered bool
	}{
		{"TLS", secure(func(*tls.Config) {}), true, false},
		{"TLS that wants a certificate", secure(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), true, false},
		{"TLS that wants another name", secure(func(c *tls.Config) {
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.EOF }
			c.Certificates = nil
		}), true, false},
		{"a greeting", func(c net.Conn) {
			_, _ = c.Write([]byte("220 relay.example ESMTP\r\n"))
			_, _ = io.Copy(io.Discard, c)
		}, false, false},
		{"an answer", echo, false, true},
		{"silence", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, false, false},
		{"it hangs up", func(net.Conn) {}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dial := serve(t, tt.serve)
			if got := tlsprobe.SpeaksTLS(t.Context(), dial); got != tt.tls {
				t.Errorf("SpeaksTLS = %v", got)
			}
			ok := func(answer []byte) bool { return answer[0] == 'P' }
			if got := tlsprobe.Answers(t.Context(), dial, "PING\r\n", ok); got != tt.answered {
				t.Errorf("Answers = %v", got)
			}
		})
	}
	nobody := func(context.Context) (net.Conn, error) { return nil, io.EOF }
	if tlsprobe.SpeaksTLS(t.Context(), nobody) || tlsprobe.Answers(t.Context(), nobody, "", nil) {
		t.Error("an answer of nobody")
	}
}
