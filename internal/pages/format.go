package pages

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"mime"
	"net/mail"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
)

const (
	maxSubject  = 120
	maxReason   = 400
	maxShown    = 5 // messages of a bulk task, and attachments of a message
	notReadable = "cannot be read as mail"

	maxAddress    = 100
	maxRecipients = 3
)

// formatter shows people what tasks carry.
type formatter struct{ redact.View }

// payload shows asynqmon what a task carries: who, what and how much, but no body and
// no attachment. What comes in may be anything: what it does not understand it leaves out.
func (p formatter) payload(taskType string, data []byte) string {
	var f fields
	switch taskType {
	case wire.TaskType:
		f = p.one(data)
	case wire.TaskTypeBulk:
		f = p.many(data)
	default:
		f.add("payload", "is no mail")
	}
	f.add("size", size(wire.Size(data)))
	if wire.Size(data) > len(data) {
		f.add("compressed", size(len(data)))
	}
	return line(f)
}

// many shows how many messages there are, and the first few.
func (p formatter) many(data []byte) fields {
	n := 0
	var first []json.RawMessage
	for one := range wire.Lines(data) {
		if n++; n <= maxShown {
			first = append(first, json.RawMessage(line(p.one(one))))
		}
	}
	var f fields
	f.add("messages", n)
	f.add("first", first)
	return f
}

// one shows a message and what is true of it in the queue.
func (p formatter) one(data []byte) fields {
	var f fields
	o, ok := wire.ReadOutline(data)
	if !ok {
		f.add("payload", notReadable)
		return f
	}
	f = p.message(o)
	f.add("only_to", p.recipients(o.Recipients))
	f.add("refused", p.Text(o.Refused, maxReason))
	f.add("mailer", p.Text(o.Using, maxSubject))
	f.add("due_at", moment(o.DueAt))
	f.add("deadline", moment(o.Deadline))
	if o.AtMostOnce {
		f.add("at_most_once", "yes")
	}
	f.add("mailing", p.Text(o.Mailing, maxSubject))
	f.add("tags", p.Text(strings.Join(o.Tags, ", "), maxSubject))
	return f
}

// message shows one message.
func (p formatter) message(o wire.Outline) fields {
	var f fields
	if !o.Readable {
		f.add("message", notReadable)
		return f
	}
	f.add("subject", p.Text(o.Subject, maxSubject))
	if o.From != "" {
		f.add("from", p.Address(o.From, maxAddress))
	}
	f.add("to", p.recipients(o.To))
	f.add("cc", p.recipients(o.Cc))
	f.add("bcc", p.recipients(o.Bcc))
	if o.Body != 0 {
		f.add("body", size(o.Body)+", text/"+redact.Cut(redact.Line(o.ContentSubtype), maxAddress))
	}
	if o.Raw != 0 {
		f.add("subject", p.Text(rawSubject(o.RawHead), maxSubject))
		f.add("raw", size(o.Raw))
	}
	f.add("alternatives", p.alternatives(o.Alternatives))
	f.add("attachments", p.attachments(o.Attachments))
	f.add("message_id", redact.Cut(redact.Line(o.MessageID), maxSubject))
	return f
}

// recipients shows the first few of a list.
func (p formatter) recipients(list []string) []string {
	shown := make([]string, 0, min(len(list), maxRecipients+1))
	for i, r := range list {
		if i == maxRecipients {
			return append(shown, fmt.Sprintf("and %d more", len(list)-i))
		}
		shown = append(shown, p.Address(r, maxAddress))
	}
	return shown
}

func (p formatter) alternatives(all []wire.OutlinePart) []string {
	all = all[:min(len(all), maxShown)]
	shown := make([]string, 0, len(all))
	for _, a := range all {
		shown = append(shown, p.sizeAndType(a))
	}
	return shown
}

// sizeAndType leaves out the type of a part that has none: it is guessed when the message is sent.
func (p formatter) sizeAndType(a wire.OutlinePart) string {
	if a.Mimetype == "" {
		return size(a.Size)
	}
	return size(a.Size) + ", " + p.Text(a.Mimetype, maxAddress)
}

// attachments shows names and sizes.
func (p formatter) attachments(all []wire.OutlinePart) []string {
	var shown []string
	for i, a := range all {
		if i == maxShown {
			return append(shown, fmt.Sprintf("and %d more", len(all)-i))
		}
		name := p.Text(a.Name, maxSubject)
		if name == "" {
			name = "without a name"
		}
		shown = append(shown, name+": "+p.sizeAndType(a))
	}
	return shown
}

// result shows what the relay answered to a message that was sent.
func (p formatter) result(_ string, data []byte) string {
	if len(data) == 0 {
		return ""
	}
	var f fields
	if all, ok := wire.ReadResults(data); ok {
		return line(p.results(all))
	}
	r, ok := wire.ReadResult(data)
	if !ok {
		f.add("size", size(len(data)))
		return line(f)
	}
	f.add("reply", p.Text(r.Reply, maxReason))
	var refused []string
	for _, reason := range r.Refused[:min(len(r.Refused), maxShown)] {
		refused = append(refused, p.Text(reason, maxReason))
	}
	f.add("refused", refused)
	return line(f)
}

// results shows what the relay answered to each message of a mass task.
func (p formatter) results(all []wire.Result) fields {
	var replies []string
	for i, r := range all {
		if i == maxReplies {
			replies = append(replies, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		text := strconv.Itoa(i) + ": " + cmp.Or(p.Text(r.Reply, maxSubject), "no reply is kept")
		for _, reason := range r.Refused[:min(len(r.Refused), maxShown)] {
			text += "; refused: " + p.Text(reason, maxSubject)
		}
		replies = append(replies, text)
	}
	var f fields
	f.add("messages", len(all))
	f.add("replies", replies)
	return f
}

// maxReplies is how many messages' replies are shown of a mass task.
const maxReplies = 100

// moment is a time, "" if it is none.
func moment(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Format(time.RFC3339Nano)
}

// rawSubject is the subject of a finished message, if it is near its top.
func rawSubject(head []byte) string {
	message, err := mail.ReadMessage(bytes.NewReader(append(bytes.Clone(head), "\r\n\r\n"...)))
	if err != nil {
		return ""
	}
	subject := message.Header.Get("Subject")
	if readable, err := new(mime.WordDecoder).DecodeHeader(subject); err == nil {
		return readable
	}
	return subject
}

// fields is a JSON object whose fields stay in order.
type fields []struct {
	name  string
	value any
}

// add adds a field that is not empty.
func (f *fields) add(name string, value any) {
	switch v := value.(type) {
	case string:
		if v == "" {
			return
		}
	case []string:
		if len(v) == 0 {
			return
		}
	}
	*f = append(*f, fields{{name, value}}...)
}

func line(f fields) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // for people; the page takes it as text
	b.WriteByte('{')
	for i, one := range f {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(one.name) + ":")
		_ = encoder.Encode(one.value) // texts, numbers and lists of texts
		b.Truncate(b.Len() - 1)       // its line end
	}
	b.WriteByte('}')
	return b.String()
}

// size writes bytes for people.
func size(n int) string {
	switch {
	case n < 1000:
		return strconv.Itoa(n) + " B"
	case n < 1000*1000:
		return strconv.FormatFloat(float64(n)/1000, 'f', 1, 64) + " kB"
	}
	return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB"
}
