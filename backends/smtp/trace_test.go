package smtp

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mailpouch/mailpouch/internal/hostname"
)

// TestConfig_Trace: the conversation as an operator sees it. The second message goes out
// with the end of the first.
func TestConfig_Trace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t, "PIPELINING", "AUTH PLAIN")
		cfg := testConfig(t, p)
		cfg.Username, cfg.Password, cfg.AllowInsecureAuth = "me", "secret", true
		var lines []string
		cfg.Trace = func(line string) { lines = append(lines, line) }
		sendAll(t, newBackend(t, cfg), letters(2))
		want := `*: connected to peer.example:25
S: 220 peer.example ESMTP
C: EHLO client.example
S: 250-peer.example
S: 250-PIPELINING
S: 250 AUTH PLAIN
C: AUTH PLAIN (hidden)
S: 235 (hidden)
C: MAIL FROM:<a@x>
C: RCPT TO:<to@example.com>
C: DATA
S: 250 2.1.0 Ok
S: 250 2.1.5 Ok
S: 354 go ahead
C: (message of 219 octets)
C: MAIL FROM:<b@x>
C: RCPT TO:<to@example.com>
C: DATA
S: 250 2.0.0 Ok: queued as a@x
S: 250 2.1.0 Ok
S: 250 2.1.5 Ok
S: 354 go ahead
C: (message of 219 octets)
S: 250 2.0.0 Ok: queued as b@x
C: QUIT
S: 221 2.0.0 bye
*: closed`
		if got := strings.Join(lines, "\n"); got != want {
			t.Errorf("got\n%s", got)
		}
	})
}

// TestConn_do: a command is one line, whatever is in it.
func TestConn_do(t *testing.T) {
	for _, line := range []string{"EHLO x\r\nMAIL FROM:<a@x>", "EHLO\n", "EHLO\r", "EHLO \x00"} {
		if _, err := (&conn{cfg: &Config{}}).do(line); !errors.Is(err, errNotOneLine) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// TestBackend_helloName: without a configured name there is one that a server accepts.
func TestBackend_helloName(t *testing.T) {
	_, addr := startGoSMTP(t, false)
	var hello string
	b := newBackend(t, Config{Addrs: []string{addr}, Trace: func(line string) {
		if name, ok := strings.CutPrefix(line, "C: EHLO "); ok {
			hello = name
		}
	}})
	if _, err := b.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !hostname.IsAddressLiteral(hello) && (!hostname.IsASCII(hello) || !strings.Contains(hello, ".")) {
		t.Errorf("said EHLO %s", hello)
	}
}
