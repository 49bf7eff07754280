package redact

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// hidden stands for what was taken out.
const hidden = "(hidden)"

const (
	maxCompared = 64e3 // bytes of each part of a message, and of it as it was sent, that are looked at
	shortest    = 8    // bytes of a whole subject, header value or file name that are a repetition
	window      = 16   // bytes of anything else
	stride      = 8    // between windows: window+stride-1 bytes in a row are found for certain
	usual       = 100  // bytes of the reply to an accepted message
	maxKept     = 10   // addresses of the message that may be repeated: who was refused
)

// Result returns the result of a message without what it repeats of that message. A relay may
// answer anything, and a filter likes to quote the subject that it dislikes; its answer goes
// into logs, pages and Redis. Addresses stay: a reply is of little use without, and who must
// not see them is shown them masked.
func Result(r mailer.Result, m *mailer.EmailMessage) mailer.Result {
	if r.Err == nil && r.Reply == "" && len(r.Refused) == 0 {
		return r
	}
	c := newContent(m, r.Err != nil || len(r.Refused) > 0 || len(r.Reply) > usual)
	r.Reply = c.hide(r.Reply)
	r.Refused = c.refused(r.Refused)
	r.Err = c.failure(r.Err)
	return r
}

// content is what there is to repeat of a message.
type content struct {
	values []string // subject, header values, file names
	texts  []string // bodies
	files  [][]byte // attachments, and the message as it was sent
	kept   []string // addresses and Message-ID
}

// newContent looks at a message, and at its encoded form too if whole says so: that is for
// failures and replies of many words, for it costs as much as sending.
func newContent(m *mailer.EmailMessage, whole bool) *content {
	c := &content{values: append(slices.Collect(maps.Values(m.Headers)), m.Subject), texts: []string{m.Body}}
	for _, a := range m.Alternatives {
		c.texts = append(c.texts, a.Content)
	}
	for _, a := range m.Attachments {
		c.values = append(c.values, a.Filename)
		c.files = append(c.files, a.Content)
	}
	c.files = append(c.files, m.Raw)
	if whole {
		var sent head
		_, _ = m.WriteTo(&sent) // what could not be rendered was not sent
		c.files = append(c.files, sent)
	}
	for _, list := range [][]string{{m.MessageID, m.FromEmail}, m.To, m.Cc, m.Bcc} {
		for _, addr := range list[:min(len(list), maxKept)] {
			if i := strings.LastIndexByte(addr, '<'); i >= 0 {
				addr = addr[i+1:]
			}
			c.kept = append(c.kept, strings.TrimRight(addr, "> "))
		}
	}
	return c
}

// head is the beginning of what is written to it.
type head []byte

// Write implements io.Writer. The error ends a writer who has written enough.
func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), max(maxCompared-len(*h), 0))]...)
	if len(*h) >= maxCompared {
		return len(p), io.ErrShortWrite
	}
	return len(p), nil
}

// failure returns err, or one of the same class that says less.
func (c *content) failure(err error) error {
	if err == nil {
		return nil
	}
	if sent, ok := err.(*mailer.SendError); ok { //nolint:errorlint // one that is wrapped has a text around it
		return c.sendError(sent)
	}
	text := err.Error()
	if told := c.hide(text); told != text {
		return &redactedError{told, err}
	}
	return err
}

func (c *content) sendError(e *mailer.SendError) *mailer.SendError {
	told := *e
	told.Text, told.Err, told.Refused = c.hide(e.Text), c.failure(e.Err), c.refused(e.Refused)
	return &told
}

func (c *content) refused(list []*mailer.SendError) []*mailer.SendError {
	if list == nil {
		return nil
	}
	told := make([]*mailer.SendError, len(list))
	for i, e := range list {
		told[i] = c.sendError(e)
	}
	return told
}

// redactedError is an error with another text.
type redactedError struct {
	text  string
	cause error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.cause }

// hide makes one line of text, in which nothing of the content is.
func (c *content) hide(text string) string {
	if text == "" {
		return ""
	}
	return c.hideBetween(Cut(Line(text), MaxReason), c.kept)
}

// hideBetween leaves out what is kept.
func (c *content) hideBetween(text string, kept []string) string {
	for i, k := range kept {
		if before, after, found := strings.Cut(text, k); found && len(k) > 1 {
			return c.hideBetween(before, kept[i+1:]) + k + c.hideBetween(after, kept[i:])
		}
	}
	for _, v := range c.values {
		if v = strings.TrimSpace(v); len(v) >= shortest {
			text = hideRuns(strings.ReplaceAll(text, v, hidden), v)
		}
	}
	for _, t := range c.texts {
		text = hideRuns(text, t)
	}
	for _, f := range c.files {
		text = hideRuns(text, f)
	}
	return strings.ToValidUTF8(text, "")
}

// hideRuns takes out of text the runs of bytes that are in content too.
func hideRuns[T string | []byte](text string, content T) string {
	content = content[:min(len(content), maxCompared)]
	for i := 0; i+window <= len(text); {
		at := index(content, text[i:i+window])
		if at < 0 {
			i += stride
			continue
		}
		start, end, to := i, i+window, at+window
		for ; start > 0 && at > 0 && text[start-1] == content[at-1]; start, at = start-1, at-1 {
		}
		for ; end < len(text) && to < len(content) && text[end] == content[to]; end, to = end+1, to+1 {
		}
		text = text[:start] + hidden + text[end:]
		i = start + len(hidden)
	}
	return text
}

func index[T string | []byte](content T, part string) int {
	switch c := any(content).(type) {
	case []byte:
		return bytes.Index(c, []byte(part))
	case string:
		return strings.Index(c, part)
	}
	return -1
}
