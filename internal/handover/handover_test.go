package handover

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// goldenMessage is a message that uses all fields.
func goldenMessage(t *testing.T) *mailer.EmailMessage {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "wire", "testdata", "payload-v1-full.json"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := wire.Decode(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.Message
}

// What makes two hand-overs the same is the same in all versions: producers of two
// versions may run at the same time.
func TestDigest_golden(t *testing.T) {
	t.Parallel()
	full := goldenMessage(t)
	got, err := Digest(full, mailer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := goldenDigest; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	id := OnceID(got, mailer.Options{IdempotencyKey: "Bestellung 7 für Ann"})
	if want := goldenKeyID; id != want {
		t.Errorf("ID %s, want %s", id, want)
	}
}

const (
	goldenDigest = "zvwhtey5eshf5sf5eqff2re6"
	goldenKeyID  = "key-Bestellung-7-f-r-Ann-bsi2vfwxtohr4pa7dl6dyzk4"
)

func TestDigest(t *testing.T) {
	t.Parallel()
	base := goldenMessage(t)
	want, err := Digest(base, mailer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(m *mailer.EmailMessage, o *mailer.Options)
		same   bool
	}{
		{"message id", func(m *mailer.EmailMessage, _ *mailer.Options) { m.MessageID = "<2@example.com>" }, true},
		{"date", func(m *mailer.EmailMessage, _ *mailer.Options) { m.Date = time.Now() }, true},
		{"times and tries", func(_ *mailer.EmailMessage, o *mailer.Options) {
			*o = mailer.Options{ProcessIn: 1, Deadline: time.Now(), MaxRetry: new(1), Retention: 1, Queue: "bulk"}
		}, true},
		{"tags", func(_ *mailer.EmailMessage, o *mailer.Options) { o.Tags, o.Mailing = []string{"a"}, "spring" }, true},
		{"at most once", func(_ *mailer.EmailMessage, o *mailer.Options) { o.AtMostOnce = true }, false},
		{"subject", func(m *mailer.EmailMessage, _ *mailer.Options) { m.Subject += "!" }, false},
		{"body", func(m *mailer.EmailMessage, _ *mailer.Options) { m.Body += "!" }, false},
		{"recipient", func(m *mailer.EmailMessage, _ *mailer.Options) { m.To = []string{"bob@example.com"} }, false},
		{"bcc", func(m *mailer.EmailMessage, _ *mailer.Options) { m.Bcc = nil }, false},
		{"sender", func(m *mailer.EmailMessage, _ *mailer.Options) { m.FromEmail = "x@example.com" }, false},
		{"header", func(m *mailer.EmailMessage, _ *mailer.Options) { m.Headers = map[string]string{"X-Campaign": "autumn"} }, false},
		{"attachment", func(m *mailer.EmailMessage, _ *mailer.Options) {
			m.Attachments = []mailer.Attachment{{Filename: "a.txt", Content: []byte("File"), Mimetype: "text/plain"}}
		}, false},
		{"alternative", func(m *mailer.EmailMessage, _ *mailer.Options) { m.Alternatives = nil }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, o := *base, mailer.Options{}
			tt.change(&m, &o)
			got, err := Digest(&m, o)
			if err != nil {
				t.Fatal(err)
			}
			if (got == want) != tt.same {
				t.Errorf("the same digest: %v, want %v", got == want, tt.same)
			}
		})
	}
}

// A Received field says when a message came, which differs at each try of its hand-over. What stands below is the message.
func TestDigest_trace(t *testing.T) {
	t.Parallel()
	digest := func(raw string) string {
		got, err := Digest(&mailer.EmailMessage{FromEmail: "a@example.com", To: []string{"b@example.com"}, Raw: []byte(raw)}, mailer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	const message = "Subject: x\r\nReceived: from c\r\n\r\nBody\r\n"
	want := digest(message)
	for _, trace := range []string{
		"Received: from a; now\r\n", "received: from a\r\n\tby b;\r\n now\r\n", "Received: 1\nReceived: 2\n\t3\n",
	} {
		if digest(trace+message) != want {
			t.Errorf("%q changes the digest", trace)
		}
	}
	for _, other := range []string{
		"Received-SPF: pass\r\n" + message, "Received: 1\r\nX-A: b\r\n" + message, strings.Replace(message, "from c", "from d", 1),
	} {
		if digest(other) == want {
			t.Errorf("%q has the digest of another message", other)
		}
	}
	if digest("Received: only") != digest("Received: this") {
		t.Error("a message that is nothing but trace")
	}
}
