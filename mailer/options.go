package mailer

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/internal/name"
)

// Options say how messages are handed over: by which mailer they are to go, and how they wait in a queue. Mailer.With
// takes them, and so does a queue. A backend that delivers at once has no use for any of them but Using; what is wrong
// with one is an error there too. The zero value leaves all to the configuration.
type Options struct {
	Using      string        // the named mailer that is to deliver: the configured one if empty, the default one if "default"
	Queue      string        // the configured one if empty, which is "default" if nothing else is
	ProcessAt  time.Time     // not before this time; Date is set to it too
	ProcessIn  time.Duration // the same, counted from the hand-over; excludes ProcessAt
	MaxRetry   *int          // tries after the first one: 25 if nil
	Deadline   time.Time     // not sent after this time: it becomes a dead letter
	AtMostOnce bool          // rather not delivered than delivered twice: what is in doubt becomes a dead letter
	Retention  time.Duration // how long the finished task, with the relay's reply, stays visible

	// Tags are words of yours by which the message is found again: among dead letters, in the
	// log, in what an Observer gets. They are in no header of the mail. At most 8, of up to 64 bytes of
	// printable characters each; others are a TagError.
	Tags []string

	// Mailing is the name of the mailing that the message belongs to, such as newsletter-2026-11:
	// what is done to a mailing is done to all its messages. A name like a queue's, or empty.
	Mailing string

	// IdempotencyKey names the hand-over of one message: the queue takes it once, however
	// often it is handed over while the key is remembered, and returns the first task's
	// ID each time. That ends the window after the message was sent, or when it is
	// cancelled: handed over again it gets a task of its own, with another ID. Another message with the same key is an
	// IdempotencyError, one whose task is a dead letter a DeadLetterError. Each queue of each mailer has its own keys. The
	// task's ID shows the beginning of the key. At most 255 bytes, no control characters.
	IdempotencyKey string

	// Unique keeps the same content from being queued again while it waits, and for so
	// long after it was sent: the first task's ID is returned. Message-ID, Date and the
	// time of sending are not content. At least a second; it excludes IdempotencyKey.
	Unique time.Duration
}

// DefaultMaxRetry is how many tries a message gets after its first one.
const DefaultMaxRetry = 25

// maxRetry is the most that a message can have: asynq stores the number in 32 bits, and one is added.
const maxRetry = math.MaxInt32 - 1

// The most tags that a message can have, and the longest tag and key in bytes.
const (
	maxTags = 8
	maxTag  = 64
	maxKey  = 255
)

// NameError reports a name that no queue, mailer or mailing can have: for programs, for workers and in
// the settings the same names are allowed, of A to Z, a to z, 0 to 9, - and _.
type NameError struct {
	What string // "queue", "mailer" or "mailing"
	Name string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("mailer: %q cannot be the name of a %s: use %s", e.Name, e.What, name.Rule)
}

// CheckName returns a NameError for a name that is not allowed. what is as in NameError.
func CheckName(what, s string) error {
	if name.Is(s) {
		return nil
	}
	return &NameError{What: what, Name: s}
}

// TagError reports a tag that no message can have.
type TagError struct {
	Tag    string
	Reason string // such as "has 80 bytes, at most 64 are allowed"
}

func (e *TagError) Error() string { return fmt.Sprintf("mailer: tag %.80q: %s", e.Tag, e.Reason) }

// Validate reports which option is impossible. A name that is not allowed is a NameError, a tag a TagError.
func (o Options) Validate() error {
	for _, n := range [][2]string{{"queue", o.Queue}, {"mailer", o.Using}, {"mailing", o.Mailing}} {
		if n[1] == "" {
			continue
		}
		if err := CheckName(n[0], n[1]); err != nil {
			return err
		}
	}
	switch {
	case !o.ProcessAt.IsZero() && o.ProcessIn != 0:
		return errors.New("mailer: process_at and process_in exclude each other")
	case o.ProcessIn < 0:
		return fmt.Errorf("mailer: process_in %v: cannot be negative", o.ProcessIn)
	case o.MaxRetry != nil && *o.MaxRetry < 0:
		return fmt.Errorf("mailer: max_retry %d: cannot be negative", *o.MaxRetry)
	case o.MaxRetry != nil && *o.MaxRetry > maxRetry:
		return fmt.Errorf("mailer: max_retry %d: at most %d are allowed", *o.MaxRetry, maxRetry)
	case o.Retention < 0:
		return fmt.Errorf("mailer: retention %v: cannot be negative", o.Retention)
	case !o.Deadline.IsZero() && o.Due(time.Now()).After(o.Deadline):
		return fmt.Errorf("mailer: deadline %v is before the time of sending", o.Deadline.Format(time.RFC3339))
	}
	return cmp.Or(o.checkTags(), o.checkKey())
}

// checkTags returns a TagError for a tag that is not allowed. What cannot be seen would not be found again.
func (o Options) checkTags() error {
	for i, tag := range o.Tags {
		reason := ""
		switch {
		case i == maxTags:
			reason = fmt.Sprintf("is one of %d, at most %d are allowed", len(o.Tags), maxTags)
		case len(tag) > maxTag:
			reason = fmt.Sprintf("has %d bytes, at most %d are allowed", len(tag), maxTag)
		case !utf8.ValidString(tag):
			reason = "is not valid UTF-8"
		case strings.ContainsFunc(tag, func(r rune) bool { return !unicode.IsPrint(r) }):
			reason = "has a character that is not printable"
		case strings.TrimSpace(tag) != tag || tag == "":
			reason = "is empty, or begins or ends with a blank"
		}
		if reason != "" {
			return &TagError{tag, reason}
		}
	}
	return nil
}

func (o Options) checkKey() error {
	key := o.IdempotencyKey
	switch {
	case key != "" && o.Unique != 0:
		return errors.New("mailer: idempotency_key and unique exclude each other")
	case len(key) > maxKey:
		return fmt.Errorf("mailer: idempotency_key: %d octets, at most %d are allowed", len(key), maxKey)
	case !utf8.ValidString(key):
		return errors.New("mailer: idempotency_key: not valid UTF-8")
	case strings.ContainsFunc(key, unicode.IsControl):
		return errors.New("mailer: idempotency_key: has a control character")
	case key != "" && strings.TrimSpace(key) == "":
		return errors.New("mailer: idempotency_key: is blank")
	case o.Unique != 0 && o.Unique < time.Second:
		return fmt.Errorf("mailer: unique %v: a second is the shortest", o.Unique)
	}
	return nil
}

// IsZero reports whether nothing is set.
func (o Options) IsZero() bool { return reflect.ValueOf(o).IsZero() }

// Or returns o with what it leaves open as others have it. Of what excludes each other o's alone counts. AtMostOnce is
// set if either has it.
func (o Options) Or(others Options) Options {
	o.Using, o.Queue, o.Mailing = cmp.Or(o.Using, others.Using), cmp.Or(o.Queue, others.Queue), cmp.Or(o.Mailing, others.Mailing)
	if o.ProcessAt.IsZero() && o.ProcessIn == 0 {
		o.ProcessAt, o.ProcessIn = others.ProcessAt, others.ProcessIn
	}
	if o.IdempotencyKey == "" && o.Unique == 0 {
		o.IdempotencyKey, o.Unique = others.IdempotencyKey, others.Unique
	}
	if o.Deadline.IsZero() {
		o.Deadline = others.Deadline
	}
	if o.Tags == nil {
		o.Tags = others.Tags
	}
	o.MaxRetry, o.Retention = cmp.Or(o.MaxRetry, others.MaxRetry), cmp.Or(o.Retention, others.Retention)
	o.AtMostOnce = o.AtMostOnce || others.AtMostOnce
	return o
}

// Due is when a message that is handed over now is to be sent.
func (o Options) Due(now time.Time) time.Time {
	if o.ProcessAt.After(now) {
		return o.ProcessAt
	}
	return now.Add(o.ProcessIn)
}

// Complete is m.WithDefaults for a message that is handed over now with these options: one that is to wait is dated to
// the time of sending.
func (o Options) Complete(m *EmailMessage, d Defaults, now time.Time) *EmailMessage {
	if scheduled := !o.ProcessAt.IsZero() || o.ProcessIn != 0; scheduled && m.Date.IsZero() {
		c := *m
		c.Date = wholeSeconds(o.Due(now), d.LocalTime)
		m = &c
	}
	return m.WithDefaults(d)
}
