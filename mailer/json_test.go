package mailer_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

const zeroJSON = `{"subject":"","body":"","from_email":"","to":[],"cc":[],"bcc":[],"reply_to":[],` +
	`"headers":{},"content_subtype":"plain","charset":"","attachments":[],"alternatives":[],` +
	`"message_id":"","date":"","fail_silently":false}`

const fullJSON = `{"subject":"a \"b\" \\ \u0000\n\r\t","body":"Grüße\n","from_email":"a@example.com",` +
	`"to":["A <a@example.com>","b@example.com"],"cc":["c@example.com"],"bcc":["d@example.com"],"reply_to":["e@example.com"],` +
	`"headers":{"X-A":"1","X-B":"2"},"content_subtype":"html","charset":"utf-8",` +
	`"attachments":[{"filename":"a.bin","content":"AP8=","mimetype":"image/png","content_id":"x"},{"filename":"","content":"","mimetype":"","content_id":""}],` +
	`"alternatives":[{"content":"<p>","mimetype":"text/html"}],` +
	`"message_id":"<x@example.com>","date":"2026-01-02T03:04:05+02:00","fail_silently":true}`

func fullMessage() mailer.EmailMessage {
	return mailer.EmailMessage{
		Subject: "a \"b\" \\ \x00\n\r\t", Body: "Gr\u00fc\u00dfe\n", FromEmail: "a@example.com",
		To: []string{"A <a@example.com>", "b@example.com"}, Cc: []string{"c@example.com"},
		Bcc: []string{"d@example.com"}, ReplyTo: []string{"e@example.com"},
		Headers: map[string]string{"X-B": "2", "X-A": "1"}, ContentSubtype: "html", Charset: "utf-8",
		Attachments:  []mailer.Attachment{{Filename: "a.bin", Content: []byte{0, 255}, Mimetype: "image/png", ContentID: "x"}, {}},
		Alternatives: []mailer.Alternative{{Content: "<p>", Mimetype: "text/html"}},
		MessageID:    "<x@example.com>", Date: time.Date(2026, 1, 2, 3, 4, 5, 999, time.FixedZone("", 2*3600)), FailSilently: true,
	}
}

func TestMarshalJSON(t *testing.T) {
	tests := []struct {
		name    string
		message mailer.EmailMessage
		want    string
	}{
		{"zero", mailer.EmailMessage{}, zeroJSON},
		{"full", fullMessage(), fullJSON},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.message.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got\n%s, want\n%s", got, tt.want)
			}
			for _, v := range []any{tt.message, &tt.message} {
				if through, err := json.Marshal(v); err != nil || !equalJSON(t, through, got) {
					t.Errorf("json.Marshal(%T): got\n%s, %v", v, through, err)
				}
			}
		})
	}
}

func equalJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		t.Fatalf("not JSON: %s, %s", a, b)
	}
	return reflect.DeepEqual(x, y)
}

func TestMarshalJSON_refuses(t *testing.T) {
	tests := []struct {
		field   string
		message mailer.EmailMessage
	}{
		{"subject", mailer.EmailMessage{Subject: "\xff"}},
		{"body", mailer.EmailMessage{Body: "\xff"}},
		{"cc[1]", mailer.EmailMessage{Cc: []string{"", "\xff"}}},
		{"headers", mailer.EmailMessage{Headers: map[string]string{"\xff": ""}}},
		{"headers[X]", mailer.EmailMessage{Headers: map[string]string{"X": "\xff"}}},
		{"attachments[1].filename", mailer.EmailMessage{Attachments: []mailer.Attachment{{}, {Filename: "\xff"}}}},
		{"alternatives[0].content", mailer.EmailMessage{Alternatives: []mailer.Alternative{{Content: "\xff"}}}},
		{"date", mailer.EmailMessage{Date: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}},
	}
	for _, tt := range tests {
		t.Run(tt.field, func(t *testing.T) {
			_, err := tt.message.MarshalJSON()
			wantBadInput(t, err, tt.field, false)
		})
	}
}

func TestUnmarshalJSON(t *testing.T) {
	want := fullMessage()
	tests := []struct {
		name string
		json string
		want mailer.EmailMessage
	}{
		{"full", fullJSON, want},
		{"indented", indented(t, fullJSON), want},
		{"empty", " {} \n", mailer.EmailMessage{}},
		{"nulls", `{"subject": null, "to": null, "headers": null, "attachments": null, "alternatives": null, "date": null, "fail_silently": null}`, mailer.EmailMessage{}},
		{"null in a list", `{"to": [null, "a"]}`, mailer.EmailMessage{To: []string{"", "a"}}},
		{"null in an attachment", `{"attachments": [{"content": "", "filename": null}]}`, mailer.EmailMessage{Attachments: []mailer.Attachment{{}}}},
		{"empty contents", `{"attachments": [{"content": ""}], "alternatives": [{"mimetype": "text/html", "content": ""}]}`,
			mailer.EmailMessage{Attachments: []mailer.Attachment{{}}, Alternatives: []mailer.Alternative{{Mimetype: "text/html"}}}},
		{"escapes", `{"subject": "\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u2028"}`, mailer.EmailMessage{Subject: "\"\\/\b\f\n\r\t\u00e9\U0001F600\u2028"}},
		{"escapes in base64", `{"attachments": [{"content": "\/\/8\u003d"}]}`, mailer.EmailMessage{Attachments: []mailer.Attachment{{Content: []byte{255, 255}}}}},
		{"escapes in a key", `{"sub\u006aect": "x"}`, mailer.EmailMessage{Subject: "x"}},
		{"the last one counts", `{"subject": "a", "subject": "b"}`, mailer.EmailMessage{Subject: "b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := mailer.EmailMessage{Subject: "from before", To: []string{"before"}}
			if err := json.Unmarshal([]byte(tt.json), &got); err != nil {
				t.Fatal(err)
			}
			if !got.Date.Equal(tt.want.Date.Truncate(time.Second)) {
				t.Errorf("got date %v, want %v", got.Date, tt.want.Date)
			}
			got.Date, tt.want.Date = time.Time{}, time.Time{}
			for i, a := range got.Attachments { // no content is nil or empty
				got.Attachments[i].Content = append([]byte(nil), a.Content...)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%+v, want\n%+v", got, tt.want)
			}
		})
	}
}

func indented(t *testing.T, s string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(v, " ", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestUnmarshalJSON_refuses(t *testing.T) {
	tests := []struct {
		name  string
		json  string
		field string
	}{
		{"null", `null`, "message"},
		{"list", `[]`, "message"},
		{"string", `"x"`, "message"},
		{"nothing", ``, "message"},
		{"cut off", `{"subject": "a`, "message"},
		{"cut off in an escape", `{"subject": "a\`, "message"},
		{"cut off in a code unit", `{"subject": "a\u00`, "message"},
		{"cut off after a key", `{"subject"`, "message"},
		{"cut off in a list", `{"to": ["a"`, "message"},
		{"two messages", `{} {}`, "message"},
		{"comma at the end", `{"subject": "a",}`, "message"},
		{"no comma", `{"subject": "a" "body": "b"}`, "message"},
		{"no colon", `{"subject" "a"}`, "message"},
		{"bare key", `{subject: "a"}`, "message"},
		{"raw newline", "{\"subject\": \"a\nb\"}", "message"},
		{"bad escape", `{"subject": "\x"}`, "message"},
		{"bad code unit", `{"subject": "\u00g0"}`, "message"},
		{"signed code unit", `{"subject": "\u+041"}`, "message"},
		{"nonsense value", `{"subject": x}`, "message"},
		{"unknown field", `{"subjekt": "a"}`, "subjekt"},
		{"unknown field of two lines", `{"a\nb": "a"}`, `"a\nb"`},
		{"header of two lines", `{"headers": {"a\nb": 1}}`, `headers["a\nb"]`},
		{"field in capitals", `{"Subject": "a"}`, "Subject"},
		{"number for text", `{"subject": 1}`, "subject"},
		{"object for text", `{"body": {}}`, "body"},
		{"text for list", `{"to": "a@example.com"}`, "to"},
		{"number in list", `{"to": ["a", 1]}`, "to[1]"},
		{"list for headers", `{"headers": []}`, "headers"},
		{"number in headers", `{"headers": {"X-A": 1}}`, "headers[X-A]"},
		{"text for bool", `{"fail_silently": "true"}`, "fail_silently"},
		{"bad date", `{"date": "yesterday"}`, "date"},
		{"bad base64", `{"attachments": [{"content": ""}, {"content": "?"}]}`, "attachments[1].content"},
		{"attachment without content", `{"attachments": [{"content": ""}, {"filename": "a"}]}`, "attachments[1].content"},
		{"null for the content of an attachment", `{"attachments": [{"content": null}]}`, "attachments[0].content"},
		{"null after the content of an attachment", `{"attachments": [{"content": "", "content": null}]}`, "attachments[0].content"},
		{"number for the content of an attachment", `{"attachments": [{"content": 1}]}`, "attachments[0].content"},
		{"alternative without content", `{"alternatives": [{"mimetype": "text/html"}]}`, "alternatives[0].content"},
		{"null for the content of an alternative", `{"alternatives": [{"mimetype": "text/html", "content": null}]}`, "alternatives[0].content"},
		{"unknown field of an attachment", `{"attachments": [{"name": "a"}]}`, "attachments[0].name"},
		{"unknown field of an alternative", `{"alternatives": [{"name": "a"}]}`, "alternatives[0].name"},
		{"text for attachment", `{"attachments": ["a"]}`, "attachments[0]"},
		{"null for alternative", `{"alternatives": [null]}`, "alternatives[0]"},
		{"not UTF-8", "{\"subject\": \"\xff\"}", "subject"},
		{"half a surrogate pair", `{"subject": "\ud83d"}`, "subject"},
		{"two first halves", `{"subject": "\ud83d\ud83d"}`, "subject"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := mailer.EmailMessage{Subject: "from before"}
			err := m.UnmarshalJSON([]byte(tt.json))
			wantBadInput(t, err, tt.field, false)
			if m.Subject != "from before" {
				t.Error("the message was changed")
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines: %v", err)
			}
		})
	}
}
