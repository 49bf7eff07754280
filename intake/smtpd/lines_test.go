package smtpd_test

import (
	"strings"
	"testing"
)

// What is said to end a message, and does not: only CRLF, a dot and CRLF do. What other programs take for an end is refused as a
// bare CR or LF, and the connection is closed behind it, so that no command can be smuggled in.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	const smuggled = "MAIL FROM:<eve@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
	for _, end := range []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n", "\r\r\n.\r\n", "\r\n.\r\r\n", "\r\n\n.\r\n", "\r\n\r.\r\n",
		"\n\r.\r\n", "\r\n.\x00\n", "\x0d.\x0d\x0a", "\r\n\x00.\n\r\n",
	} {
		t.Run(strings.NewReplacer("\r", "CR", "\n", "LF", "\x00", "NUL").Replace(end), func(t *testing.T) {
			t.Parallel()
			d := &desk{}
			c := dial(t, serve(t, d, trusting()))
			c.begin()
			c.send("From: ann@example.com\r\n\r\nfirst" + end + smuggled + "\r\n.\r\n")
			c.expect("550 5.5.2")
			c.expect("")
			if n := len(d.taken()); n != 0 {
				t.Errorf("%d messages were taken: %q", n, d.taken()[0].message.Raw)
			}
		})
	}
}

// Lines of commands end with CRLF too.
func TestBareCommands(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"NOOP\n", "NO\rOP\r\n", "NOOP\r\r\n", "MAIL FROM:<ann@example.com>\nRCPT TO:<bob@example.org>\r\n", "\n"} {
		c := dial(t, serve(t, &desk{}, trusting()))
		c.send("EHLO client\r\n")
		c.expect("250")
		c.send(command + "NOOP\r\n")
		c.expect("550 5.5.2")
		c.expect("")
	}
}

// Bare line ends in chunks are refused as well, also where chunks meet.
func TestBareChunks(t *testing.T) {
	t.Parallel()
	for _, chunks := range [][]string{{"a\nb"}, {"a\rb"}, {"a\r", "b"}, {"a", "\nb"}, {"a\r\n\r"}} {
		d := &desk{}
		c := dial(t, serve(t, d, trusting()))
		c.talk(`
			> EHLO client
			250
			> MAIL FROM:<ann@example.com>
			250
			> RCPT TO:<bob@example.org>
			250`)
		for i, chunk := range chunks {
			last := ""
			if i == len(chunks)-1 {
				last = " LAST"
			}
			c.send("BDAT " + string(rune('0'+len(chunk))) + last + "\r\n" + chunk)
			if last == "" {
				c.expect("250")
			}
		}
		c.expect("550 5.5.2")
		c.expect("")
		if len(d.taken()) != 0 {
			t.Errorf("%q: the message was taken", chunks)
		}
	}
	d := &desk{}
	c := dial(t, serve(t, d, trusting()))
	c.talk(`
		> EHLO client
		250
		> MAIL FROM:<ann@example.com>
		250
		> RCPT TO:<bob@example.org>
		250`)
	c.send("BDAT 5\r\na: b\rBDAT 6 LAST\r\n\n\r\nc\r\n")
	c.expect("250")
	c.expect("250 2.0.0 Ok: queued")
	if got := d.one(t).raw(); got != "a: b\r\n\r\nc\r\n" {
		t.Errorf("raw = %q", got)
	}
}

// Dots at the beginning of lines are those of the message.
func TestDots(t *testing.T) {
	t.Parallel()
	d := &desk{}
	c := dial(t, serve(t, d, trusting()))
	c.begin()
	long := strings.Repeat("x", 40_000) // more than is read at once
	c.send("a: b\r\n\r\n..\r\n...x\r\n" + long + ".\r\n.." + long + "\r\n x.\r\n\r\n.\r\n")
	c.expect("250")
	if got, want := d.one(t).raw(), "a: b\r\n\r\n.\r\n..x\r\n"+long+".\r\n."+long+"\r\n x.\r\n\r\n"; got != want {
		t.Errorf("raw = %.200q, want %.200q", got, want)
	}
}
