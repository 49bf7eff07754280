package dkim

import (
	"bytes"
	"crypto/sha256"
	"regexp"
	"testing"
)

// relaxedBody is RFC 6376, 3.4.4 word by word.
func relaxedBody(body []byte) []byte {
	text := regexp.MustCompile(`[ \t]+(\r\n|$)`).ReplaceAll(body, []byte("$1"))
	text = regexp.MustCompile(`[ \t]+`).ReplaceAll(text, []byte(" "))
	text = regexp.MustCompile(`(\r\n)+$`).ReplaceAll(text, nil)
	if len(text) > 0 {
		text = append(text, "\r\n"...)
	}
	return text
}

// FuzzDigest: however a message is cut into pieces, its header is found and its body hashed as the RFC says.
func FuzzDigest(f *testing.F) {
	for _, body := range []string{"", "\n", " ", "a", "a b\n", " a\t b \n\n", "\n\na", "a\n \n", "\t\n\t\n", "\r", "a\rb"} {
		f.Add([]byte(body), uint8(3))
	}
	f.Fuzz(func(t *testing.T, body []byte, piece uint8) {
		body = bytes.ReplaceAll(bytes.ReplaceAll(body, []byte("\r"), nil), []byte("\n"), []byte("\r\n"))
		const header = "From: a@example.com\r\nX: y\r\n  z\r\n"
		d := newDigest()
		d.reset()
		rest := append([]byte(header+"\r\n"), body...)
		for len(rest) > 0 {
			n := min(len(rest), int(piece)%7+1)
			_, _ = d.Write(rest[:n])
			rest = rest[n:]
		}
		want := sha256.Sum256(relaxedBody(body))
		if got := d.body.sum(); !bytes.Equal(got, want[:]) {
			t.Errorf("another hash for %q in pieces of %d", body, int(piece)%7+1)
		}
		if string(d.header) != header {
			t.Errorf("the header is %q", d.header)
		}
	})
}
