// Package handover makes of a message and its options what waits in a queue: the payload, and the ID of a task that is to
// be there once. The queue in Redis and the one in memory share it.
package handover

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// DefaultMailer is what Options.Using calls the mailer without a name.
const DefaultMailer = "default"

// StepQueue is where a hand-over fails that is not the message's fault.
const StepQueue mailer.Step = "queue"

// Refused is the error of a message that cannot be handed over, however often it is tried.
func Refused(err error) error {
	return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
}

// Prepare returns the payload of a message that is handed over now. It is nil if there is nobody to send it to. fits, if
// not nil, is asked before all of the message is looked at: what is too big is not worth that work.
func Prepare(m *mailer.EmailMessage, o mailer.Options, d mailer.Defaults, now time.Time, fits func(*mailer.EmailMessage) error) (*wire.Payload, error) {
	m = o.Complete(m, d, now)
	if fits != nil {
		if err := fits(m); err != nil {
			return nil, err
		}
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	only := m.OnlyTo()
	if only != nil {
		envelope, err := m.Envelope()
		if err != nil {
			return nil, err
		}
		only = envelope.To
	}
	if len(only) == 0 && (only != nil || len(m.Recipients()) == 0) {
		return nil, nil
	}
	p := &wire.Payload{
		Meta: wire.Meta{
			Using: o.Using, DueAt: wire.Due(o.Due(now)), Recipients: only,
			AtMostOnce: o.AtMostOnce, KeepResult: o.Retention > 0,
			Tags: slices.Clone(o.Tags), Mailing: o.Mailing,
		},
		Message: m,
	}
	if !o.Deadline.IsZero() {
		p.Deadline = new(o.Deadline.UTC())
	}
	return p, nil
}

// DueAt is a payload as if its message had been handed over with that time of sending: now if that is over. The error is that its
// deadline is before that.
func DueAt(p *wire.Payload, at, now time.Time) (*wire.Payload, error) {
	if at.Before(now) {
		at = now
	}
	if p.Deadline != nil {
		if err := (mailer.Options{ProcessAt: at, Deadline: *p.Deadline}).Validate(); err != nil {
			return nil, Refused(err)
		}
	}
	other, message := *p, *p.Message
	other.Message, other.DueAt = &message, wire.Due(at)
	if p.Digest != "" {
		other.DueAt = wire.DueOnce(at)
	}
	// A date that was not given is the time of sending, in whole seconds.
	const given = 2 * time.Second
	if d := p.DueAt.Sub(message.Date); !message.Date.IsZero() && d.Abs() < given {
		message.Date = at.In(message.Date.Location()).Truncate(time.Second)
	}
	return &other, nil
}

// IsOnce reports whether the message must not be handed over twice.
func IsOnce(o mailer.Options) bool { return o.IdempotencyKey != "" || o.Unique != 0 }

// Once makes the payload that of a message that is handed over once, and returns the ID of its task.
func Once(p *wire.Payload, o mailer.Options) (id string, err error) {
	if p.Digest, err = Digest(p.Message, o); err != nil {
		return "", Refused(err)
	}
	p.DueAt = wire.DueOnce(p.DueAt)
	return OnceID(p.Digest, o), nil
}

// Digest is what makes two hand-overs the same: all that the recipients get, and
// at_most_once. When the message is sent does not count. Message-ID and Date do not
// either, for most often they are made anew at each try of a hand-over, nor do the trace fields at the top of a raw message,
// with which who takes it says when it came and from where.
func Digest(m *mailer.EmailMessage, o mailer.Options) (string, error) {
	c := *m
	c.MessageID, c.Date, c.Raw = "", time.Time{}, withoutTrace(m.Raw)
	data, err := c.MarshalJSON()
	if err != nil {
		return "", err
	}
	return shortHash(fmt.Sprintf("at_most_once=%v\n", o.AtMostOnce), string(data)), nil
}

// withoutTrace is a raw message without the Received fields that it begins with.
func withoutTrace(raw []byte) []byte {
	const field = "Received:"
	for len(raw) >= len(field) && strings.EqualFold(string(raw[:len(field)]), field) {
		for first := true; len(raw) > 0 && (first || raw[0] == ' ' || raw[0] == '\t'); first = false {
			end := bytes.IndexByte(raw, '\n') + 1
			if end == 0 {
				return nil // there is nothing else
			}
			raw = raw[end:]
		}
	}
	return raw
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

// IsOnceID reports whether a task's ID is that of a message that was handed over once, or derives
// from it. Others are random, in capitals.
func IsOnceID(id string) bool {
	return strings.HasPrefix(id, keyPrefix) || strings.HasPrefix(id, uniquePrefix)
}

// MayBegin reports whether an ID may be that of a message whose idempotency key begins so, or that has none.
func MayBegin(id, start string) bool {
	return !IsOnceID(id) || strings.HasPrefix(id, keyPrefix+readable(start))
}

// OnceID is the ID of the task for a key, or for a digest. Each mailer has keys of its
// own, as it has queues of its own.
func OnceID(digest string, o mailer.Options) string {
	if o.IdempotencyKey == "" {
		return uniquePrefix + shortHash(o.Using, digest)
	}
	return keyPrefix + readable(o.IdempotencyKey) + "-" + shortHash(o.Using, o.IdempotencyKey)
}

// numberDigits is how many digits the number of a key's task has, at most: what is longer is no number of ours.
const numberDigits = 6

// NextID is the ID under which the message of a key goes that is handed over again while the task with
// this ID may still be a worker's.
func NextID(id string) string {
	if i := strings.LastIndexByte(id, '-'); i >= 0 && len(id)-i-1 <= numberDigits {
		if n, err := strconv.Atoi(id[i+1:]); err == nil && n > 1 {
			return id[:i+1] + strconv.Itoa(n+1)
		}
	}
	return id + "-2"
}

// MessageID is the ID of the message, as its hand-over returned it, of a task that came of it: of recipients that are tried again or
// were refused, or of a dead letter that was queued again.
func MessageID(task string) string {
	if !IsOnceID(task) {
		id, _, _ := strings.Cut(task, "-") // others have none
		return id
	}
	at := 0 // where the ID of the hand-over ends: behind the last hash, and the number of the key's task
	for i := 0; i+hashLength < len(task); i++ {
		if end := i + 1 + hashLength; task[i] == '-' && isHash(task[i+1:end]) && (end == len(task) || task[end] == '-') {
			at = end
		}
	}
	if at == 0 {
		return task
	}
	if number, _, _ := strings.Cut(strings.TrimPrefix(task[at:], "-"), "-"); task[at:] != "" && len(number) <= numberDigits {
		if n, err := strconv.Atoi(number); err == nil && n > 1 {
			at += 1 + len(number)
		}
	}
	return task[:at]
}

// hashLength is how long a shortHash is: 120 bits in base 32.
const hashLength = 24

func isHash(text string) bool {
	return strings.Trim(text, "abcdefghijklmnopqrstuvwxyz234567") == ""
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

// Kept is how long a task stays in the queue after its end. An idempotency key is remembered for window.
func Kept(o mailer.Options, window time.Duration) time.Duration {
	kept := max(o.Retention, o.Unique)
	if o.IdempotencyKey != "" {
		kept = max(kept, window)
	}
	return kept
}
