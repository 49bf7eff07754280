package letters

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Filter says which messages that failed are meant: those for which all of it holds. The zero value means all.
type Filter struct {
	Queue  string // as producers call it, of every mailer, or as asynq has it
	Mailer string // the name of a mailer; "default" is the one without

	Reason string // the reason contains it, in whatever case
	Group  string // the reason is of this group: see ReasonGroup

	// To is an address, in whatever case; "@example.com" is all of a domain, and a text without an @ is a part of an
	// address.
	To      string
	Subject string // the subject contains it, in whatever case
	Tag     string
	Mailing string

	Since, Until time.Time // of the last try; Until is not of it

	// Masked compares reasons as they are shown where addresses are masked: nobody can find out an address by asking.
	Masked bool
}

// FilterError is the error of a filter that means nothing.
type FilterError struct {
	Name   string // of the field, as Set has it
	Reason string // what is wrong, and what is expected
}

func (e *FilterError) Error() string { return e.Name + ": " + e.Reason }

// Set sets a field to what a person has written: "queue", "mailer", "reason", "group", "to", "subject", "tag", "mailing",
// and "since" and "until", which are a time, a day, or how long ago in d, h, m or s. A value that says nothing sets
// nothing. The error is a FilterError.
func (f *Filter) Set(name, value string, now time.Time) error {
	if len(value) > maxFilter || !utf8.ValidString(value) {
		return &FilterError{name, fmt.Sprintf("a text of at most %d bytes of UTF-8 is expected", maxFilter)}
	}
	if name != "group" {
		value = strings.TrimSpace(value)
	}
	texts := map[string]*string{
		"queue": &f.Queue, "mailer": &f.Mailer, "reason": &f.Reason, "group": &f.Group, "to": &f.To, "subject": &f.Subject, "tag": &f.Tag, "mailing": &f.Mailing,
	}
	times := map[string]*time.Time{"since": &f.Since, "until": &f.Until}
	switch {
	case texts[name] != nil:
		*texts[name] = value
		return nil
	case times[name] == nil:
		return &FilterError{name, "there is no such filter"}
	case value == "":
		return nil
	}
	at, ok := parseTime(value, now)
	if !ok {
		return &FilterError{name, fmt.Sprintf("%q is no time: 2026-11-26, 2026-11-26T15:04:05Z, or how long ago, such as 90m, 36h or 7d, is expected", redact.Cut(redact.Line(value), 40))}
	}
	*times[name] = at
	return nil
}

// maxFilter is how long a text may be that is looked for.
const maxFilter = 1000 // bytes

// parseTime reads a time, a day, or how long ago it is.
func parseTime(s string, now time.Time) (at time.Time, ok bool) {
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, true
		}
	}
	if days, found := strings.CutSuffix(s, "d"); found {
		n, err := strconv.Atoi(days)
		return now.AddDate(0, 0, -n), err == nil && n >= 0 && n < 100_000
	}
	ago, err := time.ParseDuration(s)
	return now.Add(-ago), err == nil && ago >= 0
}

// reads reports whether the filter asks for what is in the message.
func (f Filter) reads() bool { return f.To != "" || f.Subject != "" || f.Tag != "" || f.Mailing != "" }

// HasQueue reports whether letters of a queue of asynq's, by its name there, may be meant.
func (f Filter) HasQueue(queue string) bool {
	name := wire.ParseQueueName(queue)
	return (f.Queue == "" || f.Queue == queue || f.Queue == name.Queue) && (f.Mailer == "" || f.Mailer == cmp.Or(name.Mailer, handover.DefaultMailer))
}

// withoutMessage is the filter without what is in the message.
func (f Filter) withoutMessage() Filter {
	f.To, f.Subject, f.Tag, f.Mailing = "", "", "", ""
	return f
}

// group is the ReasonGroup of a letter as the filter compares it.
func (f Filter) group(l *DeadLetter) string { return ReasonGroup(f.reason(l)) }

func (f Filter) reason(l *DeadLetter) string {
	if f.Masked {
		return redact.Reason(l.Reason, false)
	}
	return l.Reason
}

// Matches reports whether a letter is meant.
func (f Filter) Matches(l *DeadLetter) bool { return f.HasQueue(l.Queue) && f.matches(l) }

// matches is Matches for a letter in a queue that is meant, whose message is decoded if the filter asks for that.
func (f Filter) matches(l *DeadLetter) bool {
	switch {
	case f.Reason != "" && !contains(f.reason(l), f.Reason), f.Group != "" && f.group(l) != f.Group,
		!f.Since.IsZero() && l.At.Before(f.Since), !f.Until.IsZero() && !l.At.Before(f.Until),
		f.Subject != "" && !contains(l.Subject(), f.Subject),
		f.Tag != "" && !slices.Contains(l.Tags, f.Tag), f.Mailing != "" && l.Mailing != f.Mailing:
		return false
	}
	return f.To == "" || slices.ContainsFunc(l.Recipients, f.isTo)
}

// isTo reports whether an address is one that is meant.
func (f Filter) isTo(address string) bool {
	switch at := strings.LastIndexByte(f.To, '@'); {
	case at < 0:
		return contains(address, f.To)
	case at == 0:
		own := strings.LastIndexByte(address, '@')
		return own >= 0 && strings.EqualFold(address[own:], f.To)
	}
	return strings.EqualFold(address, f.To)
}

// contains reports whether s contains part, in whatever case.
func contains(s, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(s), strings.ToLower(part))
}

var (
	// ending is how a message came to its end: what the policy puts behind the reason.
	ending = regexp.MustCompile(`; (gave up after \d+ tries|not sent (within|before) .*)$`)

	// concerned is whom a reply was about, as mailer.SendError has it.
	concerned = regexp.MustCompile(`\((RCPT|end of data) <[^)]*\)`)

	// varying is a word that differs from message to message: an address, a link, or one with digits, as the IDs, times
	// and addresses of servers are.
	varying = regexp.MustCompile(`<[^<>\s]*>|\S*@\S*|\w+://\S+|[\w.:+/%=-]*\d(?:[\w.:+/%=-]*[\w/%=])?`)

	// status is what a reply begins with: its code and the enhanced one.
	status = regexp.MustCompile(`^\d{3}( \d\.\d{1,3}\.\d{1,3})?\b`)
)

// maxGroup is how many characters of a reason are compared.
const maxGroup = 120

// ReasonGroup is what reasons have in common that differ only in addresses, numbers and how often was tried: those of one
// cause. It is for people to read, too: "550 5.1.1 …: Recipient address rejected: User unknown (RCPT)".
func ReasonGroup(reason string) string {
	reason = concerned.ReplaceAllString(ending.ReplaceAllString(redact.Line(reason), ""), "($1)")
	code := status.FindString(reason)
	return redact.Cut(code+varying.ReplaceAllString(reason[len(code):], "…"), maxGroup)
}
