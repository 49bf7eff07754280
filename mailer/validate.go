package mailer

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/mailer/internal/charset"
)

const reasonUTF8 = "is not valid UTF-8"

// checkText refuses a text that may not stand in a header (charset.IsClean), because it could end
// or break a line there.
func checkText(field, s string, tab bool) error {
	if charset.IsClean(s, tab) {
		return nil
	}
	for i := range len(s) {
		if c := s[i]; (c < ' ' || c == 0x7f) && (c != '\t' || !tab) {
			return &BadHeaderError{Field: field, Reason: "has the control character " + controlName(c)}
		}
	}
	return &InvalidMessageError{Field: field, Reason: reasonUTF8}
}

func controlName(c byte) string {
	switch c {
	case '\r':
		return "CR"
	case '\n':
		return "LF"
	case 0:
		return "NUL"
	}
	return fmt.Sprintf("%#02x", c)
}

// fieldError is the error of a field that is wrong for this reason, or, if reason is "", that has a
// character which it may not have. A control character is reported rather than the reason; a tab
// only if there is no reason.
func fieldError(field, value, reason string) error {
	if err := checkText(field, value, reason != ""); err != nil {
		return err
	}
	return &InvalidMessageError{Field: field, Reason: reason}
}

// checkHeaderName accepts an RFC 5322 field name (2.2): printable ASCII without a colon.
func checkHeaderName(name string) error {
	if name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == ':' || r > '~' }) {
		return nil
	}
	field := headerField(strconv.QuoteToASCII(name))
	if err := checkText(field, name, charset.WithoutTab); err != nil {
		return err
	}
	return &BadHeaderError{Field: field, Reason: "is no name for a header field"}
}

func headerField(name string) string { return "headers[" + name + "]" }

// checkBody accepts UTF-8: for anything else no charset could be named.
func checkBody(field, s string) error {
	if !utf8.ValidString(s) {
		return &InvalidMessageError{Field: field, Reason: reasonUTF8}
	}
	return nil
}

// checkVisible refuses what is not printable ASCII without white space and
// without angle brackets.
func checkVisible(field, s string) error {
	if err := checkText(field, s, charset.WithoutTab); err != nil {
		return err
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' }) {
		return &InvalidMessageError{Field: field, Reason: "has white space, an angle bracket or what is not ASCII in it"}
	}
	return nil
}

// checkContentID accepts an ID with both angle brackets, or with neither.
func checkContentID(field, id string) error {
	inner, opened := strings.CutPrefix(id, "<")
	inner, closed := strings.CutSuffix(inner, ">")
	if opened != closed || opened && inner == "" {
		return fieldError(field, id, "is not an id such as <left@right>")
	}
	return checkVisible(field, inner)
}

// checkDate accepts what a Date field can hold (RFC 5322, 3.3).
func checkDate(t time.Time) error {
	if reason := dateReason(t); reason != "" {
		return &InvalidMessageError{Field: "date", Reason: reason}
	}
	return nil
}

// dateReason is why a Date field cannot hold t, or "".
func dateReason(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	if y := t.Year(); y < 1900 || y > 9999 {
		return "is not between the years 1900 and 9999"
	}
	if _, offset := t.Zone(); offset <= -24*3600 || offset >= 24*3600 {
		return "has a time zone of a day or more"
	}
	return ""
}

// indexed names a part of a list's entry, as in "attachments[2].filename".
func indexed(list string, i int, part string) string {
	return list + "[" + strconv.Itoa(i) + "]." + part
}
