package certfile_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/certfile"
)

// write writes a new certificate of a name, and its key.
func write(t *testing.T, dir, name string, until time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// shown is the name that a client sees.
func shown(t *testing.T, config *tls.Config) string {
	t.Helper()
	ours, theirs := net.Pipe()
	defer func() { _ = ours.Close() }()
	go func() { _ = tls.Server(theirs, config).HandshakeContext(t.Context()) }()
	client := tls.Client(ours, &tls.Config{InsecureSkipVerify: true})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState().PeerCertificates[0].DNSNames[0]
}

// A new certificate is shown from when it is read on; one that cannot be used is not.
func TestCertificate(t *testing.T) {
	t.Parallel()
	dir, later := t.TempDir(), time.Now().Add(time.Hour)
	certFile, keyFile := write(t, dir, "one.example", later)
	c, err := certfile.Read(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	config := c.Config()
	if got := shown(t, config); got != "one.example" {
		t.Errorf("got %s", got)
	}
	write(t, dir, "two.example", later)
	if got := shown(t, config); got != "one.example" {
		t.Errorf("before it is read again: %s", got)
	}
	if err := c.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := shown(t, config); got != "two.example" || c.Leaf().DNSNames[0] != got {
		t.Errorf("got %s", got)
	}
	other, _ := write(t, t.TempDir(), "three.example", later)
	for name, tt := range map[string]struct {
		spoil func()
		want  string
	}{
		"no match":  {func() { replace(t, certFile, other) }, "private key does not match public key"},
		"no PEM":    {func() { text(t, certFile, "x") }, "failed to find any PEM data"},
		"not there": {func() { _ = os.Remove(keyFile) }, "no such file"},
	} {
		write(t, dir, "good.example", later)
		tt.spoil()
		if err := c.Reload(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if got := shown(t, config); got != "two.example" {
			t.Errorf("%s: %s is shown", name, got)
		}
		if _, err := certfile.Read(certFile, keyFile); err == nil {
			t.Errorf("%s: it can be read", name)
		}
	}
}

func TestCertificate_Warning(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		left time.Duration
		want string
	}{{-time.Hour, " has expired on 20"}, {time.Hour, " expires on 20"}, {25 * time.Hour, ""}} {
		c, err := certfile.Read(write(t, t.TempDir(), "one.example", time.Now().Add(tt.left)))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Warning(24 * time.Hour); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%v left: %q", tt.left, got)
		}
	}
}

func TestCertificate_oldTLS(t *testing.T) {
	t.Parallel()
	c, err := certfile.Read(write(t, t.TempDir(), "one.example", time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer func() { _ = ours.Close() }()
	done := make(chan error, 1)
	go func() { done <- tls.Server(theirs, c.Config()).HandshakeContext(t.Context()) }()
	client := tls.Client(ours, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err := client.HandshakeContext(t.Context()); err == nil {
		t.Error("TLS 1.1 is taken")
	}
	if err := <-done; err == nil {
		t.Error("the server takes it")
	}
}

func replace(t *testing.T, path, with string) {
	t.Helper()
	data, err := os.ReadFile(with)
	if err != nil {
		t.Fatal(err)
	}
	text(t, path, string(data))
}

func text(t *testing.T, path, s string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
}
