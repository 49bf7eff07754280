package smtpd

import (
	"bufio"
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

// reference reads a message the slow way: it ends at the first dot between CRLF and CRLF.
func reference(stream string) (message string, bare bool, rest string, ended bool) {
	end := 0
	for ; ; end++ {
		if end > len(stream) {
			return "", false, "", false
		}
		if strings.HasPrefix(stream[end:], ".\r\n") && (end == 0 || strings.HasSuffix(stream[:end], "\r\n")) {
			break
		}
	}
	message, rest = stream[:end], stream[end+3:]
	without := strings.ReplaceAll(message, "\r\n", "")
	var lines strings.Builder
	for _, line := range strings.SplitAfter(message, "\r\n") {
		lines.WriteString(strings.TrimPrefix(line, "."))
	}
	return lines.String(), strings.ContainsAny(without, "\r\n"), rest, true
}

// FuzzDotted reads messages as they come: whole, in small pieces, and byte by byte.
func FuzzDotted(f *testing.F) {
	for _, seed := range []string{
		".\r\n", "a\r\n.\r\nrest", "..\r\n.\r\n", "a\n.\r\n\r\n.\r\n", "a\r\n.\n.\r\n\r\n.\r\n", "a\r.\r\n\r\n.\r\n", "\r\r\n.\r\nx", "a\r\n.\rb\r\n.\r\n",
		"\r\n\r\n.\r\n", strings.Repeat("x", 40) + "\r\n." + strings.Repeat("y", 40) + "\r\n.\r\n", strings.Repeat("x", 31) + "\r\n.\r\n", "no end\r\n", "a\r\n.\r\r\n.\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream string) {
		message, bare, rest, ended := reference(stream)
		for _, r := range []io.Reader{strings.NewReader(stream), iotest.OneByteReader(strings.NewReader(stream)), iotest.HalfReader(strings.NewReader(stream))} {
			b := body{limit: 1 << 20, budget: &budget{most: 1 << 21}}
			b.begin()
			br := bufio.NewReaderSize(r, 16)
			err := b.dotted(br)
			if !ended {
				if err == nil {
					t.Fatalf("%q has an end: %q", stream, b.buf)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%q: %v", stream, err)
			}
			b.finish()
			if (b.fault == replyBareEnd) != bare || !bare && string(b.buf) != message {
				t.Fatalf("%q: %q, fault %q; want %q, bare %t", stream, b.buf, b.fault, message, bare)
			}
			if left, _ := io.ReadAll(br); string(left) != rest {
				t.Fatalf("%q: %q is left, want %q", stream, left, rest)
			}
			b.end()
			if b.budget.held.Load() != 0 {
				t.Fatalf("%q: %d bytes are held", stream, b.budget.held.Load())
			}
		}
	})
}

// Where there is no room for two messages, one of them gets it: the other lets go of what it has when it is refused, not when its client has sent the rest.
func TestBody_full(t *testing.T) {
	t.Parallel()
	shared := &budget{most: 3 * block}
	one, other := body{limit: 1 << 20, budget: shared}, body{limit: 1 << 20, budget: shared}
	one.begin()
	other.begin()
	half := bytes.Repeat([]byte("x"), block)
	for _, b := range []*body{&one, &other, &one, &other, &one} {
		b.add(half)
	}
	if one.fault != "" || len(one.buf) != 3*block {
		t.Errorf("%d bytes of the first, %q", len(one.buf), one.fault)
	}
	if other.fault != replyTooMuch || other.taken != 0 {
		t.Errorf("%d bytes are held by the other one, %q", other.taken, other.fault)
	}
	one.end()
	if held := shared.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
}

// FuzzChunk is the same for chunks, which are cut anywhere.
func FuzzChunk(f *testing.F) {
	f.Add("a\r\nb", uint8(2))
	f.Add("a\rb\r\n", uint8(2))
	f.Add("a\nb\r\n", uint8(1))
	f.Add("a\r", uint8(1))
	f.Fuzz(func(t *testing.T, stream string, cut uint8) {
		b := body{limit: 1 << 20, budget: &budget{most: 1 << 21}}
		b.begin()
		first := min(int(cut), len(stream))
		br := bufio.NewReaderSize(iotest.HalfReader(strings.NewReader(stream)), 16)
		for _, n := range []int{first, len(stream) - first} {
			if err := b.chunk(br, uint64(n)); err != nil {
				t.Fatal(err)
			}
		}
		b.finish()
		bare := strings.ContainsAny(strings.ReplaceAll(stream, "\r\n", ""), "\r\n")
		if (b.fault == replyBareEnd) != bare || !bare && string(b.buf) != stream {
			t.Fatalf("%q: %q, fault %q", stream, b.buf, b.fault)
		}
	})
}

// FuzzHeader takes out what is for us, and nothing else.
func FuzzHeader(f *testing.F) {
	f.Add("A: b\r\nIdempotency-Key: x\r\n y\r\nC: d\r\n\r\nbody")
	f.Add("x-mailpouch-\r\nX-Mailpouch-: \r\n\r\n")
	f.Add(" a: b\r\n\r\n")
	f.Fuzz(func(t *testing.T, message string) {
		if strings.ContainsAny(strings.ReplaceAll(message, "\r\n", ""), "\r\n") {
			t.Skip()
		}
		h := readHeader([]byte(message))
		raw := h.raw("T: x\r\n")
		rest, found := bytes.CutPrefix(raw, []byte("T: x\r\n"))
		if !found {
			t.Fatalf("%q: %q", message, raw)
		}
		again := readHeader(rest)
		if len(again.ours) != 0 || len(rest) > 0 && !again.headed {
			t.Fatalf("%q: %q has still %d fields of ours, headed %t", message, rest, len(again.ours), again.headed)
		}
		if len(h.ours) == 0 && h.headed && string(rest) != message {
			t.Fatalf("%q was changed: %q", message, rest)
		}
		_, _ = h.options(nil)
	})
}

func TestSite(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "::1": "::"} {
		if got := site(netip.MustParseAddr(addr)); got != netip.MustParseAddr(want) {
			t.Errorf("site(%s) = %v, want %s", addr, got, want)
		}
	}
	if got := site(netip.Addr{}); got.IsValid() {
		t.Errorf("the site of a socket is %v", got)
	}
}
