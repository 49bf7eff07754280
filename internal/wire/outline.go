package wire

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// Outline is what a payload says, for a person to look at: who, what and how much, but no
// body and no attachment. Unlike Decode, which a worker uses, ReadOutline takes what it can
// from any payload, also one of another version or one that is partly broken: what is not what
// it should be is empty.
type Outline struct {
	Using      string
	DueAt      time.Time
	Deadline   time.Time
	AtMostOnce bool
	Recipients []string
	Refused    string
	Tags       []string
	Mailing    string

	Readable bool // whether there is a message; if not, the rest is empty

	Subject        string
	From           string
	To, Cc, Bcc    []string
	ContentSubtype string
	MessageID      string
	Body           int    // bytes
	Raw            int    // bytes
	RawHead        []byte // the beginning of Raw, if that is in the payload
	Alternatives   []OutlinePart
	Attachments    []OutlinePart
}

// OutlinePart is an alternative or an attachment.
type OutlinePart struct {
	Name     string
	Mimetype string
	Size     int // bytes
}

// rawHead is how much of a raw message in base64 is looked at, for its subject.
const rawHead = 16 << 10

// ReadOutline reads a payload. It is false if that is none at all. Sizes count what is stored
// beside the queue.
func ReadOutline(data []byte) (o Outline, ok bool) {
	var p struct {
		Using      lenient[string]            `json:"using"`
		DueAt      lenient[time.Time]         `json:"due_at"`
		Deadline   lenient[time.Time]         `json:"deadline"`
		AtMostOnce lenient[bool]              `json:"at_most_once"`
		Recipients lenient[[]lenient[string]] `json:"recipients"`
		Refused    lenient[string]            `json:"refused"`
		Tags       lenient[[]lenient[string]] `json:"tags"`
		Mailing    lenient[string]            `json:"mailing"`
		Blobs      lenient[[]Blob]            `json:"blobs"`
		Message    json.RawMessage            `json:"message"`
	}
	if json.Unmarshal(Plain(data), &p) != nil || p.Message == nil {
		return o, false
	}
	o = Outline{
		Using: p.Using.is, DueAt: p.DueAt.is, Deadline: p.Deadline.is, AtMostOnce: p.AtMostOnce.is,
		Recipients: filled(p.Recipients), Refused: p.Refused.is,
		Tags: filled(p.Tags), Mailing: p.Mailing.is,
	}
	o.readMessage(p.Message)
	for _, b := range p.Blobs.is {
		o.measure(b)
	}
	return o, true
}

func (o *Outline) readMessage(data json.RawMessage) {
	type part struct {
		Name     lenient[string] `json:"filename"`
		Content  lenient[string] `json:"content"`
		Mimetype lenient[string] `json:"mimetype"`
	}
	var m struct {
		Subject      lenient[string]            `json:"subject"`
		From         lenient[string]            `json:"from_email"`
		To           lenient[[]lenient[string]] `json:"to"`
		Cc           lenient[[]lenient[string]] `json:"cc"`
		Bcc          lenient[[]lenient[string]] `json:"bcc"`
		Body         lenient[string]            `json:"body"`
		Raw          lenient[string]            `json:"raw"`
		Subtype      lenient[string]            `json:"content_subtype"`
		Alternatives lenient[[]part]            `json:"alternatives"`
		Attachments  lenient[[]part]            `json:"attachments"`
		MessageID    lenient[string]            `json:"message_id"`
	}
	if json.Unmarshal(data, &m) != nil {
		return
	}
	o.Readable = true
	o.Subject, o.From, o.ContentSubtype, o.MessageID = m.Subject.is, m.From.is, m.Subtype.is, m.MessageID.is
	o.To, o.Cc, o.Bcc = filled(m.To), filled(m.Cc), filled(m.Bcc)
	o.Body, o.Raw = len(m.Body.is), decodedLen(m.Raw.is)
	o.RawHead, _ = base64.StdEncoding.DecodeString(m.Raw.is[:min(len(m.Raw.is), rawHead)&^3]) // as far as it goes
	for _, a := range m.Alternatives.is {
		o.Alternatives = append(o.Alternatives, OutlinePart{Mimetype: a.Mimetype.is, Size: len(a.Content.is)})
	}
	for _, a := range m.Attachments.is {
		o.Attachments = append(o.Attachments, OutlinePart{Name: a.Name.is, Mimetype: a.Mimetype.is, Size: decodedLen(a.Content.is)})
	}
}

// measure gives the part that a blob belongs to the blob's size.
func (o *Outline) measure(b Blob) {
	list := o.Attachments
	switch b.Part {
	case PartBody:
		o.Body = b.Size
		return
	case PartRaw:
		o.Raw = b.Size
		return
	case PartAlternative:
		list = o.Alternatives
	case PartAttachment:
	default:
		return
	}
	if b.Index >= 0 && b.Index < len(list) {
		list[b.Index].Size = b.Size
	}
}

// ReadResult reads the Result of a task for a person to look at, as far as it can. It is
// false if that is none, or that of a bulk task.
func ReadResult(data []byte) (r Result, ok bool) {
	var v struct {
		Reply   lenient[string]            `json:"reply"`
		Refused lenient[[]lenient[string]] `json:"refused"`
	}
	if json.Unmarshal(data, &v) != nil {
		return r, false
	}
	return Result{Reply: v.Reply.is, Refused: filled(v.Refused)}, true
}

// ReadResults reads the Results of a bulk task for a person to look at, in the order of its messages, as far as it can. It
// is false if that are none.
func ReadResults(data []byte) (all []Result, ok bool) {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		return nil, false
	}
	for _, one := range list {
		r, _ := ReadResult(one) // one that cannot be read is empty
		all = append(all, r)
	}
	return all, true
}

// lenient is a value of JSON that is zero where something else stands in its place.
type lenient[T any] struct{ is T }

// UnmarshalJSON implements json.Unmarshaler.
func (l *lenient[T]) UnmarshalJSON(data []byte) error {
	var value T
	if json.Unmarshal(data, &value) == nil {
		l.is = value
	}
	return nil
}

// filled is a list without what is empty in it.
func filled(list lenient[[]lenient[string]]) []string {
	var texts []string
	for _, s := range list.is {
		if s.is != "" {
			texts = append(texts, s.is)
		}
	}
	return texts
}

// decodedLen is about how many bytes a base64 text stands for.
func decodedLen(text string) int { return len(strings.TrimRight(text, "=")) * 3 / 4 }
