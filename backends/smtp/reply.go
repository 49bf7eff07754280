package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxReplyLine  = 4096 // octets in one line; RFC 5321, 4.5.3.1.5 asks for 512
	maxReplyLines = 1000 // lines in one reply; an EHLO reply has about 15
	maxReplyText  = 500  // octets of a reply's text kept for people
)

// A reply is a server's answer to one command (RFC 5321, 4.2).
type reply struct {
	code int
	text []byte // the lines' texts without the code, separated by LF
}

var (
	errReplySyntax = errors.New("not an SMTP reply")
	errReplyLong   = errors.New("reply too long")
	errReplyCodes  = errors.New("reply with different codes")
)

// replyReader reads replies. The text of one is overwritten by the next.
type replyReader struct {
	r     *bufio.Reader
	trace func(prefix, line string) // nil if nobody listens
	veil  *strings.Replacer         // takes our secrets out of what the server says; nil: there are none
	last  reply
}

// ready says whether a line is there already.
func (r *replyReader) ready() bool {
	there, _ := r.r.Peek(r.r.Buffered())
	return bytes.IndexByte(there, '\n') >= 0
}

func (r *replyReader) read() (*reply, error) {
	r.last.code, r.last.text = 0, r.last.text[:0]
	for n := 0; n < maxReplyLines; n++ {
		line, err := r.line()
		if err != nil {
			return nil, err
		}
		code, text, more, err := parseLine(line)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			if code != r.last.code {
				return nil, errReplyCodes // RFC 5321, 4.2.1: they MUST be the same
			}
			r.last.text = append(r.last.text, '\n')
		}
		r.last.code, r.last.text = code, append(r.last.text, text...)
		if !more {
			return &r.last, nil
		}
	}
	return nil, errReplyLong
}

// line returns the next line without its end. Some servers end lines with LF alone.
func (r *replyReader) line() ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, errReplyLong
	}
	if err != nil {
		return nil, err
	}
	line = bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})
	if r.veil != nil {
		if said := string(line); r.veil.Replace(said) != said {
			line = []byte(r.veil.Replace(said))
		}
	}
	if r.trace != nil {
		r.trace("S: ", string(line))
	}
	return line, nil
}

// parseLine splits "250-text" or "250 text". A bare "250" is allowed too (RFC 5321, 4.2).
func parseLine(line []byte) (code int, text []byte, more bool, err error) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, nil, false, errReplySyntax
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, nil, false, nil
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, nil, false, errReplySyntax
	}
	return code, line[4:], line[3] == '-', nil
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// positive says whether the command was carried out (2yz).
func (r *reply) positive() bool { return r.code/100 == 2 }

// words returns the enhanced status code (RFC 2034), if there is one, and the text
// in one line, fit to be shown. The code is looked for whether or not the server
// has announced ENHANCEDSTATUSCODES: some give them before EHLO, or without.
func (r *reply) words() (enhanced, text string) {
	var lines []string
	for line := range bytes.Lines(r.text) {
		words := string(bytes.TrimSpace(line))
		first, rest, _ := strings.Cut(words, " ")
		if isEnhanced(first, r.code) {
			enhanced, words = first, rest
		}
		lines = append(lines, words)
	}
	return enhanced, printable(strings.Join(lines, " "))
}

// String returns the reply in one line, as a Result shows it.
func (r *reply) String() string {
	line := strconv.AppendInt(make([]byte, 0, maxReplyText+4), int64(r.code), 10)
	if len(r.text) <= maxReplyText && isPlain(r.text) {
		return string(append(append(line, ' '), r.text...)) // nearly always: nothing to mend
	}
	enhanced, text := r.words()
	return string(line) + " " + strings.TrimSpace(enhanced+" "+text)
}

// isEnhanced says whether s is a status code (RFC 3463, 2) of the class of code.
func isEnhanced(s string, code int) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(code/100) {
		return false
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

func isPlain(text []byte) bool {
	for _, b := range text {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// printable makes a server's text fit for a log: no control characters, valid
// UTF-8, not endless.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || 0x7f <= r && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxReplyText {
		return s
	}
	end := maxReplyText
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}
