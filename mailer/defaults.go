package mailer

import (
	"cmp"
	"crypto/rand"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/headerfield"
)

// Defaults fills in what an author may leave empty. Its zero value is usable.
type Defaults struct {
	FromEmail string // "webmaster@localhost" if empty, as in Django
	Charset   string // "utf-8" if empty
	Hostname  string // right side of generated Message-IDs: see Domain for what it is if empty
	LocalTime bool   // Date in the local time zone instead of UTC
}

// WithDefaults returns the message with FromEmail, Charset, MessageID and Date filled in where
// they are empty, and with ListUnsubscribe and VERP as the Headers that they stand for: a changed copy, or m itself if nothing is missing. A mailer or a queue calls it
// once, before the first try, so that every try sends the same bytes.
func (m *EmailMessage) WithDefaults(d Defaults) *EmailMessage {
	c := *m
	c.FromEmail = cmp.Or(c.FromEmail, d.FromEmail, "webmaster@localhost")
	c.Charset = cmp.Or(c.Charset, d.Charset, "utf-8")
	c.MessageID = cmp.Or(c.rawMessageID(), completeID(c.MessageID), completeID(c.header("Message-ID")))
	if c.MessageID == "" {
		c.MessageID = newMessageID(d.Domain())
	}
	if c.Date.IsZero() && c.header("Date") == "" && c.RawHeader("Date") == "" {
		c.Date = wholeSeconds(time.Now(), d.LocalTime)
	}
	settled := c.settle()
	if !settled && c.FromEmail == m.FromEmail && c.Charset == m.Charset && c.MessageID == m.MessageID && c.Date.Equal(m.Date) {
		return m
	}
	return &c
}

// settle writes ListUnsubscribe and VERP into Headers, and reports whether there was one of them. So a queue has only what
// workers of every version read. What is wrong stays where it is, for Validate to refuse.
func (m *EmailMessage) settle() bool {
	if m.ListUnsubscribe == (ListUnsubscribe{}) && m.VERP == "" {
		return false
	}
	headers := make(map[string]string, len(m.Headers)+4)
	maps.Copy(headers, m.Headers)
	if fields, err := m.listHeaders(); err == nil && len(m.Raw) == 0 {
		for _, f := range fields {
			headers[f.name] = f.value
		}
		m.ListUnsubscribe = ListUnsubscribe{}
	}
	if m.VERP != "" {
		if a, err := m.addresses(); err == nil {
			headers["Return-Path"] = "<" + a.sender + ">"
			m.VERP = ""
		}
	}
	m.Headers = headers
	return true
}

// rawMessageID returns the Message-ID in Raw, which is the one that is sent, or "" if it could not
// be a MessageID.
func (m *EmailMessage) rawMessageID() string {
	id := m.RawHeader("Message-Id")
	if checkContentID("", id) != nil {
		return ""
	}
	return id
}

// completeID returns a message ID with the angle brackets that it may lack, and what is none
// unchanged, for Validate to refuse.
func completeID(id string) string {
	if whole, reason := headerfield.ID(id); reason == "" {
		return whole
	}
	return id
}

// wholeSeconds is a time as a Date field has it, which has no smaller unit.
func wholeSeconds(t time.Time, local bool) time.Time {
	if t = t.Truncate(time.Second); local {
		return t.Local()
	}
	return t.UTC()
}

// newMessageID makes a Message-ID (RFC 5322, 3.6.4). It never fails.
func newMessageID(domain string) string { return "<" + rand.Text() + "@" + domain + ">" }

// Domain returns what stands behind the @ where this machine names itself: in a Message-ID, and, for
// a program that takes mail as sendmail does, in an address without a domain. It is Hostname, or the
// short name of the machine if that is empty, or localhost if that is no domain.
func (d Defaults) Domain() string {
	host := d.Hostname
	if host == "" {
		host, _ = os.Hostname()
	}
	domain, reason := address.ASCIIDomain(host)
	if reason != "" {
		return "localhost"
	}
	return domain
}

// header finds a field in Headers by its name, in any letter case.
func (m *EmailMessage) header(wanted string) string {
	for name, value := range m.Headers {
		if strings.EqualFold(name, wanted) {
			return strings.Trim(value, " \t")
		}
	}
	return ""
}
