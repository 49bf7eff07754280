package interop

import (
	"bytes"
	"net/mail"
	"strings"
	"testing"

	"github.com/jhillyerd/enmime/v2"

	"github.com/mailpouch/mailpouch/mailer"
)

// TestEnmime_folding lets an independent reader find every field of messages in which every
// field is long, and what was put into each: an empty line in the middle of a header would
// hide those after it.
func TestEnmime_folding(t *testing.T) {
	kinds := map[string]func(n int) string{
		"address": func(n int) string {
			local := strings.Repeat("l", min(n-30, 60))
			return local + "@" + strings.Repeat("d", min(n-len(local)-len("@.example"), 60)) + ".example"
		},
		"name":           func(n int) string { return strings.Repeat("n", n) + " <b@example.com>" },
		"quoted name":    func(n int) string { return `"` + strings.Repeat("n.", n/2) + `" <b@example.com>` },
		"words":          func(n int) string { return strings.Repeat("Name ", n/5) + "<b@example.com>" },
		"encoded name":   func(n int) string { return `"` + strings.Repeat("\u00fc", n) + `" <b@example.com>` },
		"encoded, words": func(n int) string { return `"` + strings.Repeat("\u00fc n ", n/5) + `" <b@example.com>` },
	}
	for kind, text := range kinds {
		t.Run(kind, func(t *testing.T) {
			for n := 60; n <= 1010; n++ {
				if n > 170 && n < 960 && n%17 > 0 {
					continue
				}
				long := text(n)
				phrase, _, _ := strings.Cut(strings.Trim(long, `"`), `"`)
				m := base(subject(phrase), header("X-Long", phrase), header("From", "Ann <ann@example.com>, "+long),
					header("Sender", long), attach(strings.Repeat("f", min(n, 300)), "content", "application/x-a; p="+strings.Repeat("p", min(n, 200))))
				m.To, m.Cc, m.ReplyTo = []string{"ann@example.com", long, long}, []string{long, "\u00c4nn <a@example.com>"}, []string{"a@example.com", long}
				var b bytes.Buffer
				if _, err := m.WriteTo(&b); err != nil {
					if n < 900 {
						t.Fatalf("%d bytes: %v", n, err)
					}
					continue
				}
				checkWhole(t, m, b.Bytes())
			}
		})
	}
}

// FuzzEnmime demands the same of whatever the fuzzer finds.
func FuzzEnmime(f *testing.F) {
	f.Add("Your order", "Ann <ann@example.com>", "reply+"+strings.Repeat("A", 50)+"@reply.notifications.example.com", "value", "a.pdf")
	f.Add("Gr\u00fc\u00dfe", strings.Repeat("n", 90)+" <b@example.com>", "\u00c4nn <a@example.com>", strings.Repeat("v", 400), "\u00fc.pdf")
	f.Add(" a ", `"`+strings.Repeat("n.", 90)+`" <b@example.com>`, "b@example.com ("+strings.Repeat("c", 200)+")", strings.Repeat(" ", 100)+"x", strings.Repeat("f", 290))
	f.Fuzz(func(t *testing.T, subjectText, first, second, value, filename string) {
		m := base(subject(subjectText), header("X-Long", value), header("Sender", second), attach(filename, "content", ""))
		m.To, m.Cc, m.ReplyTo = []string{first, second}, []string{second, first}, []string{second, second}
		var b bytes.Buffer
		if _, err := m.WriteTo(&b); err == nil {
			checkWhole(t, m, b.Bytes())
		}
	})
}

// checkWhole demands all fields, all addresses, the body and the files of a message.
func checkWhole(t *testing.T, m *mailer.EmailMessage, rendered []byte) {
	t.Helper()
	env, err := enmime.ReadEnvelope(bytes.NewReader(rendered))
	if err != nil {
		t.Fatalf("%v\n%q", err, rendered)
	}
	want := map[string]string{
		"Subject": m.Subject, "X-Long": m.Headers["X-Long"], "Message-Id": m.MessageID, "Date": m.Headers["Date"], "Mime-Version": "1.0",
	}
	for name, text := range want {
		if len(env.Root.Header[name]) != 1 {
			t.Fatalf("%s is there %d times:\n%q", name, len(env.Root.Header[name]), rendered)
		}
		if got := env.GetHeader(name); isPlain(text) && letters(got) != letters(text) {
			t.Fatalf("%s: got %q, want %q", name, got, text)
		}
	}
	for name, list := range map[string][]string{"To": m.To, "Cc": m.Cc, "Reply-To": m.ReplyTo, "Sender": {m.Headers["Sender"]}, "From": {m.Headers["From"]}} {
		checkList(t, env, name, list)
	}
	if plain(env.Text) != plain(m.Body) {
		t.Fatalf("text: got %q, want %q", env.Text, m.Body)
	}
	if len(env.Attachments) != 1 || string(env.Attachments[0].Content) != "content" || isPlain(m.Attachments[0].Filename) && env.Attachments[0].FileName != m.Attachments[0].Filename {
		t.Fatalf("attachments: got %v, want %q", env.Attachments, m.Attachments[0].Filename)
	}
}

func checkList(t *testing.T, env *enmime.Envelope, name string, list []string) {
	t.Helper()
	given := strings.Join(list, ", ")
	if strings.Trim(given, " \t,") == "" {
		return
	}
	if len(env.Root.Header[name]) != 1 {
		t.Fatalf("%s is there %d times", name, len(env.Root.Header[name]))
	}
	want, err := mail.ParseAddressList(given)
	if err != nil || !isPlain(given) {
		return // what net/mail cannot read, enmime cannot either
	}
	got, err := env.AddressList(name)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%s: got %v, %v, want %q", name, got, err, given)
	}
	for i := range got {
		if letters(got[i].Name) != letters(want[i].Name) || !strings.EqualFold(letters(got[i].Address), letters(want[i].Address)) {
			t.Fatalf("%s: got %v, want %v", name, got[i], want[i])
		}
	}
}

// isPlain reports whether a text has nothing that readers differ on: encoded words of its own.
func isPlain(s string) bool {
	for _, r := range s {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return !strings.Contains(s, "=?")
}

// letters are those of a text, and its digits: enmime changes white space and quotes.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
}
