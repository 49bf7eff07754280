package packed

import (
	"encoding/binary"
	"strings"
	"testing"
)

// What was appended is read in its order, and what was cut off at any place is noticed.
func TestReader(t *testing.T) {
	data := append([]byte(nil), 7)
	data = binary.AppendUvarint(data, 1<<40)
	data = AppendText(data, "ü", 10)
	data = AppendText(data, "", 10)
	data = AppendText(data, strings.Repeat("x", 300), 200)
	for n := range len(data) + 1 {
		r := Reader{Left: string(data[:n])}
		b, number, a, empty, long := r.Byte(), r.Number(), r.Text(), r.Text(), r.Text()
		whole := n == len(data)
		if r.Failed == whole || whole && (b != 7 || number != 1<<40 || a != "ü" || empty != "" || long != strings.Repeat("x", 200) || r.Left != "") {
			t.Errorf("%d of %d bytes: %d %d %q %q %q, failed %v, left %q", n, len(data), b, number, a, empty, long, r.Failed, r.Left)
		}
	}
	if r := (Reader{Left: "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}); r.Text() != "" || !r.Failed {
		t.Error("a length beyond all numbers is read")
	}
}

// A text is cut between two characters.
func TestAppendText(t *testing.T) {
	for most, want := range []string{"", "a", "a", "aü", "aü", "aü", "aü€", "aü€"} {
		if r := (Reader{Left: string(AppendText(nil, "aü€", most))}); r.Text() != want || r.Failed {
			t.Errorf("at most %d bytes: want %q", most, want)
		}
	}
	if r := (Reader{Left: string(AppendText(nil, "\x80\x80\x80", 2))}); r.Text() != "" || r.Failed {
		t.Error("what is no text")
	}
}
