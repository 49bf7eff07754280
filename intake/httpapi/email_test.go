package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// send hands an email over that has to be accepted.
func (h *house) send(body string, header ...string) (id string) {
	h.t.Helper()
	r := request{method: http.MethodPost, path: "/emails", body: body, header: map[string]string{}}
	for i := 0; i+1 < len(header); i += 2 {
		r.header[header[i]] = header[i+1]
	}
	a := h.do(r)
	if a.status != http.StatusOK || a.id() == "" {
		h.t.Fatalf("%d: %s", a.status, a.raw)
	}
	return a.id()
}

const hello = `{"from":"Shop <shop@example.com>","to":"ann@example.net","subject":"Hello","text":"It works."}`

// What each SDK writes becomes the message that is meant.
func TestSend(t *testing.T) {
	t.Parallel()
	base := func(change func(m *mailer.EmailMessage)) *mailer.EmailMessage {
		m := &mailer.EmailMessage{FromEmail: "Shop <shop@example.com>", To: []string{"ann@example.net"}, Subject: "Hello", Body: "It works.", ContentSubtype: "plain"}
		if change != nil {
			change(m)
		}
		return m
	}
	file := func(name, kind, id string) *mailer.EmailMessage {
		return base(func(m *mailer.EmailMessage) {
			m.Attachments = []mailer.Attachment{{Filename: name, Content: []byte("hi\x00"), Mimetype: kind, ContentID: id}}
		})
	}
	tests := []struct {
		name, fields string // behind those of hello
		want         *mailer.EmailMessage
	}{
		{"least", ``, base(nil)},
		{"null is nothing", `"html":null,"cc":null,"headers":null,"attachments":null,"tags":null,"scheduled_at":null,"template":null,"react":null,"topic_id":null`, base(nil)},
		{"both bodies", `"html":"<b>It works.</b>"`, base(func(m *mailer.EmailMessage) {
			m.Alternatives = []mailer.Alternative{{Content: "<b>It works.</b>", Mimetype: "text/html"}}
		})},
		{"lists", `"cc":["c@example.net","Dan <d@example.net>"],"bcc":["e@example.net"],"reply_to":["f@example.net","g@example.net"]`, base(func(m *mailer.EmailMessage) {
			m.Cc, m.Bcc, m.ReplyTo = []string{"c@example.net", "Dan <d@example.net>"}, []string{"e@example.net"}, []string{"f@example.net", "g@example.net"}
		})},
		{"strings", `"cc":"c@example.net","bcc":"e@example.net","reply_to":"f@example.net"`, base(func(m *mailer.EmailMessage) {
			m.Cc, m.Bcc, m.ReplyTo = []string{"c@example.net"}, []string{"e@example.net"}, []string{"f@example.net"}
		})},
		{"header", `"headers":{"X-Entity-Ref-ID":"123","List-Unsubscribe":"<https://example.com/u>"}`, base(func(m *mailer.EmailMessage) {
			m.Headers = map[string]string{"X-Entity-Ref-ID": "123", "List-Unsubscribe": "<https://example.com/u>"}
		})},
		{"base64", `"attachments":[{"filename":"a.bin","content":"aGkA"}]`, file("a.bin", "", "")},
		{"base64 without padding", `"attachments":[{"filename":"a.bin","content":"aGkA","content_type":null}]`, file("a.bin", "", "")},
		{"base64 in lines", `"attachments":[{"filename":"a.bin","content":"aG\r\nkA\n"}]`, file("a.bin", "", "")},
		{"list of bytes", `"attachments":[{"filename":"a.bin","content":[104,105,0],"content_type":"application/x-a"}]`, file("a.bin", "application/x-a", "")},
		{"Buffer", `"attachments":[{"filename":"a.bin","content":{"type":"Buffer","data":[104,105,0]},"content_id":"logo"}]`, file("a.bin", "", "logo")},
		{"no name", `"attachments":[{"filename":false,"content":"aGkA","inline_content_id":"logo"}]`, file("", "", "logo")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, Config{}, nil)
			body := hello
			if tt.fields != "" {
				body = strings.TrimSuffix(hello, "}") + "," + tt.fields + "}"
			}
			h.send(body)
			got := h.only("default")
			if got.MessageID == "" || got.Date.IsZero() || got.Charset != "utf-8" {
				t.Errorf("%+v is not complete", got)
			}
			got.MessageID, got.Date, got.Charset = "", time.Time{}, ""
			was, is := asJSON(t, tt.want), asJSON(t, got)
			if was != is {
				t.Errorf("got\n%s\nwant\n%s", is, was)
			}
		})
	}
}

func asJSON(t *testing.T, m *mailer.EmailMessage) string {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// HTML alone is the body.
func TestSend_html(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	h.send(`{"from":"shop@example.com","to":["ann@example.net"],"subject":"","html":"<b>x</b>","text":""}`)
	if m := h.only("default"); m.Body != "<b>x</b>" || m.ContentSubtype != "html" || len(m.Alternatives) != 0 {
		t.Errorf("%+v", m)
	}
}

// What is chosen waits as chosen, and its answer says so.
func TestSend_options(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, func(k *intake.Key) { k.Queue, k.Mailer = "bulk", "marketing" })
	id := h.send(strings.TrimSuffix(hello, "}") + `,"tags":[{"name":"category","value":"confirm_email"},{"name":"ab"}],"scheduled_at":"2099-12-24T18:00:00.500Z"}`)
	a := h.do(request{method: http.MethodGet, path: "/emails/" + id})
	if a.text("last_event") != "scheduled" || a.text("scheduled_at") != "2099-12-24T18:00:00Z" || a.text("state") != "scheduled" || a.body["created_at"] != nil {
		t.Errorf("%s", a.raw)
	}
	want := []any{map[string]any{"name": "category", "value": "confirm_email"}, map[string]any{"name": "ab", "value": ""}}
	if !reflect.DeepEqual(a.body["tags"], want) {
		t.Errorf("tags %v, want %v: the key's own is its own", a.body["tags"], want)
	}
	if m := h.only("marketing.bulk"); !m.Date.Equal(time.Date(2099, 12, 24, 18, 0, 0, 0, time.UTC)) {
		t.Errorf("dated %v", m.Date)
	}
}

// What is wrong is refused by name, and nothing is queued.
func TestSend_refused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, func(k *intake.Key) { k.From = intake.Senders{"example.com"} })
	with := func(fields string) string { return strings.TrimSuffix(hello, "}") + "," + fields + "}" }
	addresses, distinct := strings.Repeat(`"a@example.net",`, 1001), "0@example.net"
	for i := range 1000 {
		distinct += fmt.Sprintf(",%d@example.net", i+1)
	}
	tests := []struct {
		name, body string
		status     int
		error      string // its name
		field      string
		unlike     bool // the document says so too
	}{
		{"no JSON", `{"from":`, 400, nameValidation, "from", false},
		{"something behind it", hello + "x", 400, nameValidation, "body", false},
		{"a list", `[` + hello + `]`, 422, nameValidation, "body", true},
		{"unknown", with(`"sender":"x"`), 422, nameValidation, "sender", true},
		{"unknown in a file", with(`"attachments":[{"content":""},{"content":"","name":"x"}]`), 422, nameValidation, "attachments[1].name", true},
		{"in another letter case", with(`"Html":"x"`), 422, nameValidation, "Html", true},
		{"twice", with(`"text":"x"`), 422, nameValidation, "text", false},
		{"a number", with(`"html":7`), 422, nameValidation, "html", true},
		{"an object", with(`"cc":{"a":"b"}`), 422, nameValidation, "cc", true},
		{"a list in a list", with(`"cc":["a@example.net",["b"]]`), 422, nameValidation, "cc[1]", true},
		{"a header that is a number", with(`"headers":{"X-A":7}`), 422, nameValidation, "headers[X-A]", true},
		{"no UTF-8", with(`"html":"` + "\xff" + `"`), 400, nameValidation, "html", false},
		{"no sender", `{"to":"a@example.net","text":"x"}`, 422, nameMissingField, "from", true},
		{"no recipient", `{"from":"a@example.com","to":[],"text":"x"}`, 422, nameMissingField, "to", false},
		{"no body", `{"from":"a@example.com","to":["a@example.net"],"subject":"x"}`, 422, nameMissingField, "html", false},
		{"no address", `{"from":"a b@example.com","to":["a@example.net"],"text":"x"}`, 422, nameValidation, "from", false},
		{"second recipient", `{"from":"a@example.com","to":["a@example.net","b@"],"text":"x"}`, 422, nameValidation, "to[1]", false},
		{"a recipient without a domain", `{"from":"a@example.com","to":["a@example.net"],"cc":["Ann <ann>"],"text":"x"}`, 422, nameValidation, "cc[0]", false},
		{"a sender without a domain", `{"from":"Shop","to":["a@example.net"],"text":"x"}`, 422, nameValidation, "from", false},
		{"a blind copy without a domain", with(`"headers":{"bcc":"a@example.net, root"}`), 422, nameValidation, "to", false},
		{"many blind copies", with(`"headers":{"Bcc":"` + distinct + `"}`), 422, nameValidation, "to", false},
		{"a field with a long name", with(`"` + strings.Repeat("x", 1000) + `":1`), 422, nameValidation, strings.Repeat("x", 120) + "…", true},
		{"a deep one", with(`"template":` + strings.Repeat("[", 20_000)), 400, nameValidation, "template" + strings.Repeat("[0]", 37) + "[…", false},
		{"many recipients", `{"from":"a@example.com","to":[` + strings.TrimSuffix(addresses, ",") + `],"text":"x"}`, 422, nameValidation, "to", false},
		{"a header of its own", with(`"headers":{"X-A":"a\r\nBcc: b@example.net"}`), 422, nameValidation, "headers[X-A]", false},
		{"a line in the subject", `{"from":"a@example.com","to":"a@example.net","subject":"a\nb","text":"x"}`, 422, nameValidation, "subject", false},
		{"a file's type", with(`"attachments":[{"filename":"a","content":"","content_type":"x"}]`), 422, nameValidation, "attachments[0].content_type", false},
		{"a file's name", with(`"attachments":[{"filename":"a\n","content":""}]`), 422, nameValidation, "attachments[0].filename", false},
		{"no base64", with(`"attachments":[{"filename":"a","content":"*"}]`), 422, nameValidation, "attachments[0].content", false},
		{"a data URL", with(`"attachments":[{"filename":"a.png","content":"data:image/png;base64,aGkA"}]`), 422, nameValidation, "attachments[0].content", false},
		{"a file as it is", with(`"attachments":[{"filename":"a.pdf","content":"%PDF-1.3\n"}]`), 422, nameValidation, "attachments[0].content", false},
		{"no bytes", with(`"attachments":[{"filename":"a","content":[1,256]}]`), 422, nameValidation, "attachments[0].content", true},
		{"no Buffer", with(`"attachments":[{"filename":"a","content":{"type":"Blob","data":[]}}]`), 422, nameValidation, "attachments[0].content", true},
		{"no content", with(`"attachments":[{"filename":"a"}]`), 422, nameAttachment, "attachments[0].content", true},
		{"a file elsewhere", with(`"attachments":[{"filename":"a","path":"http://169.254.169.254/latest/meta-data/"}]`), 422, nameNotSupported, "attachments[0].path", true},
		{"a file elsewhere beside one that is here", with(`"attachments":[{"filename":"a","content":"","path":"file:///etc/passwd"}]`), 422, nameNotSupported, "attachments[0].path", true},
		{"two content IDs", with(`"attachments":[{"content":"","content_id":"a","inline_content_id":"b"}]`), 422, nameValidation, "attachments[0].inline_content_id", false},
		{"template", with(`"template":{"id":"welcome"}`), 422, nameNotSupported, "template", true},
		{"react", with(`"react":{}`), 422, nameNotSupported, "react", true},
		{"topic", with(`"topic_id":"x"`), 422, nameNotSupported, "topic_id", true},
		{"time in words", with(`"scheduled_at":"tomorrow at 9am"`), 422, nameNotSupported, "scheduled_at", false},
		{"time without a zone", with(`"scheduled_at":"2026-12-24T18:00:00"`), 422, nameNotSupported, "scheduled_at", false},
		{"tag without a name", with(`"tags":[{"value":"x"}]`), 422, nameMissingField, "tags[0].name", true},
		{"tag with a blank", with(`"tags":[{"name":"a","value":"a b"}]`), 422, nameValidation, "tags[0].value", true},
		{"tag of a key", with(`"tags":[{"name":"api-key","value":"bank"}]`), 403, nameRestrictedKey, "tags", false},
		{"many tags", with(`"tags":[` + strings.TrimSuffix(strings.Repeat(`{"name":"a","value":"b"},`, 9), ",") + `]`), 422, nameValidation, "tags", false},
		{"somebody else", `{"from":"ceo@example.org","to":"a@example.net","text":"x"}`, 403, nameValidation, "from", false},
		{"somebody else in a header", with(`"headers":{"From":"ceo@example.org"}`), 403, nameValidation, "from", false},
		{"too big for the queue", with(`"html":"` + strings.Repeat("a", 6<<20) + `"`), 422, nameValidation, "html", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := h.do(request{method: http.MethodPost, path: "/emails", body: tt.body, unlike: tt.unlike})
			if a.status != tt.status || a.text("name") != tt.error || a.text("field") != tt.field || a.text("message") == "" || a.body["statusCode"] != float64(tt.status) {
				t.Errorf("%d %s, want %d, %s and the field %s", a.status, a.raw, tt.status, tt.error, tt.field)
			}
		})
	}
	if n := h.tasks(); n != 0 {
		t.Errorf("%d tasks, want none", n)
	}
}

// A key that lets its client choose neither tags nor a schedule says so of what an SDK sends.
func TestSend_choices(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, func(k *intake.Key) { k.Choices = nil })
	for field, fields := range map[string]string{"scheduled_at": `"scheduled_at":"in 1 hour"`, "tags": `"tags":[{"name":"a","value":"b"}]`} {
		a := h.do(request{method: http.MethodPost, path: "/emails", body: strings.TrimSuffix(hello, "}") + "," + fields + "}"})
		if a.status != http.StatusForbidden || a.text("name") != nameRestrictedKey || a.text("field") != field {
			t.Errorf("%d %s, want that %s is not allowed", a.status, a.raw, field)
		}
	}
	a := h.do(request{method: http.MethodPatch, path: "/emails/" + h.send(hello), body: soon})
	if a.status != http.StatusForbidden || a.text("name") != nameRestrictedKey || a.text("field") != "scheduled_at" {
		t.Errorf("another time: %d %s", a.status, a.raw)
	}
}

// The same request with a key is the same email, whatever became of it, and another one is refused. Keys belong to the client.
func TestSend_idempotencyKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	id := h.send(hello, headerKey, "order/7")
	for _, body := range []string{hello, strings.Replace(hello, ",", ", ", 1), strings.TrimSuffix(hello, "}") + `,"cc":null}`} {
		if again := h.send(body, headerKey, "order/7"); again != id {
			t.Errorf("ID %s, want %s", again, id)
		}
	}
	other := request{method: http.MethodPost, path: "/emails", body: strings.Replace(hello, "works", "fails", 1), header: map[string]string{headerKey: "order/7"}}
	if a := h.do(other); a.status != http.StatusConflict || a.text("name") != nameIdempotentRequest || strings.Contains(a.raw, id) {
		t.Errorf("%d %s", a.status, a.raw)
	}
	other.secret = h.other
	if a := h.do(other); a.status != http.StatusOK || a.id() == id {
		t.Errorf("another client: %d %s", a.status, a.raw)
	}
	r := new(relay)
	r.answer = func(*mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Text: "no such user"}}
	}
	h.work(r)
	h.eventually("a dead letter", func() bool {
		return h.do(request{method: http.MethodGet, path: "/emails/" + id}).text("last_event") == "failed"
	})
	if again := h.send(hello, headerKey, "order/7"); again != id {
		t.Errorf("of a dead letter: ID %s, want %s", again, id)
	}
}

func TestSend_wrongKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	for _, key := range []string{" ", strings.Repeat("a", 257), "a\tb", "a\xffb"} {
		for _, path := range []string{"/emails", "/emails/batch", "/messages"} {
			a := h.do(request{method: http.MethodPost, path: path, body: "{}", header: map[string]string{headerKey: key}})
			if a.status != http.StatusBadRequest || a.text("name") != nameIdempotencyKey || a.text("field") != headerKey {
				t.Errorf("%s with %q: %d %s", path, key, a.status, a.raw)
			}
		}
	}
	h.send(hello, headerKey, strings.Repeat("é", 256))
}

func TestWhen(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		text string
		want time.Duration // from now, negative: not understood
	}{
		{"in 1 min", time.Minute}, {"in 2 hours", 2 * time.Hour}, {"In an Hour", time.Hour}, {"in 30 seconds", 30 * time.Second}, {" in  3 days ", 72 * time.Hour},
		{"in a week", 7 * 24 * time.Hour}, {"in 5m", 5 * time.Minute}, {"in 10 mins", 10 * time.Minute},
		{"2026-11-27T13:00:00+01:00", 0}, {"2026-11-27T12:00:00.001Z", time.Millisecond},
		{"in 1 month", -1}, {"tomorrow", -1}, {"Friday at 3pm ET", -1}, {"in 1.5 hours", -1}, {"in -1 min", -1}, {"in 9999999 days", -1}, {"1 min", -1},
		{"2026-11-27 12:00:00Z", -1}, {"1764244800", -1}, {"in", -1}, {"in 15000 weeks", 15000 * 7 * 24 * time.Hour},
	}
	for _, text := range []string{"in 999999 weeks", "in 20000 weeks", "in 200000 days"} { // an overflow would mean now
		if at, err := when(text, now); err == nil || err.Field != "scheduled_at" {
			t.Errorf("%q: %v, %v, want an error", text, at, err)
		}
	}
	for _, tt := range tests {
		got, err := when(tt.text, now)
		switch {
		case tt.want < 0 && (err == nil || err.Name != nameNotSupported || err.Field != "scheduled_at"):
			t.Errorf("%q: %v, %v, want an error", tt.text, got, err)
		case tt.want >= 0 && (err != nil || got.Sub(now) != tt.want):
			t.Errorf("%q: %v, %v, want %v", tt.text, got.Sub(now), err, tt.want)
		}
	}
}

// Every state has a word of Resend's, and each of them is in the document.
func TestLastEvents(t *testing.T) {
	t.Parallel()
	d := document(t)
	for state, event := range lastEvents {
		for _, field := range []string{"state", "last_event"} {
			value := map[string]string{"state": string(state), "last_event": event}[field]
			d.check(t, "#/components/schemas/EmailStatus/properties/"+field, fmt.Sprintf("%q", value))
		}
	}
	if len(lastEvents) != 13 || lastEvents[tasks.StateSent] != "sent" {
		t.Errorf("%d states", len(lastEvents))
	}
}
