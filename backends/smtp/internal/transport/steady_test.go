package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowly reads as a slow server does, a little at a time and after a pause.
type slowly struct {
	net.Conn
	octets int
	pause  time.Duration
}

func (c slowly) Read(p []byte) (int, error) {
	time.Sleep(c.pause)
	return c.Conn.Read(p[:min(len(p), c.octets)])
}

// TestSteady: what is read slowly goes on, for far longer than one limit, in clear text and over TLS.
func TestSteady(t *testing.T) {
	for name, encrypted := range map[string]bool{"clear": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			cert := testCertificate(t)
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				link := NewLink(ours)
				server := net.Conn(slowly{theirs, 500, limit * 9 / 10})
				got := make(chan string, 1)
				go func() {
					if encrypted {
						server = tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
					}
					all, _ := io.ReadAll(server)
					got <- string(all)
				}()
				if encrypted {
					if _, err := link.Encrypt(t.Context(), &tls.Config{InsecureSkipVerify: true}); err != nil {
						t.Fatal(err)
					}
				}
				want := strings.Repeat("x", 20_000)
				began := time.Now()
				if err := link.WriteLine([]byte(want), limit); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took < 20*limit {
					t.Errorf("it took %v: nothing was slow", took)
				}
				link.Cut()
				if all := <-got; len(all) < len(want)-500 {
					t.Errorf("%d bytes have come, want %d", len(all), len(want))
				}
			})
		})
	}
}

// TestSteady_standsStill: where nothing is read any more a write ends when its limit is up, and at once when the link halts.
func TestSteady_standsStill(t *testing.T) {
	for name, halt := range map[string]bool{"limit": false, "halt": true} {
		t.Run(name, func(t *testing.T) {
			onPipe(t, func(t *testing.T, r *rig) {
				began := time.Now()
				ended := make(chan error, 1)
				go func() { ended <- r.link.WriteLine([]byte(strings.Repeat("x", 10_000)), limit) }()
				r.take(t, 1000)
				if halt {
					synctest.Wait()
					r.link.Halt()
				}
				if err := <-ended; !IsTimeout(err) {
					t.Errorf("ended with %v", err)
				}
				took := time.Since(began)
				if halt && took > 0 || !halt && (took < limit || took > 2*limit) {
					t.Errorf("ended after %v", took)
				}
			})
		})
	}
}

// TestUnsent: what the system keeps for a server is no progress until the server has it.
func TestUnsent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	link := NewLink(c)
	defer link.Cut()
	body := []byte(strings.Repeat("x", 32<<20)) // more than the system takes
	if err := link.WriteLine(body, 100*time.Millisecond); !IsTimeout(err) {
		t.Fatalf("the system takes everything: %v", err)
	}
	written := link.written.Load()
	if runtime.GOOS == "linux" && link.taken() >= written {
		t.Errorf("%d bytes count as taken of %d that were written, and nobody has read one", link.taken(), written)
	}
	if _, err := io.CopyN(io.Discard, server, written); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); link.taken() < written; time.Sleep(time.Millisecond) { // until the last acknowledgement is here
		if time.Now().After(end) {
			t.Fatalf("%d bytes count as taken of %d that were read", link.taken(), written)
		}
	}
}

// testCertificate returns a certificate that nobody has to trust.
func testCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
