package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxReplyLine  = 4096    // bytes of one line that are read; RFC 5321, 4.5.3.1.5 asks for 512
	maxSkipped    = 1 << 20 // bytes behind them that are skipped: a line without an end is no reply
	maxReplyLines = 1000    // lines in one reply; an EHLO reply has about 15
	maxReplyText  = 500     // bytes of a reply's text kept for people
)

// A Reply is a server's answer to one command (RFC 5321, 4.2).
type Reply struct {
	Code int
	Text []byte // the lines' texts without the code, separated by LF
}

// A SyntaxError is why what the server said is no reply.
type SyntaxError string

func (e SyntaxError) Error() string { return string(e) }

const (
	errSyntax SyntaxError = "not an SMTP reply"
	errLong   SyntaxError = "reply too long"
	errCodes  SyntaxError = "reply with different codes"
)

// A ReplyReader reads replies. The text of one is overwritten by the next.
type ReplyReader struct {
	Trace func(prefix, line string) // is given each line; nil if nobody listens
	Hide  *strings.Replacer         // takes our secrets out of what the server says; nil: there are none

	r    *bufio.Reader
	last Reply
}

// Reset goes on with what r gives. What was read ahead is dropped.
func (r *ReplyReader) Reset(from io.Reader) { r.r = bufio.NewReaderSize(from, maxReplyLine) }

// Buffered is how many bytes have come that were not asked for yet.
func (r *ReplyReader) Buffered() int { return r.r.Buffered() }

// Wait waits until something has come, and leaves it there.
func (r *ReplyReader) Wait() error {
	_, err := r.r.Peek(1)
	return err
}

// Ready reports whether a line is there already.
func (r *ReplyReader) Ready() bool {
	there, _ := r.r.Peek(r.r.Buffered())
	return bytes.IndexByte(there, '\n') >= 0
}

// Read waits for the next reply.
func (r *ReplyReader) Read() (*Reply, error) {
	r.last.Code, r.last.Text = 0, r.last.Text[:0]
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
			if code != r.last.Code {
				return nil, errCodes // RFC 5321, 4.2.1: they MUST be the same
			}
			r.last.Text = append(r.last.Text, '\n')
		}
		r.last.Code, r.last.Text = code, append(r.last.Text, text...)
		if !more {
			return &r.last, nil
		}
	}
	return nil, errLong
}

// line returns the next line without its end. Some servers end lines with LF alone. Of one that is too long the rest
// is skipped: a server that quotes a whole policy has accepted or refused the message all the same.
func (r *ReplyReader) line() ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = append(bytes.Clone(line), '\n'), r.skipLine()
	}
	if err != nil {
		return nil, err
	}
	line = bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})
	if r.Hide != nil {
		if said := string(line); r.Hide.Replace(said) != said {
			line = []byte(r.Hide.Replace(said))
		}
	}
	if r.Trace != nil {
		r.Trace("S: ", string(line))
	}
	return line, nil
}

// skipLine skips the rest of a line.
func (r *ReplyReader) skipLine() error {
	for skipped := 0; skipped < maxSkipped; {
		rest, err := r.r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		skipped += len(rest)
	}
	return errLong
}

// parseLine splits "250-text" or "250 text". A bare "250" is allowed too (RFC 5321, 4.2).
func parseLine(line []byte) (code int, text []byte, more bool, err error) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, nil, false, errSyntax
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, nil, false, nil
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, nil, false, errSyntax
	}
	return code, line[4:], line[3] == '-', nil
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// Positive reports whether the command was carried out (2yz).
func (r *Reply) Positive() bool { return r.Code/100 == 2 }

// Words returns the enhanced status code (RFC 2034), if there is one, and the text
// in one line, fit to be shown. The code is looked for whether or not the server
// has announced ENHANCEDSTATUSCODES: some give them before EHLO, or without.
func (r *Reply) Words() (enhanced, text string) {
	var lines []string
	for line := range bytes.Lines(r.Text) {
		words := string(bytes.TrimSpace(line))
		first, rest, _ := strings.Cut(words, " ")
		if isEnhanced(first, r.Code) {
			enhanced, words = first, rest
		}
		lines = append(lines, words)
	}
	return enhanced, Printable(strings.Join(lines, " "))
}

// String returns the reply in one line, as a Result shows it.
func (r *Reply) String() string {
	line := strconv.AppendInt(make([]byte, 0, maxReplyText+4), int64(r.Code), 10)
	if len(r.Text) <= maxReplyText && isPlain(r.Text) {
		return string(append(append(line, ' '), r.Text...)) // nearly always: nothing to mend
	}
	enhanced, text := r.Words()
	return string(line) + " " + strings.TrimSpace(enhanced+" "+text)
}

// isEnhanced reports whether s is a status code (RFC 3463, 2) that can stand behind code: of its class, or, with
// a refusal, of that of the other refusals, for some servers do not mean a 550 so.
func isEnhanced(s string, code int) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(code/100) && (code < 400 || parts[0] != "4" && parts[0] != "5") {
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

// Printable makes a server's text fit for a log: no control characters, valid
// UTF-8, not endless.
func Printable(s string) string {
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
