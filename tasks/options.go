package tasks

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Options say how a message waits in the queue.
type Options struct {
	Using      string        // the named mailer that is to deliver: the default one if empty
	Queue      string        // "default" if empty
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
	// cancelled: handed over again it gets a task of its own, with another ID. Another message with the same key is an IdempotencyError, one whose task
	// is a dead letter a DeadLetterError. Each queue of each mailer has its own keys. The
	// task's ID shows the beginning of the key. At most 255 bytes, no control characters.
	IdempotencyKey string

	// Unique keeps the same content from being queued again while it waits, and for so
	// long after it was sent: the first task's ID is returned. Message-ID, Date and the
	// time of sending are not content. At least a second; it excludes IdempotencyKey.
	Unique time.Duration
}

// DefaultMaxRetry is how many tries a message gets after its first one.
const DefaultMaxRetry = 25

// NameError reports a name that no queue, mailer or mailing can have: for programs, for workers and in
// the settings the same names are allowed, of A to Z, a to z, 0 to 9, - and _.
type NameError struct {
	What string // "queue", "mailer" or "mailing"
	Name string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("tasks: %q cannot be the name of a %s: use %s", e.Name, e.What, wire.NameRule)
}

// checkName returns a NameError for a name that is not allowed.
func checkName(what, name string) error {
	if wire.IsName(name) {
		return nil
	}
	return &NameError{What: what, Name: name}
}

// Validate reports which option is impossible. A name that is not allowed is a NameError.
func (o Options) Validate() error {
	if err := checkName("queue", cmp.Or(o.Queue, "default")); err != nil {
		return err
	}
	if err := checkName("mailer", cmp.Or(o.Using, "default")); err != nil {
		return err
	}
	if o.Mailing != "" {
		if err := checkName("mailing", o.Mailing); err != nil {
			return err
		}
	}
	if err := checkTags(o.Tags); err != nil {
		return err
	}
	switch {
	case !o.ProcessAt.IsZero() && o.ProcessIn != 0:
		return errors.New("tasks: process_at and process_in exclude each other")
	case o.ProcessIn < 0:
		return fmt.Errorf("tasks: process_in %v: cannot be negative", o.ProcessIn)
	case o.MaxRetry != nil && *o.MaxRetry < 0:
		return fmt.Errorf("tasks: max_retry %d: cannot be negative", *o.MaxRetry)
	case o.Retention < 0:
		return fmt.Errorf("tasks: retention %v: cannot be negative", o.Retention)
	case !o.Deadline.IsZero() && o.due(time.Now()).After(o.Deadline):
		return fmt.Errorf("tasks: deadline %v is before the time of sending", o.Deadline.Format(time.RFC3339))
	}
	return o.validateKey()
}

// The most tags that a message can have, and the longest one in bytes.
const (
	maxTags = 8
	maxTag  = 64
)

// TagError reports a tag that no message can have.
type TagError struct {
	Tag    string
	Reason string // such as "has 80 bytes, at most 64 are allowed"
}

func (e *TagError) Error() string { return fmt.Sprintf("tasks: tag %.80q: %s", e.Tag, e.Reason) }

// checkTags returns a TagError for a tag that is not allowed. What cannot be seen would not be found again.
func checkTags(tags []string) error {
	for i, tag := range tags {
		reason := ""
		switch {
		case i == maxTags:
			reason = fmt.Sprintf("is one of %d, at most %d are allowed", len(tags), maxTags)
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

// due is when the message is to be sent.
func (o Options) due(now time.Time) time.Time {
	if o.ProcessAt.After(now) {
		return o.ProcessAt
	}
	return now.Add(o.ProcessIn)
}

// maxKey is the longest idempotency key, in bytes.
const maxKey = 255

func (o Options) validateKey() error {
	key := o.IdempotencyKey
	switch {
	case key != "" && o.Unique != 0:
		return errors.New("tasks: idempotency_key and unique exclude each other")
	case len(key) > maxKey:
		return fmt.Errorf("tasks: idempotency_key: %d octets, at most %d are allowed", len(key), maxKey)
	case !utf8.ValidString(key):
		return errors.New("tasks: idempotency_key: not valid UTF-8")
	case strings.ContainsFunc(key, unicode.IsControl):
		return errors.New("tasks: idempotency_key: has a control character")
	case key != "" && strings.TrimSpace(key) == "":
		return errors.New("tasks: idempotency_key: is blank")
	case o.Unique != 0 && o.Unique < time.Second:
		return fmt.Errorf("tasks: unique %v: a second is the shortest", o.Unique)
	}
	return nil
}

// handedOnce reports whether the message must not be handed over twice.
func (o Options) handedOnce() bool { return o.IdempotencyKey != "" || o.Unique != 0 }

// digest is what makes two hand-overs the same: all that the recipients get, and
// at_most_once. When the message is sent does not count. Message-ID and Date do not
// either, for most often they are made anew at each try of a hand-over.
func digest(m *mailer.EmailMessage, o Options) (string, error) {
	c := *m
	c.MessageID, c.Date = "", time.Time{}
	data, err := c.MarshalJSON()
	if err != nil {
		return "", err
	}
	return shortHash(fmt.Sprintf("at_most_once=%v\n", o.AtMostOnce), string(data)), nil
}

// shortHash is a SHA-256 of the parts, cut to 120 bits.
func shortHash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		_, _ = h.Write([]byte(p))
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:15]))
}

// The beginnings of IDs that derive from a key, or from a digest.
const (
	keyPrefix    = "key-"
	uniquePrefix = "unique-"
)

// isOnceID reports whether a task's ID is that of a message that was handed over once, or derives
// from it. Others are random, in capitals.
func isOnceID(id string) bool {
	return strings.HasPrefix(id, keyPrefix) || strings.HasPrefix(id, uniquePrefix)
}

// onceID is the ID of the task for a key, or for a digest. Each mailer has keys of its
// own, as it has queues of its own.
func (o Options) onceID(digest string) string {
	if o.IdempotencyKey == "" {
		return uniquePrefix + shortHash(o.Using, digest)
	}
	return keyPrefix + readable(o.IdempotencyKey) + "-" + shortHash(o.Using, o.IdempotencyKey)
}

// readable is as much of a key as a person needs to find its task.
func readable(key string) string {
	var b strings.Builder
	for _, r := range key {
		if b.Len() == 32 {
			break
		}
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	return b.String()
}

// kept is how long a task stays in Redis after its end. An idempotency key is remembered for window.
func (o Options) kept(window time.Duration) time.Duration {
	kept := max(o.Retention, o.Unique)
	if o.IdempotencyKey != "" {
		kept = max(kept, window)
	}
	return kept
}
