package jsoncodec

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// texts are strings with each byte at each place of a word, and what mails are made of.
func texts() []string {
	all := []string{"", "Grüße\r\n", "a\u2028b", "\xff", "half \xc3", strings.Repeat("A line of a mail, with \"quotes\".\r\n", 30), "\x7f\u0080\u00a2"}
	for c := range 256 {
		for at := range 9 {
			s := []byte("0123456789abcdef"[:at+8])
			s[at] = byte(c)
			all = append(all, string(s), string(s)+"\"\x01\x1f \\!#[]")
		}
	}
	return all
}

// What is written and read here in place of jsontext is what that writes and reads.
func TestStrings(t *testing.T) {
	t.Parallel()
	for _, s := range texts() {
		got, valid := AppendString(nil, s)
		want, err := jsontext.AppendQuote(nil, s)
		if string(got) != string(want) || valid != (err == nil) {
			t.Fatalf("%q is written as %s, %v, want %s, %v", s, got, valid, want, err)
		}
		checkUnquoted(t, want)
	}
}

func checkUnquoted(t *testing.T, v []byte) {
	t.Helper()
	want, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return // it is read by the other one, which says so
	}
	if got, ok := unquoted(v); ok && got != string(want) {
		t.Fatalf("%s is read as %q, want %q", v, got, want)
	} else if !ok && !bytes.Contains(v, []byte(`\u`)) {
		t.Fatalf("%s is not read", v)
	}
}

func FuzzStrings(f *testing.F) {
	f.Add("a\nb", `a\"\\\/\b\f\n\r\tb`)
	f.Add("\x00", `\u00e4\ud83d\ude00`)
	f.Fuzz(func(t *testing.T, s, inner string) {
		got, valid := AppendString(nil, s)
		if want, err := jsontext.AppendQuote(nil, s); string(got) != string(want) || valid != (err == nil) {
			t.Fatalf("%q is written as %s, want %s", s, got, want)
		}
		if v := []byte(`"` + inner + `"`); jsontext.Value(v).IsValid() && jsontext.Value(v).Kind() == '"' {
			checkUnquoted(t, v)
		}
	})
}

func BenchmarkAppendString(b *testing.B) {
	s := strings.Repeat("The quick brown fox jumps over the lazy dog, and on it goes.\r\n", 32)
	dst := make([]byte, 0, 3000)
	b.Run("here", func(b *testing.B) {
		b.SetBytes(int64(len(s)))
		for b.Loop() {
			dst, _ = AppendString(dst[:0], s)
		}
	})
	b.Run("jsontext", func(b *testing.B) {
		b.SetBytes(int64(len(s)))
		for b.Loop() {
			dst, _ = jsontext.AppendQuote(dst[:0], s)
		}
	})
}

func BenchmarkUnquote(b *testing.B) {
	v, _ := AppendString(nil, strings.Repeat("The quick brown fox jumps over the lazy dog, and on it goes.\r\n", 32))
	b.Run("here", func(b *testing.B) {
		for b.Loop() {
			unquoted(v)
		}
	})
	b.Run("jsontext", func(b *testing.B) {
		scratch := make([]byte, 0, len(v))
		for b.Loop() {
			text, _ := jsontext.AppendUnquote(scratch, v)
			_ = string(text)
		}
	})
}

// Programs may escape what need not be, in base64 too: PHP does so with each slash.
func TestBase64(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		json, want string
		wrong      bool
	}{
		{json: `"aGk="`, want: "hi"},
		{json: `"\u0061Gk="`, want: "hi"},
		{json: `"\/\/\/\/"`, want: "\xff\xff\xff"},
		{json: `""`},
		{json: `null`},
		{json: `"\"aGk="`, wrong: true},
		{json: `"aGk=\""`, wrong: true},
		{json: `"a"`, wrong: true},
		{json: `7`, wrong: true},
		{json: `"aGk`, wrong: true},
	} {
		d := NewDecoder([]byte(tt.json))
		got := d.Base64("content")
		if d.End(); (d.Err() != nil) != tt.wrong || !tt.wrong && string(got) != tt.want {
			t.Errorf("%s is %q, %v", tt.json, got, d.Err())
		}
	}
}
