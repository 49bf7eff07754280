package mimewriter

import (
	"bytes"
	"io"
	"math/rand/v2"
	"mime/quotedprintable"
	"testing"
)

// encodings writes content in both encodings, and checks what they are.
func encodings(t *testing.T, content []byte, inLines bool) (quoted, base64 int) {
	t.Helper()
	var b bytes.Buffer
	o := NewWriter(&b, Buffers{}, nil)
	o.quoted(content, inLines)
	o.flush()
	checkQuoted(t, content, b.Bytes(), inLines)
	quoted = b.Len()
	b.Reset()
	o = NewWriter(&b, Buffers{}, nil)
	o.base64(content, inLines)
	o.flush()
	if !inLines && b.Len() != base64Len(len(content)) {
		t.Fatalf("%d octets: base64Len says %d, base64 wrote %d", len(content), base64Len(len(content)), b.Len())
	}
	return quoted, b.Len()
}

// checkChoice demands that Choose takes the shorter of the two encodings, or one that is longer by no
// more than two thousandths and a soft line break, and takes 7bit where it can be.
func checkChoice(t *testing.T, content []byte, inLines bool) {
	t.Helper()
	encoding := Choose(content, inLines)
	if IsSevenBit(content, inLines) != (encoding == SevenBit) {
		t.Fatalf("%.100q in lines %v: got %s", content, inLines, encoding)
	}
	quoted, base64 := encodings(t, content, inLines)
	got := map[Encoding]int{SevenBit: 0, QuotedPrintable: quoted, Base64: base64}[encoding]
	if least := min(quoted, base64); got > least+least/500+len("=\r\n") {
		t.Fatalf("%.100q in lines %v: got %s, which makes %d, want %d", content, inLines, encoding, got, least)
	}
}

func TestChoose(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	alphabets := []string{
		"a", "a ", "a\n", "\u00e9", "ab \t=\r\n\x00\xff", "aaaaaaaaaaaaaaaaaaaaaaaaaa\xff", " ",
		"aaaa\x80", "aaaaa\x7f", "aaaaa=\xff\n", "\t\xff\x01aaaaaaaa",
	}
	for i := range 3000 {
		alphabet := alphabets[r.IntN(len(alphabets))]
		content := make([]byte, r.IntN(400))
		if i%100 == 0 {
			content = make([]byte, r.IntN(40_000))
		}
		for i := range content {
			content[i] = alphabet[r.IntN(len(alphabet))]
		}
		checkChoice(t, content, true)
		checkChoice(t, content, false)
	}
}

// Each byte is counted as the encoder writes it, wherever in a word it stands.
func TestChoose_eachByte(t *testing.T) {
	for c := range 256 {
		for at := range 17 {
			content := bytes.Repeat([]byte("a"), 17)
			content[at] = byte(c)
			want := 1
			if ' ' <= c && c <= '~' && c != '=' || c == '\t' {
				want = 0
			}
			if n := countSpecial(content); n != want {
				t.Errorf("%#x at %d: got %d, want %d", c, at, n, want)
			}
		}
	}
}

// The whole content decides, not its beginning.
func TestChoose_whole(t *testing.T) {
	text := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. \u00e9\r\n"), 4<<10)
	binary := randomBytes(1 << 20)
	for _, tt := range []struct {
		name    string
		content []byte
		inLines bool
		want    Encoding
	}{
		{"text and then binary", append(bytes.Clone(text), binary...), false, Base64},
		{"binary and then text", append(bytes.Clone(binary[:20<<10]), text...), true, QuotedPrintable},
		{"text and then other text", append(bytes.Clone(text), bytes.Repeat([]byte("\u65e5\u672c\u8a9e\n"), 100<<10)...), true, Base64},
		{"ASCII and a letter at the end", append(bytes.Repeat([]byte("word word\n"), 100<<10), "\u00e9"...), true, QuotedPrintable},
		{"ASCII and a long line at the end", append(bytes.Repeat([]byte("word word\n"), 100<<10), bytes.Repeat([]byte("x"), 999)...), true, QuotedPrintable},
		{"equal signs", bytes.Repeat([]byte("====\n"), 100<<10), true, SevenBit},
		{"equal signs and a letter", append(bytes.Repeat([]byte("====\n"), 100<<10), "\u00e9"...), true, Base64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Choose(tt.content, tt.inLines); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			checkChoice(t, tt.content, tt.inLines)
		})
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func BenchmarkChoose(b *testing.B) {
	const line = "The quick brown fox jumps over the lazy dog.\n"
	for _, bb := range []struct {
		name    string
		content []byte
		inLines bool
	}{
		{"2kB ASCII", bytes.Repeat([]byte(line), 45), true},
		{"1MB ASCII", bytes.Repeat([]byte(line), 22<<10), true},
		{"1MB Latin", bytes.Repeat([]byte("\u00fc"+line), 22<<10), true},
		{"1MB Japanese", bytes.Repeat([]byte("\u65e5\u672c\u8a9e\u65e5\u672c\u8a9e\u65e5\u672c\u8a9e\n"), 36<<10), true},
		{"1MB binary", randomBytes(1 << 20), false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.content)))
			for b.Loop() {
				Choose(bb.content, bb.inLines)
			}
		})
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
