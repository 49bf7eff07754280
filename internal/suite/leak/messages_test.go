package leak

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// What the messages say. Each secret has something around it, as a secret has.

func subjectText() string   { return "Grüße, your code is " + string(subject) }
func bodyText() string      { return "the password of your account is " + string(body) }
func htmlText() string      { return "<p>the password of your account is " + string(html) + "</p>" }
func headerText() string    { return "session " + string(header) }
func fileText() string      { return "salary " + string(fileName) + ".bin" }
func bytesText() string     { return "what the file says is " + string(fileBytes) + ", and no more" }
func rawHeaderText() string { return "session " + string(rawHeader) }
func rawBodyText() string   { return "the password of your account is " + string(rawBody) }

func to(verdict, repeat string) string {
	return fmt.Sprintf("%s.%s.%s@example.com", verdict, repeat, recipient)
}

// message makes a message with a secret in each of its parts. Its first recipient tells the relay
// what to do with it.
func message(verdict, repeat string) *mailer.EmailMessage {
	m := &mailer.EmailMessage{
		Subject: subjectText(), Body: "Hello,\n\n" + bodyText() + "\n\nBye\n",
		FromEmail: string(author) + "@example.com", To: []string{"Somebody <" + to(verdict, repeat) + ">"},
		Bcc: []string{string(blindCopy) + "@example.org"}, Headers: map[string]string{"X-Code": headerText()},
		MessageID: "<" + verdict + "." + repeat + "@shop.example.com>",
	}
	m.AttachAlternative(htmlText(), "text/html")
	m.Attach(fileText(), []byte(strings.Repeat("\x00\xff", 10)+bytesText()), "application/octet-stream")
	return m
}

// rawMessage is a finished message.
func rawMessage(verdict string) string {
	return "From: " + string(author) + "@example.com\r\nTo: " + to(verdict, "raw") + "\r\nBcc: " + string(blindCopy) +
		"@example.org\r\nMessage-ID: <" + verdict + ".raw@shop.example.com>\r\nSubject: " + string(subject) + "\r\nX-Raw: " + rawHeaderText() + "\r\n\r\n" + rawBodyText() + "\r\n"
}

// verdicts are what the relay may do.
func verdicts() []string { return []string{"ok", "later", "never", "rcpt"} }

// messages makes messages of every kind.
func messages() []*mailer.EmailMessage {
	var all []*mailer.EmailMessage
	for _, verdict := range verdicts() {
		for _, repeat := range repeats() {
			if repeat != "raw" {
				all = append(all, message(verdict, repeat))
			}
		}
	}
	return all
}

// file writes lines for enqueue bulk.
func file(t *testing.T, name string, lines ...any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	var data []byte
	for _, line := range lines {
		text, isText := line.(string)
		encoded := []byte(text)
		if !isText {
			var err error
			if encoded, err = json.Marshal(line); err != nil {
				t.Fatal(err)
			}
		}
		data = append(append(data, encoded...), '\n')
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
