package transport

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReplyReader(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		code     int
		enhanced string
		text     string
		shown    string
		err      error
	}{
		{"one line", "250 2.1.0 Ok\r\n", 250, "2.1.0", "Ok", "250 2.1.0 Ok", nil},
		{"several lines", "550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n", 550, "5.1.1", "no such user", "550 5.1.1 no such user", nil},
		{"LF alone", "250-a\n250 b\n", 250, "", "a b", "250 a b", nil},
		{"code alone", "354\r\n", 354, "", "", "354 ", nil},
		{"empty text", "250 \r\n", 250, "", "", "250 ", nil},
		{"enhanced of the other class of refusals", "550 4.1.1 x\r\n", 550, "4.1.1", "x", "550 4.1.1 x", nil},
		{"enhanced of the other class of refusals", "450 5.1.1 x\r\n", 450, "5.1.1", "x", "450 5.1.1 x", nil},
		{"enhanced of no refusal", "550 2.1.1 x\r\n", 550, "", "2.1.1 x", "550 2.1.1 x", nil},
		{"enhanced of a refusal", "250 5.1.1 x\r\n", 250, "", "5.1.1 x", "250 5.1.1 x", nil},
		{"no enhanced code", "550 5.1 x\r\n", 550, "", "5.1 x", "550 5.1 x", nil},
		{"an address is none", "550 5.1.1234 x\r\n", 550, "", "5.1.1234 x", "550 5.1.1234 x", nil},
		{"controls", "550 a\x00\x1b[31mb\x7f\xff\r\n", 550, "", "a  [31mb ?", "550 a  [31mb ?", nil},
		{"long", "550 " + strings.Repeat("ü", 600) + "\r\n", 550, "", strings.Repeat("ü", 250) + "...", "550 " + strings.Repeat("ü", 250) + "...", nil},
		{"codes differ", "250-a\r\n550 b\r\n", 0, "", "", "", errCodes},
		{"no code", "hello\r\n", 0, "", "", "", errSyntax},
		{"code too low", "150 x\r\n", 0, "", "", "", errSyntax},
		{"code too high", "600 x\r\n", 0, "", "", "", errSyntax},
		{"bad separator", "250+x\r\n", 0, "", "", "", errSyntax},
		{"short", "25\r\n", 0, "", "", "", errSyntax},
		{"a line in a buffer and a half", "250-2.0.0 a" + strings.Repeat(" ", 3*maxReplyLine/2) + "\r\n250 2.0.0 b\r\n", 250, "2.0.0", "a b", "250 2.0.0 a b", nil},
		{"line too long", "250 " + strings.Repeat("x", maxReplyLine+maxSkipped) + "\r\n", 0, "", "", "", errLong},
		{"long line cut off", "250 " + strings.Repeat("x", 2*maxReplyLine), 0, "", "", "", io.EOF},
		{"too many lines", strings.Repeat("250-x\r\n", maxReplyLines) + "250 x\r\n", 0, "", "", "", errLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := &ReplyReader{r: bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(tt.in)), maxReplyLine)}
			r, err := in.Read()
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			enhanced, text := r.Words()
			if r.Code != tt.code || enhanced != tt.enhanced || text != tt.text || r.String() != tt.shown {
				t.Errorf("got %d %q %q, shown %q", r.Code, enhanced, text, r.String())
			}
		})
	}
}

// TestReplyReader_hide: our secrets are in no reply and in no trace of one.
func TestReplyReader_hide(t *testing.T) {
	var traced []string
	in := ReplyReader{
		Hide:  strings.NewReplacer("pa55word", "(hidden)"),
		Trace: func(prefix, line string) { traced = append(traced, prefix+line) },
	}
	in.Reset(strings.NewReader("250-welcome\r\n250 pa55word, pa55word\r\n"))
	r, err := in.Read()
	if err != nil || r.String() != "250 welcome (hidden), (hidden)" {
		t.Errorf("%q, %v", r, err)
	}
	if got := strings.Join(traced, "|"); got != "S: 250-welcome|S: 250 (hidden), (hidden)" {
		t.Errorf("traced %q", got)
	}
}

// FuzzParseLine: a reply line is understood or refused, and what is kept of it can be shown.
func FuzzParseLine(f *testing.F) {
	for _, s := range []string{"250 ok", "250-ok", "250", "25", "2500", "550 5.1.1 no", "421 4.3.2", "999 x", "250\tx", "550 5.1.1", "550 4.1.1 x", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		code, text, _, err := parseLine(line)
		if err != nil {
			return
		}
		if code < 200 || code > 599 {
			t.Errorf("code %d", code)
		}
		r := &Reply{Code: code, Text: text}
		_, words := r.Words()
		for _, s := range []string{words, r.String()} {
			if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) || len(s) > maxReplyText+20 {
				t.Errorf("cannot be shown: %q", s)
			}
		}
	})
}
