// Package transcript writes messages for people to read: text as text (8bit), with LF line ends and
// a line of dashes between them, as Django's console and file backends do. A body may hold
// such a line too, so it is not a format to read back.
package transcript

import (
	"bytes"

	"github.com/mailpouch/mailpouch/mailer"
)

// Separator stands after each message.
const Separator = "\n" + "-------------------------------------------------------------------------------" + "\n"

// Entry returns the message with the separator after it, for one Write. Its error is
// that of m.WriteText.
func Entry(m *mailer.EmailMessage) ([]byte, error) {
	var b bytes.Buffer
	if _, err := m.WriteText(&b); err != nil {
		return nil, err
	}
	// A rendered message has no CR but in its line ends.
	return append(bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n")), Separator...), nil
}
