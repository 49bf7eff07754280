package mailer_test

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// nested is a message of so many multiparts, each in the one before it, and a text.
func nested(levels int) string {
	var b strings.Builder
	for i := range levels {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	return b.String() + "\ntext\n"
}

// wide is a multipart of so many parts.
func wide(parts int) string {
	return "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\ntext\n", parts) + "--b--\n"
}

// TestRaw_limits: a raw message is refused that has more than its limits, by all who check one, and
// what is at the limit is not.
func TestRaw_limits(t *testing.T) {
	t.Parallel()
	inPart := func(header string) string {
		return "Content-Type: multipart/mixed; boundary=b\n\n--b\n" + header + "\ntext\n--b--\n"
	}
	long := func(size int) string { return strings.Repeat("X-A: "+strings.Repeat("b", 194)+"\n", size/200) }
	tests := []struct {
		name, raw, reason string // "" if it is taken
	}{
		{"1 MB of header", long(1_000_000-200) + "\nbody", ""},
		{"more", long(1_000_200) + "\nbody", "bytes, at most 1000000 are"},
		{"one long field", "A: " + strings.Repeat("b\n ", 600_000) + "\n\nbody", "bytes, at most 1000000 are"},
		{"10,000 fields", strings.Repeat("a:\n", 10_000) + "\nbody", ""},
		{"one more", strings.Repeat("a:\n", 10_001) + "\nbody", "10001 fields, at most 10000 are"},
		{"1 MB in a part", inPart(long(1_000_000 - 200)), ""},
		{"more in a part", inPart(long(1_000_200)), "has a part that has a header of"},
		{"10,000 fields in a part", inPart(strings.Repeat("a:\n", 10_000)), ""},
		{"one more in a part", inPart(strings.Repeat("a:\n", 10_001)), "10001 fields, at most 10000 are"},
		{"one more in a part without a body", "Content-Type: multipart/mixed; boundary=b\n\n--b\n" + strings.Repeat("a:\n", 10_001), "10001 fields"},
		{"one more in a part that a boundary ends", "Content-Type: multipart/mixed; boundary=b\n\n--b\n" + strings.Repeat("a:\n", 10_001) + "--b--\n", "10001 fields"},
		{"one more in an attached message", "Content-Type: message/rfc822\n\n" + strings.Repeat("a:\n", 10_001) + "\n", "10001 fields"},
		{"1,000 parts", wide(1000), ""},
		{"one more part", wide(1001), "1001 parts, at most 1000 are"},
		{"parts of several multiparts", "Content-Type: multipart/mixed; boundary=a\n\n" + strings.Repeat("--a\n"+wide(600), 2) + "--a--\n", "1202 parts"},
		{"1,000 levels", nested(999), ""},
		{"one more level", nested(1001), "more than 1000 levels"},
		{"levels of messages", strings.Repeat("Content-Type: message/rfc822\n\n", 1002), "more than 1000 levels"},
		{"a text with what looks like parts", "Content-Type: text/plain; boundary=b\n\n" + strings.Repeat("--b\n\ntext\n", 2000), ""},
		{"an encoded message with what looks like fields", "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat("a:\n", 20_000), ""},
		{"a digest of messages", "Content-Type: multipart/digest; boundary=b\n\n--b\n\n" + strings.Repeat("a:\n", 10_001) + "\n--b--\n", "10001 fields"},
		{"one boundary for two multiparts", "Content-Type: multipart/mixed; boundary=b\n\n--b\n" + wide(500), ""},
		{"a boundary that is not closed, and the next part", "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n--a\n\n" + strings.Repeat("--b\n\n", 2000), ""},
		{"a long type", "Content-Type: text/plain" + strings.Repeat(";\n a=b", 2000) + "\n\nbody", "Content-Type of more than 10000 bytes"},
		{"fields and no end", strings.Repeat("a:\n", 300_000), "300000 fields"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := rawMessage(tt.raw)
			_, parseErr := mailer.ParseRaw(m.Raw)
			var b bytes.Buffer
			_, writeErr := m.WriteTo(&b)
			for step, err := range map[string]error{"ParseRaw": parseErr, "Validate": m.Validate(), "WriteTo": writeErr} {
				if tt.reason == "" {
					if err != nil {
						t.Errorf("%s refuses it: %v", step, err)
					}
					continue
				}
				wantBadInput(t, err, "raw", false)
				if err != nil && !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("%s: %v, want %q", step, err, tt.reason)
				}
			}
			if tt.reason != "" && b.Len() > 0 {
				t.Errorf("wrote %d bytes", b.Len())
			}
		})
	}
}

// allocated is how many bytes f takes all in all, freed or not, which is more than it has at a time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Whatever a raw message is made of, reading and writing it takes a few times its size, and
// refusing it takes nothing to speak of.
func TestRaw_memory(t *testing.T) {
	addresses := func(n int) string { return strings.Repeat("a@example.com, ", n/15) + "b@example.com" }
	tests := []struct {
		name string
		raw  string
		most float64 // bytes for each of the message
		bad  bool
	}{
		{"18 MB of fields", strings.Repeat("a:\n", 6_000_000) + "\n", 0.1, true},
		{"18 MB in one field", "a:" + strings.Repeat("\n b", 6_000_000) + "\n\n", 0.1, true},
		{"many fields in a part", "Content-Type: multipart/mixed; boundary=b\n\n--b\n" + strings.Repeat("a:\n", 1_000_000), 0.1, true},
		{"many parts", wide(1_000_000), 0.1, true},
		{"many levels", nested(20_000), 2, true},
		{"a header in lines of a blank and a letter", rawHead + "a:" + strings.Repeat("\n b", 330_000) + "\n\n", 6, false},
		{"a header of addresses", rawHead + "Cc: " + addresses(900_000) + "\n\n", 16, false},
		{"a header of addresses to be encoded", rawHead + "Cc: J\u00f6rg <j@example.com>, " + addresses(900_000) + "\n\n", 20, false},
		{"a header in Latin-1", rawHead + "X-A:" + strings.Repeat(" \xe9\xe9\xe9\xe9", 180_000) + "\n\n", 24, false},
		{"a body", rawHead + "\n" + strings.Repeat("A line of text as most bodies have them.\r\n", 25_000), 0.2, false},
		{"a body of line ends", rawHead + "\n" + strings.Repeat("\n", 1_000_000), 0.2, false},
		{"a body to be encoded", rawHead + "\n" + strings.Repeat("\u00fc", 500_000) + "\n", 0.2, false},
		{"a multipart to be encoded", rawHead + "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\n"+strings.Repeat("\u00fc", 2000)+"\n", 900) + "--b--\n", 0.5, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := rawMessage(tt.raw)
			size := float64(len(tt.raw))
			steps := []struct {
				name string
				most float64
				do   func() error
			}{
				{"Validate", tt.most, m.Validate},
				{"Envelope", max(tt.most, 0.1), func() error { _, err := m.Envelope(); return err }},
				{"WriteTo", tt.most, func() error { _, err := m.WriteTo(io.Discard); return err }},
			}
			for _, step := range steps {
				var err error
				took := float64(allocated(func() { err = step.do() })) / size
				t.Logf("%s: %.2f bytes for each", step.name, took)
				if took > step.most {
					t.Errorf("%s allocates %.2f bytes for each of the message, want no more than %.1f", step.name, took, step.most)
				}
				if bad := err != nil; bad != tt.bad && step.name != "Envelope" {
					t.Errorf("%s: %v", step.name, err)
				}
			}
		})
	}
}

// TestRaw_rendered: the room that is made for a big raw message is enough, so that what is rendered
// takes no more than rawCost in package tasks says: the message itself, and up to three times as much.
func TestRaw_rendered(t *testing.T) {
	for name, raw := range map[string]string{
		"CRLF":                 rawHead + "\r\n" + strings.Repeat("A line of text as most bodies have them.\r\n", 25_000),
		"line ends":            rawHead + "\n" + strings.Repeat("\n", 1_000_000),
		"bare CR":              rawHead + "\n" + strings.Repeat("\r", 1_000_000),
		"encoded anew":         rawHead + "\n" + strings.Repeat("\u00fc", 500_000) + "\n",
		"encoded anew, ASCII":  rawHead + "\n" + strings.Repeat("=", 1_000_000) + "\n",
		"a multipart, encoded": rawHead + "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\n"+strings.Repeat("\u00fc", 2000)+"\n", 900) + "--b--\n",
	} {
		t.Run(name, func(t *testing.T) {
			m := rawMessage(raw)
			var n int
			took := allocated(func() {
				b := bytes.NewBuffer(make([]byte, 0, m.EstimateSize()))
				_, _ = m.WriteTo(b)
				n = b.Len()
			})
			t.Logf("%d bytes make %d, the estimate is %d; %.2f bytes for each", len(raw), n, m.EstimateSize(), float64(took)/float64(len(raw)))
			if e := m.EstimateSize(); e < n || e > 2*n {
				t.Errorf("estimated %d bytes, wrote %d", e, n)
			}
			if took > uint64(3.5*float64(len(raw))) {
				t.Errorf("allocates %.2f bytes for each of the message", float64(took)/float64(len(raw)))
			}
		})
	}
}
