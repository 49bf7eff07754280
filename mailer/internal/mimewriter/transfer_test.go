package mimewriter

import (
	"bytes"
	"io"
	"math/rand/v2"
	"mime/quotedprintable"
	"testing"
)

// What quotedLen and base64Len promise is what quoted and base64 write.
func TestTransferEncoding_lengths(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	alphabets := []string{"a", "a ", "a\n", "\u00e9", "ab \t=\r\n\x00\xff", "aaaaaaaaaaaaaaaaaaaaaaaaaa\xff", " "}
	for range 3000 {
		alphabet := alphabets[r.IntN(len(alphabets))]
		content := make([]byte, r.IntN(400))
		for i := range content {
			content[i] = alphabet[r.IntN(len(alphabet))]
		}
		for _, inLines := range []bool{true, false} {
			var b bytes.Buffer
			o := NewWriter(&b, Buffers{}, nil)
			o.quoted(content, inLines)
			o.flush()
			if b.Len() != quotedLen(content, inLines) {
				t.Fatalf("%q in Lines %v: quotedLen says %d, quoted wrote %d: %q", content, inLines, quotedLen(content, inLines), b.Len(), b.Bytes())
			}
			checkQuoted(t, content, b.Bytes(), inLines)
		}
		var b bytes.Buffer
		o := NewWriter(&b, Buffers{}, nil)
		o.base64(content, false)
		o.flush()
		if b.Len() != base64Len(len(content)) {
			t.Fatalf("%d octets: base64Len says %d, base64 wrote %d", len(content), base64Len(len(content)), b.Len())
		}
	}
}

func checkQuoted(t *testing.T, content, encoded []byte, inLines bool) {
	t.Helper()
	for line := range bytes.SplitSeq(encoded, []byte("\r\n")) {
		if len(line) > 76 || bytes.ContainsAny(line, "\r\n") || bytes.HasSuffix(line, []byte(" ")) || bytes.HasSuffix(line, []byte("\t")) {
			t.Fatalf("bad line %q of %q", line, content)
		}
	}
	want := content
	if inLines {
		want = nil
		for line, ended := range Lines(content) {
			want = append(want, line...)
			if ended {
				want = append(want, "\r\n"...)
			}
		}
	}
	if got, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(encoded))); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}
