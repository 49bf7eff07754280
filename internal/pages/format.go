package pages

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/mail"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/tasks"
)

const (
	maxSubject  = 120
	maxReason   = 400
	maxShown    = 5 // messages of a mass task, and attachments of a message
	notReadable = "cannot be read as mail"
)

// payload shows asynqmon what a task carries: who, what and how much, but no body and
// no attachment. What comes in may be anything: what it does not understand it leaves out.
func (v veil) payload(taskType string, data []byte) string {
	var f fields
	switch taskType {
	case tasks.TaskType:
		f = v.one(data)
	case tasks.TaskTypeMass:
		f = v.many(data)
	default:
		f.add("payload", "is no mail")
	}
	f.add("size", size(len(data)))
	return line(f)
}

// many shows how many messages there are, and the first few.
func (v veil) many(data []byte) fields {
	n := 0
	var first []json.RawMessage
	for one := range bytes.Lines(data) {
		if n++; n <= maxShown {
			first = append(first, json.RawMessage(line(v.one(one))))
		}
	}
	var f fields
	f.add("messages", n)
	f.add("first", first)
	return f
}

// one shows a message and what is true of it in the queue.
func (v veil) one(data []byte) fields {
	var p struct {
		Using      json.RawMessage `json:"using"`
		DueAt      json.RawMessage `json:"due_at"`
		Deadline   json.RawMessage `json:"deadline"`
		AtMostOnce json.RawMessage `json:"at_most_once"`
		Recipients json.RawMessage `json:"recipients"`
		Refused    json.RawMessage `json:"refused"`
		Blobs      json.RawMessage `json:"blobs"`
		Message    json.RawMessage `json:"message"`
	}
	var f fields
	if json.Unmarshal(data, &p) != nil || p.Message == nil {
		f.add("payload", notReadable)
		return f
	}
	f = v.message(p.Message, sizes(p.Blobs))
	f.add("only_to", v.recipients(texts(p.Recipients)))
	f.add("refused", v.text(text(p.Refused), maxReason))
	f.add("mailer", v.text(text(p.Using), maxSubject))
	f.add("due_at", moment(p.DueAt))
	f.add("deadline", moment(p.Deadline))
	if string(p.AtMostOnce) == "true" {
		f.add("at_most_once", "yes")
	}
	return f
}

// message shows one message.
func (v veil) message(data json.RawMessage, blobs map[int]int) fields {
	var m struct {
		Subject      json.RawMessage `json:"subject"`
		From         json.RawMessage `json:"from_email"`
		To           json.RawMessage `json:"to"`
		Cc           json.RawMessage `json:"cc"`
		Bcc          json.RawMessage `json:"bcc"`
		Body         json.RawMessage `json:"body"`
		Raw          json.RawMessage `json:"raw"`
		Subtype      json.RawMessage `json:"content_subtype"`
		Attachments  json.RawMessage `json:"attachments"`
		Alternatives json.RawMessage `json:"alternatives"`
		MessageID    json.RawMessage `json:"message_id"`
	}
	var f fields
	if json.Unmarshal(data, &m) != nil {
		f.add("message", notReadable)
		return f
	}
	f.add("subject", v.text(text(m.Subject), maxSubject))
	if from := text(m.From); from != "" {
		f.add("from", v.recipient(from))
	}
	f.add("to", v.recipients(texts(m.To)))
	f.add("cc", v.recipients(texts(m.Cc)))
	f.add("bcc", v.recipients(texts(m.Bcc)))
	if body := text(m.Body); body != "" {
		f.add("body", size(len(body))+", text/"+redact.Cut(redact.Line(text(m.Subtype)), maxAddress))
	}
	if raw := text(m.Raw); raw != "" {
		f.add("subject", v.text(rawSubject(raw), maxSubject))
		f.add("raw", size(decoded(raw)))
	}
	f.add("alternatives", v.alternatives(m.Alternatives))
	f.add("attachments", v.attachments(m.Attachments, blobs))
	f.add("message_id", redact.Cut(redact.Line(text(m.MessageID)), maxSubject))
	return f
}

func (v veil) alternatives(data json.RawMessage) []string {
	var all []struct {
		Content  json.RawMessage `json:"content"`
		MIMEType json.RawMessage `json:"mimetype"`
	}
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	var shown []string
	for _, a := range all[:min(len(all), maxShown)] {
		shown = append(shown, size(len(text(a.Content)))+", "+v.text(text(a.MIMEType), maxAddress))
	}
	return shown
}

// attachments shows names and sizes. blobs has the sizes of those that are stored beside
// the queue, by index.
func (v veil) attachments(data json.RawMessage, blobs map[int]int) []string {
	var all []struct {
		Name     json.RawMessage `json:"filename"`
		Content  json.RawMessage `json:"content"`
		MIMEType json.RawMessage `json:"mimetype"`
	}
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	var shown []string
	for i, a := range all {
		if i == maxShown {
			return append(shown, fmt.Sprintf("and %d more", len(all)-i))
		}
		n, beside := blobs[i]
		if !beside {
			n = decoded(text(a.Content))
		}
		name := v.text(text(a.Name), maxSubject)
		if name == "" {
			name = "without a name"
		}
		shown = append(shown, fmt.Sprintf("%s: %s, %s", name, size(n), v.text(text(a.MIMEType), maxAddress)))
	}
	return shown
}

// result shows what the relay answered to a message that was sent.
func (v veil) result(_ string, data []byte) string {
	var r struct {
		Reply   json.RawMessage `json:"reply"`
		Refused json.RawMessage `json:"refused"`
	}
	if len(data) == 0 {
		return ""
	}
	var f fields
	if json.Unmarshal(data, &r) != nil {
		f.add("size", size(len(data)))
		return line(f)
	}
	f.add("reply", v.text(text(r.Reply), maxReason))
	var refused []string
	for i, reason := range texts(r.Refused) {
		if i == maxShown {
			break
		}
		refused = append(refused, v.text(reason, maxReason))
	}
	f.add("refused", refused)
	return line(f)
}

// moment is a JSON string that is a time; anything else is "".
func moment(data json.RawMessage) string {
	var at time.Time
	if json.Unmarshal(data, &at) != nil || at.IsZero() {
		return ""
	}
	return at.Format(time.RFC3339Nano)
}

// sizes has the octets of the attachments that are stored beside the queue, by index.
func sizes(blobs json.RawMessage) map[int]int {
	var all []struct {
		Attachment int `json:"attachment"`
		Size       int `json:"size"`
	}
	if json.Unmarshal(blobs, &all) != nil {
		return nil
	}
	m := map[int]int{}
	for _, b := range all {
		m[b.Attachment] = b.Size
	}
	return m
}

// text is a JSON string; anything else is "".
func text(data json.RawMessage) string {
	var s string
	if json.Unmarshal(data, &s) != nil {
		return ""
	}
	return s
}

// texts is a JSON list of strings; what is none is left out.
func texts(data json.RawMessage) []string {
	var all []json.RawMessage
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	list := make([]string, 0, len(all))
	for _, item := range all {
		if s := text(item); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// rawSubject is the subject of a finished message in base64, if it is near its top.
func rawSubject(raw string) string {
	head, _ := base64.StdEncoding.DecodeString(raw[:min(len(raw), 16<<10)&^3]) // as far as it goes
	message, err := mail.ReadMessage(bytes.NewReader(append(head, "\r\n\r\n"...)))
	if err != nil {
		return ""
	}
	subject := message.Header.Get("Subject")
	if readable, err := new(mime.WordDecoder).DecodeHeader(subject); err == nil {
		return readable
	}
	return subject
}

// decoded is about how many octets a base64 text stands for.
func decoded(text string) int { return len(strings.TrimRight(text, "=")) * 3 / 4 }

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

// size writes octets for people.
func size(n int) string {
	switch {
	case n < 1000:
		return strconv.Itoa(n) + " B"
	case n < 1000*1000:
		return strconv.FormatFloat(float64(n)/1000, 'f', 1, 64) + " kB"
	}
	return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB"
}
