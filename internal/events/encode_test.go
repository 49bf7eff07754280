package events

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 27, 8, 0, 0, int(123*time.Millisecond), time.UTC)
	m := Message{
		ID: "ABC-later", MessageID: "<1@app.example.com>", Mailing: "spring", Tags: []string{"a", "b"}, Due: at.Add(-time.Minute), Tries: 2,
	}
	data := Append(nil, Delayed, m, "450 4.2.0 later", "ann@example.com", "Bob <b@example.com>")
	data = Append(data, Failed, Message{ID: "XYZ.3", Mailer: "other"}, "")
	got, err := decode("marketing.news:mass~2", at, string(data))
	if err != nil {
		t.Fatal(err)
	}
	want := []Event{
		{
			Type: Delayed, At: at, MessageID: "<1@app.example.com>", EmailID: "ABC", Recipient: "ann@example.com", Queue: "news", Mailer: "marketing",
			Mailing: "spring", Tags: []string{"a", "b"}, Reply: "450 4.2.0 later", Tries: 2,
		},
		{
			Type: Delayed, At: at, MessageID: "<1@app.example.com>", EmailID: "ABC", Recipient: "Bob <b@example.com>", Queue: "news", Mailer: "marketing",
			Mailing: "spring", Tags: []string{"a", "b"}, Reply: "450 4.2.0 later", Tries: 2,
		},
		{Type: Failed, At: at, EmailID: "XYZ.3", Queue: "news", Mailer: "other"},
	}
	ids := map[string]bool{}
	for i, e := range got {
		ids[e.ID] = true
		got[i].ID = ""
	}
	if len(ids) != 3 {
		t.Errorf("IDs %v", ids)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for n := range len(data) {
		if n > 0 && n != len(data)-len(Append(nil, Failed, Message{ID: "XYZ.3", Mailer: "other"}, "")) {
			if _, err := decode("q", at, string(data[:n])); err == nil {
				t.Errorf("the first %d bytes of %d can be read", n, len(data))
			}
		}
	}
}

// An event has the same ID however often it is read, and no other event has it.
func TestEventID(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)
	id := func(typ Type, m Message, to string) string {
		t.Helper()
		list, err := decode("default", at, string(Append(nil, typ, m, "250 ok", to)))
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0].ID
	}
	base := Message{ID: "ABC", Due: at, Tries: 1}
	first := id(Sent, base, "ann@example.com")
	if again := id(Sent, base, "ann@example.com"); again != first {
		t.Errorf("%s, and again %s", first, again)
	}
	for name, other := range map[string]string{
		"type":      id(Failed, base, "ann@example.com"),
		"recipient": id(Sent, base, "bob@example.com"),
		"try":       id(Sent, Message{ID: "ABC", Due: at, Tries: 2}, "ann@example.com"),
		"task":      id(Sent, Message{ID: "ABC-again", Due: at, Tries: 1}, "ann@example.com"),
		"due":       id(Sent, Message{ID: "ABC", Due: at.Add(1), Tries: 1}, "ann@example.com"),
	} {
		if other == first {
			t.Errorf("another %s has the same ID", name)
		}
	}
}

func TestAppend_manyRecipients(t *testing.T) {
	t.Parallel()
	to := make([]string, 2*mostTogether+1)
	for i := range to {
		to[i] = fmt.Sprintf("u%d@example.com", i)
	}
	list, err := decode("default", time.Now(), string(Append(nil, Queued, Message{ID: "ABC"}, "", to...)))
	if err != nil || len(list) != len(to) {
		t.Fatal(len(list), err)
	}
	for i, e := range list {
		if e.Recipient != to[i] || e.EmailID != "ABC" {
			t.Fatalf("%d: %+v", i, e)
		}
	}
}

// What comes of a message has its ID; what cannot be read has nobody's address.
func TestOfPayload(t *testing.T) {
	t.Parallel()
	m := &mailer.EmailMessage{FromEmail: "a@example.com", To: []string{"Ann <ann@example.com>"}, Bcc: []string{"bob@example.com"}, MessageID: "<1@x>"}
	p := &wire.Payload{Meta: wire.Meta{DueAt: time.Now().UTC(), Spent: 2, Mailing: "m"}, Message: m}
	all, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	p.Recipients = []string{"bob@example.com"}
	some, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		payload []byte
		want    []string
	}{
		{"all", all, []string{"ann@example.com", "bob@example.com"}},
		{"those that are left", some, []string{"bob@example.com"}},
		{"unreadable", []byte("{"), []string{""}},
	} {
		list, err := decode("default", time.Now(), string(OfPayload(nil, "ABC", tt.payload, 1, Cancelled, "")))
		if err != nil {
			t.Fatal(err)
		}
		var to []string
		for _, e := range list {
			to = append(to, e.Recipient)
			if e.EmailID != "ABC" || tt.want[0] != "" && (e.Tries != 3 || e.Mailing != "m" || e.MessageID != "<1@x>") {
				t.Errorf("%s: %+v", tt.name, e)
			}
		}
		if !reflect.DeepEqual(to, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, to, tt.want)
		}
	}
}

// FuzzDecode: whatever is in a stream, reading it ends.
func FuzzDecode(f *testing.F) {
	f.Add(string(Append(nil, Sent, Message{ID: "ABC", Tags: []string{"a"}}, "250 ok", "ann@example.com")))
	f.Add("\x00\x00\x00\x06\xff\xff")
	f.Fuzz(func(_ *testing.T, data string) { _, _ = decode("default", time.Time{}, data) })
}
