package httpapi

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/mailpouch/mailpouch/mailer"
)

// email is what POST /emails takes, and POST /emails/batch many of, as Resend has it.
type email struct {
	From        string            `json:"from"`
	To          texts             `json:"to"`
	Cc          texts             `json:"cc"`
	Bcc         texts             `json:"bcc"`
	ReplyTo     texts             `json:"reply_to"`
	Subject     string            `json:"subject"`
	HTML        string            `json:"html"`
	Text        string            `json:"text"`
	Headers     map[string]string `json:"headers"`
	Attachments []attachment      `json:"attachments"`
	Tags        []tag             `json:"tags"`
	ScheduledAt string            `json:"scheduled_at"`

	// What is refused by name.
	Template jsontext.Value `json:"template"`
	React    jsontext.Value `json:"react"`
	TopicID  jsontext.Value `json:"topic_id"`
}

// attachment is a file of an email.
type attachment struct {
	Filename        filename `json:"filename"`
	Content         content  `json:"content"`
	ContentType     string   `json:"content_type"`
	ContentID       string   `json:"content_id"`
	InlineContentID string   `json:"inline_content_id"` // as older SDKs call it

	Path string `json:"path"` // which is refused by name
}

// tag is a word of the client's, by which it finds the email again.
type tag struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// maxRecipients is how many recipients an email may have.
const maxRecipients = 1000

// send hands an email over.
func send(c *call, w http.ResponseWriter) (any, error) {
	key, failed := c.idempotencyKey()
	if failed != nil {
		return nil, failed
	}
	var e email
	_, leave, failed := c.json(w, &e)
	defer leave()
	if failed != nil {
		return nil, failed
	}
	m, o, failed := e.message(time.Now())
	if failed != nil {
		return nil, failed
	}
	o.IdempotencyKey = key
	id, failed := c.submit(m, o)
	if failed != nil {
		return nil, e.named(failed, "")
	}
	return created{id}, nil
}

// message makes of an email the message that is queued, and how.
func (e *email) message(now time.Time) (*mailer.EmailMessage, mailer.Options, *apiError) {
	if err := e.check(); err != nil {
		return nil, mailer.Options{}, err
	}
	m := &mailer.EmailMessage{
		FromEmail: e.From, To: e.To, Cc: e.Cc, Bcc: e.Bcc, ReplyTo: e.ReplyTo,
		Subject: e.Subject, Body: e.Text, Headers: e.Headers,
	}
	switch {
	case e.Text == "":
		m.Body, m.ContentSubtype = e.HTML, "html"
	case e.HTML != "":
		m.AttachAlternative(e.HTML, "text/html")
	}
	if err := checkRecipients(m); err != nil {
		return nil, mailer.Options{}, err
	}
	for i, a := range e.Attachments {
		if err := a.check(i); err != nil {
			return nil, mailer.Options{}, err
		}
		m.Attachments = append(m.Attachments, mailer.Attachment{
			Filename: string(a.Filename), Content: a.Content.bytes, Mimetype: a.ContentType, ContentID: a.id(),
		})
	}
	var o mailer.Options
	for i, t := range e.Tags {
		text, err := t.text(i)
		if err != nil {
			return nil, o, err
		}
		o.Tags = append(o.Tags, text)
	}
	if e.ScheduledAt != "" {
		at, err := when(e.ScheduledAt, now)
		if err != nil {
			return nil, o, err
		}
		o.ProcessAt = at
	}
	return m, o, nil
}

// check refuses what is not supported, and finds what is missing.
func (e *email) check() *apiError {
	given := func(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != 'n' }
	switch {
	case given(e.Template):
		return notSupported("template", "there are no templates here: send html or text")
	case given(e.React):
		return notSupported("react", "is rendered by SDKs alone: send html or text")
	case given(e.TopicID):
		return notSupported("topic_id", "there are no topics here")
	case e.From == "":
		return missing("from")
	case !hasDomain(e.From):
		return invalid("from", "has no domain: write shop@example.com")
	case len(e.To) == 0:
		return missing("to")
	case e.HTML == "" && e.Text == "":
		return missing("html") // or text
	case len(e.To)+len(e.Cc)+len(e.Bcc) > maxRecipients:
		return invalid("to", fmt.Sprintf("there are %d recipients with those in cc and bcc, at most %d are allowed", len(e.To)+len(e.Cc)+len(e.Bcc), maxRecipients))
	}
	for _, list := range []struct {
		field string
		all   texts
	}{{"to", e.To}, {"cc", e.Cc}, {"bcc", e.Bcc}} {
		for i, entry := range list.all {
			if !hasDomain(entry) {
				return invalid(fmt.Sprintf("%s[%d]", list.field, i), "has no domain: write ann@example.com")
			}
		}
	}
	return nil
}

// hasDomain reports whether an address has one. A name without it means somebody on the machine of the relay, whom no client of an API can mean.
func hasDomain(entry string) bool {
	return strings.Contains(entry[strings.LastIndexByte(entry, '<')+1:], "@")
}

// checkRecipients refuses more recipients than there may be, and one without a domain. Those of a Bcc among the headers count.
func checkRecipients(m *mailer.EmailMessage) *apiError {
	all := m.Recipients()
	if len(all) > maxRecipients {
		return invalid("to", fmt.Sprintf("there are %d recipients, at most %d are allowed", len(all), maxRecipients))
	}
	for _, entry := range all {
		if !hasDomain(entry) {
			return invalid("to", fmt.Sprintf("%.80q has no domain: write ann@example.com", entry))
		}
	}
	return nil
}

// check refuses a file that is somewhere else, or has no content.
func (a *attachment) check(i int) *apiError {
	switch field := fmt.Sprintf("attachments[%d].", i); {
	case a.Path != "":
		return notSupported(field+"path", "files are not fetched from elsewhere: send the content, in base64")
	case !a.Content.given:
		e := missing(field + "content")
		e.Name = nameAttachment
		return e
	case a.ContentID != "" && a.InlineContentID != "" && a.ContentID != a.InlineContentID:
		return invalid(field+"inline_content_id", "is another one than content_id")
	}
	return nil
}

func (a *attachment) id() string {
	if a.ContentID != "" {
		return a.ContentID
	}
	return a.InlineContentID
}

// text is a tag as the queue has it: name:value.
func (t tag) text(i int) (string, *apiError) {
	field := fmt.Sprintf("tags[%d].", i)
	switch {
	case t.Name == "":
		return "", missing(field + "name")
	case !isWord(t.Name):
		return "", invalid(field+"name", "has another character than ASCII letters, digits, _ and -")
	case !isWord(t.Value):
		return "", invalid(field+"value", "has another character than ASCII letters, digits, _ and -")
	}
	return t.Name + ":" + t.Value, nil
}

// isWord reports whether a text has no other characters than Resend allows in tags.
func isWord(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	})
}

// tagsOf are the tags of a message that its client has given.
func tagsOf(all []string, own string) []tag {
	tags := []tag{}
	for _, text := range all {
		if text != own {
			name, value, _ := strings.Cut(text, ":")
			tags = append(tags, tag{name, value})
		}
	}
	return tags
}

// named gives the field of an error the name that it has in an email.
func (e *email) named(err *apiError, in string) *apiError {
	if err.StatusCode != http.StatusUnprocessableEntity && err.StatusCode != http.StatusForbidden {
		return err
	}
	was, is := err.Field, err.Field
	switch {
	case was == "from_email":
		is = "from"
	case was == "body" && e.Text == "", was == "alternatives", strings.HasPrefix(was, "alternatives["):
		is = "html"
	case was == "body":
		is = "text"
	case strings.HasPrefix(was, "attachments[") && strings.HasSuffix(was, ".mimetype"):
		is = strings.TrimSuffix(was, "mimetype") + "content_type"
	case was == "schedule":
		is = "scheduled_at"
	}
	if in != "" && is != "" {
		is = in + "." + is
	}
	named := *err
	named.Field = is
	if text, ok := strings.CutPrefix(err.Message, was); ok && was != "" {
		named.Message = is + text
	} else if in != "" {
		named.Message = in + ": " + err.Message
	}
	return &named
}

// fromNow is what is understood of the natural language that Resend lets clients write times in: how long from now.
var fromNow = regexp.MustCompile(`^in (\d{1,6}|an?) ?(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)$`)

// units are how long the units are, by their first letters.
var units = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}

// when reads a time: RFC 3339, or how long from now.
func when(text string, now time.Time) (time.Time, *apiError) {
	const fieldName = "scheduled_at"
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	m := fromNow.FindStringSubmatch(strings.ToLower(strings.Join(strings.Fields(text), " ")))
	if m == nil {
		return time.Time{}, notSupported(fieldName, strconv.Quote(short(text))+" is no time that is understood here: write one such as 2026-12-24T18:00:00Z (RFC 3339, with its zone), or how long from now, such as in 90 min")
	}
	n, unit := 1, units[m[2][0]]
	if m[1][0] != 'a' {
		n, _ = strconv.Atoi(m[1])
	}
	if n > int(math.MaxInt64/unit) {
		return time.Time{}, invalid(fieldName, strconv.Quote(short(text))+" is more than 292 years from now")
	}
	return now.Add(time.Duration(n) * unit), nil
}
