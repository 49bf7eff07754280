package mimewriter

import (
	"bytes"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

// Sizes that are about right, so that a buffer need not grow: enough for most messages.

// EstimateHeader returns about how many bytes a text makes in a header.
func EstimateHeader(s string) int {
	if charset.IsASCII(s) {
		return len(s)
	}
	return 2 * len(s)
}

// EstimateText returns about how many bytes a text of n bytes makes in a body. Short texts are
// most often plain.
func EstimateText(n int) int {
	if n < flushAt {
		return n + n/8
	}
	return EstimateFile(n)
}

// EstimateFile returns about how many bytes a file of n bytes makes as an attachment.
func EstimateFile(n int) int { return base64Len(n + n/lineEnds) }

// EstimateRaw returns about how many bytes a raw message makes: as many as it has, and what the
// line ends lack that are a CR or an LF alone, and more if its body has to be encoded anew.
func EstimateRaw(raw []byte) int {
	const some = 64 << 10 // of few lines nobody cares how they end
	n := len(raw)
	if n < some {
		return n + n/lineEnds
	}
	whole := bytes.Count(raw, []byte("\r\n"))
	bare := bytes.Count(raw, []byte("\n")) + bytes.Count(raw, []byte("\r")) - 2*whole
	if HasLongLine(raw) {
		n += 2 * countEncoded(raw)
		n += n / lineEnds
		n += n / maxQuoted * len("=\r\n")
	}
	return n + bare
}

// EstimateRawHeader returns about how many bytes the header of a raw message makes, with the
// fields encoded that are not ASCII.
func EstimateRawHeader(header []byte) int { return EstimateRaw(header) + 2*countEncoded(header) }

// countEncoded counts what does not stand for itself in quoted-printable.
func countEncoded(b []byte) int {
	n := 0
	for _, c := range b {
		if c > '~' || c == '=' {
			n++
		}
	}
	return n
}

// lineEnds is how many bytes of a text there are to one that is added when its lines get their
// CRLF, or fewer.
const lineEnds = 32
