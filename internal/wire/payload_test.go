package wire

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// update writes the golden files anew: go test ./internal/wire -run Payload -update. A change
// of them means that workers and producers of different versions no longer agree:
// then version has to grow.
var update = flag.Bool("update", false, "write the golden files")

func goldenPayloads() map[string]*Payload {
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	plain := &mailer.EmailMessage{
		Subject: "Grüße", Body: "It works.\n", FromEmail: "App <app@example.com>", To: []string{"ann@example.com"},
		Charset: "utf-8", MessageID: "<1@example.com>", Date: date,
	}
	full := *plain
	full.Cc, full.Bcc, full.ReplyTo = []string{"c@example.com"}, []string{"b@example.com"}, []string{"r@example.com"}
	full.Headers = map[string]string{"X-Campaign": "spring"}
	full.ContentSubtype = "html"
	full.FailSilently = true
	full.Attach("a.txt", []byte("file"), "text/plain")
	full.AttachAlternative("<p>It works.</p>", "text/html")
	// The attachment of a blob is empty in the payload, whatever it is in the message.
	big := full
	big.Attachments = []mailer.Attachment{{Filename: "a.txt", Content: []byte("file"), Mimetype: "text/plain"}, {Filename: "b.pdf"}}
	parts := big
	parts.Attachments, parts.Body, parts.Alternatives = nil, "", []mailer.Alternative{{Content: "<p>It works.</p>", Mimetype: "text/html"}, {Mimetype: "text/html"}}
	return map[string]*Payload{
		"blobs-parts": {Meta{DueAt: date, BlobRef: "ABCDEFGHIJ", Blobs: []Blob{
			{Part: PartAlternative, Index: 1, Hash: strings.Repeat("0a", 32), Size: 1 << 20},
			{Part: PartBody, Hash: strings.Repeat("0b", 32), Size: 100_000},
		}}, &parts, nil},
		"blobs-raw": {Meta{DueAt: date, BlobRef: "ABCDEFGHIJ", Blobs: []Blob{
			{Part: PartRaw, Hash: strings.Repeat("0c", 32), Size: 1 << 20},
		}}, &mailer.EmailMessage{FromEmail: "app@example.com", To: []string{"ann@example.com"}, Charset: "utf-8", MessageID: "<1@example.com>", Date: date}, nil},
		"blobs":   {Meta{DueAt: date, Blobs: []Blob{{Index: 1, Hash: strings.Repeat("0a", 32), Size: 1 << 20}}, BlobRef: "ABCDEFGHIJ"}, &big, nil},
		"plain":   {Meta{DueAt: date}, plain, nil},
		"mailing": {Meta{DueAt: date, Mailing: "spring-2026"}, plain, nil},
		"full":    {Meta{DueAt: date, Deadline: new(date.Add(time.Hour)), AtMostOnce: true, KeepResult: true}, &full, nil},
		"tagged":  {Meta{DueAt: date, Tags: []string{"invoice", "to \"Grüße\",\"message\":"}, Mailing: "spring-2026"}, plain, nil},
		"keyed":   {Meta{DueAt: date, Digest: "zvwhtey5eshf5sf5eqff2re6"}, plain, nil},
		"rest": {Meta{
			DueAt: date, Recipients: []string{"ann@example.com"},
			Refused: `RCPT <ann@example.com>: 550 5.1.1 no such user,"message":`,
		}, plain, nil},
	}
}

func TestPayload_golden(t *testing.T) {
	t.Parallel()
	for name, p := range goldenPayloads() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := p.Encode()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", fmt.Sprintf("payload-v%d-%s.json", p.lowest(), name))
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if want = bytes.TrimSpace(want); !bytes.Equal(got, want) {
				t.Errorf("encoded\n%s\nwant\n%s", got, want)
			}
			back, err := Decode(want, nil)
			if err != nil {
				t.Fatal(err)
			}
			again, err := back.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, want) {
				t.Errorf("decoded and encoded again\n%s\nwant\n%s", again, want)
			}
		})
	}
}

// What programs wrote before a payload of a mailing, or with tags, had a version of its own is read as it was meant.
func TestPayload_before(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mailing", "tagged"} {
		data, err := os.ReadFile(filepath.Join("testdata", "payload-v1-"+name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := goldenPayloads()[name]
		want.Version = versionFirst
		if !reflect.DeepEqual(got.Meta, want.Meta) || got.Message.Subject != want.Message.Subject {
			t.Errorf("%s is read as %+v, want %+v", data, got.Meta, want.Meta)
		}
	}
}

func TestDecode_refuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, give, want string }{
		{"no JSON", "hello", "payload"},
		{"no version", `{}`, "version 0"},
		{"cut off", `{"version": 1,"message":{"subject": "x"`, "payload"},
		{"more behind it", `{"version":1,"message":{}} {"message":{}}`, "payload"},
		{"a newer version", `{"version":4,"colour":"red","message":{}}`, "upgrade"},
		{"no message", `{"version": 1}`, "no message"},
		{"an unknown field", `{"version":1,"priority":1,"message":{}}`, "unknown field"},
		{"a blob of no attachment", `{"version":1,"blobs":[{"attachment":0,"sha256":"0a","size":1}],"message":{}}`, "blob"},
		{"a blob before the first", `{"version":1,"blobs":[{"attachment":-1,"sha256":"0a","size":1}],"message":{}}`, "blob"},
		{"a blob of no alternative", `{"version":1,"blobs":[{"part":"alternative","attachment":0,"sha256":"0a","size":1}],"message":{}}`, "alternative"},
		{"a blob of a second body", `{"version":1,"blobs":[{"part":"body","attachment":1,"sha256":"0a","size":1}],"message":{}}`, "body"},
		{"a blob of an unknown part", `{"version":1,"blobs":[{"part":"subject","attachment":0,"sha256":"0a","size":1}],"message":{}}`, "subject"},
		{"an unknown field of the message", `{"version":1,"message":{"colour":"red"}}`, "colour"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode([]byte(tt.give), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %q in it", err, tt.want)
			}
		})
	}
}

// What a meta says beyond its due time and its mailing is in the payload, whatever it is.
func TestMeta_plain(t *testing.T) {
	t.Parallel()
	plain := Meta{Version: versionFirst, DueAt: time.Date(2026, 1, 2, 3, 4, 5, 60_000_000, time.UTC)}
	for _, mailing := range []string{"", "spring-2026"} {
		s := plain
		s.Mailing = mailing
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.append(nil)
		if err != nil || string(got)+"}" != string(want) || !s.isPlain() {
			t.Errorf("%s, %v, want %s without its end", got, err, want)
		}
		var read Meta
		if !read.decodePlain(got) || !reflect.DeepEqual(read, s) {
			t.Errorf("%s is read as %+v", got, read)
		}
	}
	for i := range reflect.TypeFor[Meta]().NumField() {
		s := plain
		field := reflect.ValueOf(&s).Elem().Field(i)
		name := reflect.TypeFor[Meta]().Field(i).Name
		switch {
		case name == "Version":
			continue
		case name == "DueAt":
			s.DueAt = s.DueAt.In(time.FixedZone("", 3600))
		case name == "Mailing":
			s.Mailing = "not a name"
		case field.Kind() == reflect.String:
			field.SetString("x")
		case field.Kind() == reflect.Bool:
			field.SetBool(true)
		case field.Kind() == reflect.Int:
			field.SetInt(1)
		case field.Kind() == reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case field.Kind() == reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		default:
			t.Fatalf("%s is a %s, which this test does not know", name, field.Kind())
		}
		if s.isPlain() {
			t.Errorf("%s is left out", name)
		}
	}
}
