package transcript_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/transcript"
	"github.com/mailpouch/mailpouch/mailer"
)

func TestEntry(t *testing.T) {
	t.Parallel()
	m := &mailer.EmailMessage{
		Subject: "Hello", Body: "one\r\ntwo\rthree\nfour", FromEmail: "from@example.com",
		To: []string{"to@example.org"}, Bcc: []string{"bcc@example.org"},
		MessageID: "<1@example.com>", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	got, err := transcript.Entry(m)
	if err != nil {
		t.Fatal(err)
	}
	want := `From: from@example.com
To: to@example.org
Subject: Hello
Date: Fri, 02 Jan 2026 03:04:05 +0000
Message-ID: <1@example.com>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit

one
two
three
four

` + strings.Repeat("-", 79) + "\n"
	if string(got) != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	m.Subject = "Hello\r\nBcc: x@example.com"
	if got, err := transcript.Entry(m); got != nil || !mailer.IsBadInput(err) {
		t.Errorf("a bad message: %q, %v; want nil and what is wrong with it", got, err)
	}
}

// Django writes "\n", 79 dashes and "\n" after each message.
func TestSeparator(t *testing.T) {
	t.Parallel()
	if line := strings.Trim(transcript.Separator, "\n"); line != string(bytes.Repeat([]byte("-"), 79)) {
		t.Errorf("a line of %d characters, want 79 dashes: %q", len(line), line)
	}
}
