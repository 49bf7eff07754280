package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/mailpouch/mailpouch/internal/name"
	"github.com/mailpouch/mailpouch/mailer"
)

// The asynq types of our tasks.
const (
	TaskType     = "mailpouch:message"  // one message: a payload
	TaskTypeBulk = "mailpouch:messages" // many: a payload a line
)

// HeaderDied is the header of a task whose message must not be read, for its workers have died
// of it: the reason why it is a dead letter.
const HeaderDied = "mailpouch-died"

// The versions of payloads. Each has the lowest one that can express it: see Meta.lowest. A worker leaves a task of a version that it
// does not know to a newer one, and says in internal/presence which it reads.
const (
	versionFirst      = 1
	Tagged            = 2 // Meta.Tags and Meta.Mailing
	versionCompressed = 3 // see Codec

	// Newest is the newest version that this program reads.
	Newest = versionCompressed
)

// Payload is what a task carries: the message and what is true of it in the queue. It
// is one JSON object, with the message last. It never holds credentials.
type Payload struct {
	Meta
	Message *mailer.EmailMessage

	Headers map[string]string // of the task: the trace that it belongs to
}

// Meta is what a payload says beside the message.
type Meta struct {
	Version    int        `json:"version"`
	Using      string     `json:"using,omitempty"`    // the name of the mailer, "" for the default one
	DueAt      time.Time  `json:"due_at"`             // when it was to be sent first; its age counts from here
	Deadline   *time.Time `json:"deadline,omitempty"` // not sent after this
	AtMostOnce bool       `json:"at_most_once,omitempty"`
	KeepResult bool       `json:"keep_result,omitempty"` // the task has a retention
	Recipients []string   `json:"recipients,omitempty"`  // only these of the message's, if not empty
	Refused    string     `json:"refused,omitempty"`     // why Recipients were refused for good: a dead letter
	Blobs      []Blob     `json:"blobs,omitempty"`       // the attachments and bodies whose content is not in the message
	BlobRef    string     `json:"blob_ref,omitempty"`    // with Blobs: the token of this task's references to them
	Digest     string     `json:"digest,omitempty"`      // of what was handed over, if that is to be once
	Spent      int        `json:"spent,omitempty"`       // tries that the message had in another task before
	Tags       []string   `json:"tags,omitempty"`
	Mailing    string     `json:"mailing,omitempty"` // the name of the mailing that it belongs to
}

// messageKey parts the meta from the message. It cannot stand inside a string, where
// quotes are escaped, and no object in a Meta has such a key: the first one is the right one.
var messageKey = []byte(`,"message":`)

// Encode returns the payload as a task carries it.
func (p *Payload) Encode() ([]byte, error) { return p.Append(nil) }

// Append appends the payload to data. Contents that have a blob are left out.
func (p *Payload) Append(data []byte) ([]byte, error) {
	p.Version = p.lowest()
	m := p.WithContents(func(Blob) []byte { return nil })
	data = slices.Grow(data, 512+len(m.Body)*17/16+base64.StdEncoding.EncodedLen(len(m.Raw)))
	data, err := p.append(data)
	if err != nil {
		return nil, err
	}
	data = append(data, messageKey...)
	if data, err = m.AppendJSON(data); err != nil {
		return nil, err
	}
	return append(data, '}'), nil
}

// lowest is the lowest version that can express the meta.
func (s *Meta) lowest() int {
	if len(s.Tags) > 0 || s.Mailing != "" {
		return Tagged
	}
	return versionFirst
}

// append appends the meta to data, without its closing brace.
func (s *Meta) append(data []byte) ([]byte, error) {
	if s.isPlain() {
		data = append(data, plainMeta...)
		data = append(data, byte('0'+s.Version)) //nolint:gosec // a few versions
		data = append(data, plainDue...)
		data = s.DueAt.AppendFormat(data, time.RFC3339Nano)
		if s.Mailing != "" {
			data = append(append(data, plainMailing...), s.Mailing...)
		}
		return append(data, '"'), nil
	}
	head, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return append(data, head[:len(head)-1]...), nil
}

var errNoMessage = errors.New("no message at its end")

// SetAside makes blobs of the contents that are bigger than threshold: none if that is
// negative. They stay in the message, and are left out when the payload is encoded.
func (p *Payload) SetAside(threshold int, hash func(content []byte) string) {
	for _, b := range parts(p.Message) {
		if threshold >= 0 && b.Size > threshold {
			b.Hash = hash(b.Of(p.Message))
			p.Blobs = append(p.Blobs, b)
		}
	}
}

// WithContents is a copy of the message whose blobs have these contents.
func (p *Payload) WithContents(content func(Blob) []byte) *mailer.EmailMessage {
	if len(p.Blobs) == 0 {
		return p.Message
	}
	m := *p.Message
	m.Attachments, m.Alternatives = slices.Clone(m.Attachments), slices.Clone(m.Alternatives)
	for _, b := range p.Blobs {
		b.Put(&m, content(b))
	}
	return &m
}

// decode reads a payload that is not compressed, of a task that has these headers. Meta and message are read apart,
// so that the message is read once.
func decode(data []byte, headers map[string]string) (*Payload, error) {
	data = bytes.TrimSpace(data)
	at := bytes.Index(data, messageKey)
	if at < 0 || data[len(data)-1] != '}' {
		return nil, checkVersion(data, errNoMessage)
	}
	p := &Payload{Message: new(mailer.EmailMessage), Headers: headers}
	if !p.decodePlain(data[:at]) {
		head := append(bytes.Clone(data[:at]), '}')
		decoder := json.NewDecoder(bytes.NewReader(head))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&p.Meta); err != nil {
			return nil, checkVersion(head, err)
		}
		if p.Version < versionFirst || p.Version > Tagged {
			return nil, checkVersion(head, nil)
		}
	}
	if err := p.Message.UnmarshalJSON(data[at+len(messageKey) : len(data)-1]); err != nil {
		return nil, fmt.Errorf("tasks: payload: %w", err)
	}
	for _, b := range p.Blobs {
		if err := b.check(p.Message); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// DecodeMeta reads a payload without its message.
func DecodeMeta(data []byte) (Meta, error) {
	var s Meta
	head, _, ok := bytes.Cut(data, messageKey)
	if !ok {
		return s, errors.New("tasks: payload: no message in it")
	}
	err := json.Unmarshal(append(bytes.Clone(head), '}'), &s)
	return s, err
}

// plainMeta is how the meta of most payloads begins. The version follows, plainDue and the time, and behind plainMailing the name of the
// mailing, if there is one.
const (
	plainMeta    = `{"version":`
	plainDue     = `,"due_at":"`
	plainMailing = `","mailing":"`
)

// isPlain reports whether a meta says no more than when the message is due, which is in UTC and
// in this age, and in which mailing.
func (s *Meta) isPlain() bool {
	return s.Using == "" && s.Deadline == nil && !s.AtMostOnce && !s.KeepResult && s.Recipients == nil && s.Refused == "" &&
		s.Blobs == nil && s.BlobRef == "" && s.Digest == "" && s.Spent == 0 && s.Tags == nil && (s.Mailing == "" || name.Is(s.Mailing)) && s.DueAt.Location() == time.UTC && s.DueAt.Year() < 10000
}

// decodePlain reads a meta for which isPlain holds, which is most of them, without the cost of reading just any JSON. It is
// false for others.
func (s *Meta) decodePlain(head []byte) bool {
	const at = len(plainMeta) // of the version, a digit
	if len(head) <= at || head[at] < '0'+versionFirst || head[at] > '0'+Tagged || string(head[:at]) != plainMeta {
		return false
	}
	rest, ok := bytes.CutPrefix(head[at+1:], []byte(plainDue))
	rest, ok2 := bytes.CutSuffix(rest, []byte(`"`))
	due, mailing, named := bytes.Cut(rest, []byte(plainMailing))
	if !ok || !ok2 || named && !name.Is(string(mailing)) || s.DueAt.UnmarshalText(due) != nil {
		return false
	}
	s.Version, s.Mailing = int(head[at]-'0'), string(mailing)
	return true
}

// checkVersion tells a payload of another version from one that is broken: what is
// unknown in it is then no surprise.
func checkVersion(data []byte, err error) error {
	var v struct {
		Version int `json:"version"`
	}
	if wrong := json.Unmarshal(data, &v); wrong != nil {
		return fmt.Errorf("tasks: payload: %s", unreadable(wrong))
	}
	if v.Version > Newest || v.Version < versionFirst {
		return fmt.Errorf("tasks: payload of version %d, this worker reads versions up to %d: upgrade it, then replay the task",
			v.Version, Newest)
	}
	return fmt.Errorf("tasks: payload: %s", unreadable(err))
}

// unreadable says what is wrong with a payload, and repeats nothing of it: whatever it is, it
// may be a message.
func unreadable(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, errNoMessage):
		return err.Error()
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON, from octet %d on", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf("%s: not what it should be, a %s", kind.Field, kind.Type)
	}
	return "an unknown field, or a time that is none, before the message"
}

// BaseID is what the IDs of tasks that come of the task with this ID begin with. The ID of an
// idempotency key may be used again when its time is over, while what came of its first task
// is still there.
func (s *Meta) BaseID(id string) string {
	if generation := s.Generation(); generation != "" {
		return id + "-" + generation
	}
	return id
}

// Generation is different for each task that has the ID of an idempotency key, one after the
// other. It is empty for tasks with an ID of their own.
func (s *Meta) Generation() string {
	if s.Digest == "" {
		return ""
	}
	generation := strconv.FormatInt(s.DueAt.UnixMilli(), 36)
	if rest := s.DueAt.Nanosecond() % int(time.Millisecond); rest > 0 {
		const digits = 36 * 36 * 36 * 36 // so all have the same length
		generation += strconv.FormatInt(int64(digits+rest), 36)
	}
	return generation
}

// DueOnce is a time as the DueAt of a message that is to be handed over once. It has a
// part of a millisecond that is random, for the same message may be due at the same time
// again, after it was cancelled.
func DueOnce(at time.Time) time.Time {
	return Due(at).Add(1 + rand.N(time.Millisecond-1)) //nolint:gosec // what differs, nobody needs to guess
}

// Due is a time as the DueAt of a message.
func Due(at time.Time) time.Time { return at.UTC().Truncate(time.Millisecond) }

// Hashes are the hashes of the blobs, each once.
func (s *Meta) Hashes() []string {
	var hashes []string
	for _, b := range s.Blobs {
		if !slices.Contains(hashes, b.Hash) {
			hashes = append(hashes, b.Hash)
		}
	}
	return hashes
}
