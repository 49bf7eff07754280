package dkimkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

var edKey = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestParse(t *testing.T) {
	t.Parallel()
	pkcs1 := block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))
	public := block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(rsaKey().Public())))
	for name, tt := range map[string]struct {
		text string
		want crypto.PublicKey
	}{
		"PKCS #1":          {pkcs1, rsaKey().Public()},
		"PKCS #8":          {block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey()))), rsaKey().Public()},
		"Ed25519":          {block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey))), edKey.Public()},
		"after other text": {"the key of example.com\n" + public + pkcs1, rsaKey().Public()},
	} {
		key, err := Parse([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, ok := key.Public().(interface{ Equal(x crypto.PublicKey) bool }); !ok || !got.Equal(tt.want) {
			t.Errorf("%s: another key", name)
		}
	}
}

func TestParse_errors(t *testing.T) {
	t.Parallel()
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	for want, text := range map[string]string{
		"holds no private key in PEM":                    "mail",
		`holds no private key, only "PUBLIC KEY"`:        block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(edKey.Public()))),
		"holds a key with a password":                    block("ENCRYPTED PRIVATE KEY", []byte("x")),
		"is an RSA key of 1024 bits: 2048 are the least": block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(must(rsa.GenerateKey(rand.Reader, 1024)))),
		`holds a key of the kind "EC PRIVATE KEY"`:       block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec))),
		"is a key of the kind *ecdsa.PublicKey":          block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ec))),
		"holds a key that cannot be read":                block("PRIVATE KEY", []byte("x")),
		"holds an RSA key that cannot be read":           block("RSA PRIVATE KEY", []byte("x")),
	} {
		if key, err := Parse([]byte(text)); key != nil && err == nil || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key.pem")
	if _, err := Read(path); err == nil || !strings.HasPrefix(err.Error(), "cannot be read: ") || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.HasPrefix(err.Error(), path+" holds no private key") {
		t.Errorf("got %v", err)
	}
}

// TestRecord: the record of a key is accepted for that key alone, in every form that the DNS may have it in.
func TestRecord(t *testing.T) {
	t.Parallel()
	der := base64.StdEncoding.EncodeToString
	rsaRecord, edRecord := Record(rsaKey()), Record(edKey)
	if want := "v=DKIM1; k=ed25519; p=" + der(edKey.Public().(ed25519.PublicKey)); edRecord != want {
		t.Errorf("got %s", edRecord)
	}
	bare := "p=" + der(x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey))
	for _, tt := range []struct {
		record string
		key    crypto.Signer
		test   bool
		want   string // what the error begins with
	}{
		{rsaRecord, rsaKey(), false, ""}, {edRecord, edKey, false, ""}, {bare, rsaKey(), false, ""},
		{" v=DKIM1 ;h=sha1:sha256; s=email; t=y:s; k=rsa;p=" + strings.ReplaceAll(rsaRecord[len("v=DKIM1; k=rsa; p="):], "A", "A "), rsaKey(), true, ""},
		{"v=DKIM1; t=s; " + bare, rsaKey(), false, ""},
		{edRecord, rsaKey(), false, "is for a key of the kind k=ed25519, and ours is k=rsa"},
		{rsaRecord, edKey, false, "is for a key of the kind k=rsa"},
		{Record(ed25519.NewKeyFromSeed(make([]byte, 32))), edKey, false, "is for another key"},
		{"v=DKIM1; p=", rsaKey(), false, "has an empty p=: the key was revoked"},
		{"v=DKIM1; k=rsa", rsaKey(), false, "has no p="},
		{"v=DKIM1; p=!", rsaKey(), false, "is for another key"},
		{"v=DKIM2; " + bare, rsaKey(), false, "has v=DKIM2"},
		{"h=sha1; " + bare, rsaKey(), false, "takes only the hash functions h=sha1"},
		{"s=tlsrpt; " + bare, rsaKey(), false, "is for the service s=tlsrpt"},
	} {
		test, err := CheckRecord(tt.record, tt.key)
		if test != tt.test || (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%.60s: %t, %v", tt.record, test, err)
		}
	}
	for text, want := range map[string]bool{rsaRecord: true, bare: true, "v=DKIM1": true, "v=spf1 -all": false, "google-site-verification=abc": false} {
		if IsRecord(text) != want {
			t.Errorf("%.40s is a record: %t", text, !want)
		}
	}
}

// TestZone: a line of a zone file has strings that the DNS can hold, which make up the record.
func TestZone(t *testing.T) {
	t.Parallel()
	if got := Zone("mail", "example.com", edKey); got != `mail._domainkey.example.com. IN TXT "`+Record(edKey)+`"` {
		t.Errorf("got %s", got)
	}
	got := Zone("mail", "example.com", rsaKey())
	whole := ""
	for _, m := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(got, -1) {
		if len(m[1]) > 255 {
			t.Errorf("a string of %d bytes", len(m[1]))
		}
		whole += m[1]
	}
	if whole != Record(rsaKey()) || !strings.HasPrefix(got, "mail._domainkey.example.com. IN TXT ( ") || !strings.HasSuffix(got, " )") {
		t.Errorf("got %s", got)
	}
}
