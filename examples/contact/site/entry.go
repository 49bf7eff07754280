package site

import (
	"net/http"
	"net/mail"
	"strings"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer"
)

// The most characters that a field may have. page.html says the same to the browser.
const (
	maxSubject = 200
	maxMessage = 10_000
)

// entry is what a visitor has entered.
type entry struct {
	Subject, Message, From string
}

func readEntry(r *http.Request) (entry, error) {
	if err := r.ParseForm(); err != nil {
		return entry{}, err
	}
	return entry{
		Subject: r.PostForm.Get("subject"),
		Message: strings.ReplaceAll(r.PostForm.Get("message"), "\r\n", "\n"), // browsers send CRLF
		From:    strings.Trim(r.PostForm.Get("from_email"), " "),
	}, nil
}

// faults say what is wrong with an entry, by the name of the form's field.
type faults map[string]string

func (e entry) check() faults {
	f := faults{}
	f.checkText("subject", e.Subject, "Enter a subject.", maxSubject)
	f.checkText("message", e.Message, "Enter a message.", maxMessage)
	switch {
	case e.From == "":
		f["from_email"] = "Enter your email address. We answer to it."
	case !isAddress(e.From):
		f["from_email"] = "Enter one email address, such as ann@example.com."
	}
	return f
}

func (f faults) checkText(field, text, missing string, most int) {
	switch {
	case strings.TrimSpace(text) == "":
		f[field] = missing
	case !utf8.ValidString(text):
		f[field] = "This has characters that cannot be read."
	case utf8.RuneCountInString(text) > most:
		f[field] = "This is too long."
	}
}

// isAddress reports whether s is an address and nothing else. A display name or a comment
// would put a stranger's words into a mail from us.
func isAddress(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && (&mailer.EmailMessage{To: []string{s}}).Validate() == nil
}
