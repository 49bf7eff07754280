package wire

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// An outline says of every payload that can be decoded the same as Decode.
func TestReadOutline_golden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "payload-v1-*.json"))
	if err != nil || len(files) < len(goldenPayloads()) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Decode(data, nil)
			if err != nil {
				t.Fatal(err)
			}
			o, ok := ReadOutline(data)
			if !ok || !o.Readable {
				t.Fatal("it cannot be read")
			}
			if got, want := fmt.Sprintf("%+v", o), fmt.Sprintf("%+v", outlineOf(p)); got != want {
				t.Errorf("outline\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// outlineOf makes the outline of a payload.
func outlineOf(p *Payload) Outline {
	m := p.Message
	size := func(part string, index int, content []byte) int {
		i := slices.IndexFunc(p.Blobs, func(b Blob) bool { return b.Part == part && b.Index == index })
		if i < 0 {
			return len(content)
		}
		return p.Blobs[i].Size
	}
	o := Outline{
		Using: p.Using, DueAt: p.DueAt, AtMostOnce: p.AtMostOnce, Recipients: p.Recipients, Refused: p.Refused, Tags: p.Tags, Mailing: p.Mailing, Readable: true,
		Subject: m.Subject, From: m.FromEmail, To: m.To, Cc: m.Cc, Bcc: m.Bcc, ContentSubtype: m.ContentSubtype, MessageID: m.MessageID,
		Body: size(PartBody, 0, []byte(m.Body)), Raw: size(PartRaw, 0, m.Raw), RawHead: m.Raw,
	}
	if p.Deadline != nil {
		o.Deadline = *p.Deadline
	}
	for i, a := range m.Alternatives {
		o.Alternatives = append(o.Alternatives, OutlinePart{Mimetype: a.Mimetype, Size: size(PartAlternative, i, []byte(a.Content))})
	}
	for i, a := range m.Attachments {
		o.Attachments = append(o.Attachments, OutlinePart{Name: a.Filename, Mimetype: a.Mimetype, Size: size(PartAttachment, i, a.Content)})
	}
	return o
}

// What is broken in a payload hides nothing else of it.
func TestReadOutline_partlyBroken(t *testing.T) {
	t.Parallel()
	o, ok := ReadOutline([]byte(`{"version":99,"due_at":"soon","using":["x"],"refused":"no","message":{"subject":"Hi","to":[1,"ann@example.com",null],"body":{},"colour":"red"}}`))
	if !ok || !o.DueAt.IsZero() || o.Using != "" || o.Refused != "no" || o.Subject != "Hi" || !slices.Equal(o.To, []string{"ann@example.com"}) || o.Body != 0 {
		t.Errorf("%+v, %v", o, ok)
	}
}

// What is kept of a result is read as it was written.
func TestReadResult(t *testing.T) {
	t.Parallel()
	refused := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: "bob@example.com", Code: 550, Text: "no"}
	kept := NewResult(mailer.Result{Reply: "250 Ok", Refused: []*mailer.SendError{refused}})
	data, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := ReadResult(data)
	if !ok || r.Reply != "250 Ok" || !slices.Equal(r.Refused, []string{refused.Error()}) {
		t.Errorf("%+v, %v", r, ok)
	}
	if _, ok := ReadResult([]byte(`[{"reply":"250 Ok"}]`)); ok {
		t.Error("a list is a result")
	}
}

// A record brings back the result that it was made of.
func TestRecord(t *testing.T) {
	t.Parallel()
	want := mailer.Result{Reply: "250 Ok", Refused: []*mailer.SendError{
		{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: "bob@example.com", Code: 550, Enhanced: "5.1.1", Text: "no"},
		{Class: mailer.Temporary, Step: mailer.StepRcpt, Recipient: "eve@example.com", Code: 450, Text: "later"},
	}}
	data, err := NewRecord(want).Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := DecodeRecord(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := NewResult(r.Result()); got.Reply != want.Reply || !slices.Equal(got.Refused, NewResult(want).Refused) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := DecodeRecord("x"); err == nil {
		t.Error("x is a record")
	}
}
