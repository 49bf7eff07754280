package pages

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
)

const mailPayload = `{"version":1,"using":"marketing","due_at":"2026-01-02T03:04:05Z","at_most_once":true,"blobs":[{"attachment":1,"sha256":"00","size":2500000}],` +
	`"message":{"subject":"Hello ✓","body":"the-secret-body","from_email":"Shop <shop@example.com>","to":["ann@example.com","b@x.example","c@x.example","d@x.example","e@x.example"],` +
	`"cc":[],"bcc":["boss@example.com"],"reply_to":[],"headers":{"X-Token":"the-secret-header"},"content_subtype":"plain","charset":"utf-8",` +
	`"attachments":[{"filename":"a.txt","content":"dGhlLXNlY3JldC1hdHRhY2htZW50","mimetype":"text/plain","content_id":""},{"filename":"big.pdf","content":"","mimetype":"application/pdf","content_id":""}],` +
	`"alternatives":[{"content":"<p>the-secret-html</p>","mimetype":"text/html"}],"message_id":"<1@shop.example>","date":"","fail_silently":false}}`

func TestFormatter_payload(t *testing.T) {
	t.Parallel()
	got := formatter{}.payload(wire.TaskType, []byte(mailPayload))
	want := `{"subject":"Hello ✓","from":"s***@example.com","to":["a***@example.com","b***@x.example","c***@x.example","and 2 more"],` +
		`"bcc":["b***@example.com"],"body":"15 B, text/plain","alternatives":["22 B, text/html"],` +
		`"attachments":["a.txt: 21 B, text/plain","big.pdf: 2.5 MB, application/pdf"],"message_id":"<1@shop.example>",` +
		`"mailer":"marketing","due_at":"2026-01-02T03:04:05Z","at_most_once":"yes","size":"` + size(len(mailPayload)) + `"}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := (formatter{redact.View{Addresses: true}}).payload(wire.TaskType, []byte(mailPayload)); !strings.Contains(got, `"to":["ann@example.com","b@x.example"`) {
		t.Errorf("addresses are not in full: %s", got)
	}
	if !json.Valid([]byte(got)) {
		t.Errorf("not JSON: %s", got)
	}
}

func TestFormatter_payload_bulk(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	for i := range 100 {
		fmt.Fprintf(&lines, `{"version":1,"due_at":"2026-01-02T03:04:05Z","message":{"subject":"News %d","to":["reader%d@example.com"],"body":"the-secret-body"}}`+"\n", i, i)
	}
	got := formatter{}.payload(wire.TaskTypeBulk, []byte(lines.String()))
	for _, want := range []string{`{"messages":100,`, `"subject":"News 4"`, `"to":["r***@example.com"]`, `"size":"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(got, "News 5") || strings.Contains(got, "secret") {
		t.Errorf("it shows too much: %s", got)
	}
}

func TestFormatter_payload_raw(t *testing.T) {
	t.Parallel()
	raw := "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nTo: ann@example.com\r\n\r\nthe-secret-body\r\n" + strings.Repeat("x", 20_000)
	data := fmt.Sprintf(`{"version":1,"message":{"subject":"","to":["ann@example.com"],"raw":%q}}`, base64.StdEncoding.EncodeToString([]byte(raw)))
	got := formatter{}.payload(wire.TaskType, []byte(data))
	if !strings.Contains(got, `"subject":"Grüße"`) || !strings.Contains(got, `"raw":"20.1 kB"`) {
		t.Errorf("got %s", got)
	}
}

// What is stored beside the queue counts for the part that it is of, and for no other.
func TestFormatter_payload_blobs(t *testing.T) {
	t.Parallel()
	const one = `{"version":1,"due_at":"2026-01-02T03:04:05Z","blobs":[%s],"message":{"body":"","content_subtype":"plain",` +
		`"attachments":[{"filename":"a.txt","content":"aGk=","mimetype":"text/plain"}],"alternatives":[{"content":"hi","mimetype":"text/html"}]}}`
	const body, alternative, attachment = `"body":"5.0 MB, text/plain",`, `"alternatives":["2 B, text/html"]`, `"attachments":["a.txt: 2 B, text/plain"]`
	for _, tt := range []struct{ name, blobs, want string }{
		{"none", ``, alternative + "," + attachment},
		{"the body", `{"part":"body","attachment":0,"sha256":"00","size":5000000}`, body + alternative + "," + attachment},
		{"the attachment", `{"attachment":0,"sha256":"00","size":5000000}`, alternative + `,"attachments":["a.txt: 5.0 MB, text/plain"]`},
		{"the alternative", `{"part":"alternative","attachment":0,"sha256":"00","size":5000000}`, `"alternatives":["5.0 MB, text/html"],` + attachment},
		{"a raw message", `{"part":"raw","attachment":0,"sha256":"00","size":5000000}`, `"raw":"5.0 MB",` + alternative + "," + attachment},
		{"anything else", `{"part":"subject","attachment":0,"size":5},{"attachment":-1,"size":5},{"attachment":9,"size":5}`, alternative + "," + attachment},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := fmt.Sprintf(one, tt.blobs)
			want := "{" + tt.want + `,"due_at":"2026-01-02T03:04:05Z","size":"` + size(len(data)) + `"}`
			if got := (formatter{}).payload(wire.TaskType, []byte(data)); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Nothing that a task may hold makes the formatter panic or show more than it should.
func TestFormatter_payload_hostile(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, kind, give, want string }{
		{"nothing", wire.TaskType, "", `{"payload":"cannot be read as mail","size":"0 B"}`},
		{"no JSON", wire.TaskType, "\x00\xff<script>", `{"payload":"cannot be read as mail","size":"10 B"}`},
		{"another type of JSON", wire.TaskType, "[1,2]", `{"payload":"cannot be read as mail","size":"5 B"}`},
		{"cut off", wire.TaskType, mailPayload[:200], `{"payload":"cannot be read as mail","size":"200 B"}`},
		{"no message", wire.TaskType, `{"version":1}`, `{"payload":"cannot be read as mail","size":"13 B"}`},
		{"a message that is none", wire.TaskType, `{"message":[]}`, `{"message":"cannot be read as mail","size":"14 B"}`},
		{"wrong types everywhere", wire.TaskType, `{"using":1,"due_at":{},"recipients":"x","blobs":7,"message":{"subject":[],"to":{"a":1},"cc":[1,null,"c@x"],"body":3,"attachments":{},"alternatives":[[]]}}`,
			`{"cc":["c***@x"],"size":"154 B"}`},
		{"markup and controls", wire.TaskType, `{"message":{"subject":"<script>alert(1)</script>\u001b[2J\u202e\r\nBcc: x"}}`,
			`{"subject":"<script>alert(1)</script> [2J  Bcc: x","size":"76 B"}`},
		{"other people's task", "payment:charge", `{"card":"4111"}`, `{"payload":"is no mail","size":"15 B"}`},
		{"mass of nothing", wire.TaskTypeBulk, "", `{"messages":0,"first":null,"size":"0 B"}`},
		{"mass of anything", wire.TaskTypeBulk, "x\n{}\n", `{"messages":2,"first":[{"payload":"cannot be read as mail"},{"payload":"cannot be read as mail"}],"size":"5 B"}`},
		{"deep", wire.TaskType, `{"message":{"to":` + strings.Repeat("[", 50_000), `{"payload":"cannot be read as mail","size":"50.0 kB"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := (formatter{}).payload(tt.kind, []byte(tt.give)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestFormatter_result(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, give, want string }{
		{"nothing", "", ""},
		{"a reply", `{"reply":"250 Ok <ann@example.com>","refused":["RCPT <bob@example.com>: 550"]}`, `{"reply":"250 Ok <a***@example.com>","refused":["RCPT <b***@example.com>: 550"]}`},
		{"anything", "\xff", `{"size":"1 B"}`},
	} {
		if got := (formatter{}).result(wire.TaskType, []byte(tt.give)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzFormatter_payload(f *testing.F) {
	f.Add(true, []byte(mailPayload))
	f.Add(false, []byte(mailPayload+"\n"+mailPayload))
	f.Add(true, []byte(`{"message":{"raw":"U3ViamVjdDogeA=="}}`))
	f.Fuzz(func(t *testing.T, single bool, data []byte) {
		kind := wire.TaskType
		if !single {
			kind = wire.TaskTypeBulk
		}
		if got := (formatter{}).payload(kind, data); !json.Valid([]byte(got)) || len(got) > 40_000 {
			t.Errorf("%q becomes %s", data, got)
		}
		if got := (formatter{}).result(kind, data); len(data) > 0 && !json.Valid([]byte(got)) {
			t.Errorf("the result %q becomes %s", data, got)
		}
	})
}

// A part without a type leaves no comma where its type would stand.
func TestFormatter_payload_noType(t *testing.T) {
	t.Parallel()
	const data = `{"version":1,"message":{"body":"hi","to":["a@example.com"],"attachments":[{"filename":"a.txt","content":"aGk="},{"content":"aGk="}],"alternatives":[{"content":"hi"}]}}`
	got := formatter{}.payload(wire.TaskType, []byte(data))
	if want := `"alternatives":["2 B"],"attachments":["a.txt: 2 B","without a name: 2 B"]`; !strings.Contains(got, want) {
		t.Errorf("no %s in %s", want, got)
	}
}
