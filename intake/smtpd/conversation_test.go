package smtpd_test

import (
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/intake/smtpd"
)

// What a client may say, and what it hears.
func TestConversation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, script string }{
		{"a message", `
			> EHLO client.example.com
			250-mx.example.com
			> MAIL FROM:<ann@example.com> SIZE=100 BODY=8BITMIME
			250 2.1.0
			> RCPT TO:<bob@example.org>
			250 2.1.5
			> DATA
			354
			> Subject: x
			> .
			250 2.0.0 Ok: queued as ID
			> QUIT
			221 2.0.0
			hangs up`},
		{"verbs and parameters in any case, blanks", `
			> ehlo client
			250-
			> mail from: <ann@example.com>  size=100 body=8bitmime
			250
			> Rcpt To:<bob@example.org>
			250
			> rset
			250 2.0.0
			> noop
			250 2.0.0`},
		{"HELO", `
			> HELO client.example.com
			250 mx.example.com
			> MAIL FROM:<ann@example.com>
			250`},
		{"no name", `
			> EHLO
			501 5.5.4
			> HELO
			501 5.5.4`},
		{"LMTP's LHLO", `
			> LHLO client
			500 5.5.1`},
		{"MAIL before EHLO", `
			> MAIL FROM:<ann@example.com>
			503 5.5.1`},
		{"another MAIL", `
			> EHLO client
			250
			> MAIL FROM:<ann@example.com>
			250
			> MAIL FROM:<eve@example.com>
			503 5.5.1`},
		{"RCPT before MAIL", `
			> EHLO client
			250
			> RCPT TO:<bob@example.org>
			503 5.5.1`},
		{"DATA before RCPT", `
			> EHLO client
			250
			> DATA
			503 5.5.1
			> MAIL FROM:<ann@example.com>
			250
			> DATA
			503 5.5.1`},
		{"DATA without a good recipient", `
			> EHLO client
			250
			> MAIL FROM:<ann@example.com>
			250
			> RCPT TO:<>
			501 5.1.3
			> DATA
			554 5.5.1
			> RCPT TO:<bob@example.org>
			250
			> DATA
			354`},
		{"EHLO and RSET forget the message", `
			> EHLO client
			250
			> MAIL FROM:<ann@example.com>
			250
			> RCPT TO:<bob@example.org>
			250
			> EHLO client
			250
			> DATA
			503
			> MAIL FROM:<ann@example.com>
			250
			> RSET
			250
			> RCPT TO:<bob@example.org>
			503`},
		{"paths", `
			> EHLO client
			250
			> MAIL FROM:<>
			250
			> RCPT TO:<@relay.example.com,@other.example.com:bob@example.org>
			250
			> RCPT TO:<"bob > smith"@example.org>
			250
			> RCPT TO:<"bob \" smith"@example.org>
			250
			> RCPT TO:<bob..smith.@example.org>
			250
			> RCPT TO:<bob+tag=x@example.org>
			250
			> RCPT TO:<bob@[192.0.2.1]>
			250
			> RCPT TO:<bob@[IPv6:2001:db8::1]>
			250
			> RCPT TO:<Postmaster>
			250
			> RCPT TO:<bob>
			501 5.1.3
			> RCPT TO:bob@example.org
			250
			> RCPT TO: bob@example.org
			250
			> RCPT TO:Bob <bob@example.org>
			501
			> RCPT TO:
			501 5.5.4
			> RCPT TO:<bob@example.org
			501 5.5.4
			> RCPT TO:<bob@example.org>x
			501 5.5.4
			> RCPT TO:<bob@>
			501 5.1.3
			> RCPT TO:<@example.org>
			501 5.5.4
			> RCPT TO:<bob@exa mple.org>
			501 5.1.3
			> RCPT TO:<Bob <bob@example.org>>
			501 5.5.4
			> RCPT TO:<bob@example.org,eve@example.org>
			501 5.1.3
			> RCPT TO:<bob(comment)@example.org>
			501 5.1.3
			> RCPT bob@example.org
			501 5.5.4`},
		{"a sender that is none", `
			> EHLO client
			250
			> MAIL FROM:<ann>
			501 5.1.7
			> MAIL FROM:
			501 5.5.4
			> MAIL TO:<ann@example.com>
			501 5.5.4
			> MAIL
			501 5.5.4`},
		{"parameters that are not offered", `
			> EHLO client
			250
			> MAIL FROM:<ann@example.com> RET=HDRS
			555 5.5.4 Unsupported parameter: RET=HDRS
			> MAIL FROM:<ann@example.com> ENVID=x
			555 5.5.4
			> MAIL FROM:<ann@example.com> BODY=BINARYMIME
			555 5.5.4
			> MAIL FROM:<ann@example.com> REQUIRETLS
			555 5.5.4
			> MAIL FROM:<ann@example.com> SMTPUTF8=yes
			555 5.5.4
			> MAIL FROM:<ann@example.com> SIZE=1 SIZE=2
			501 5.5.4
			> MAIL FROM:<ann@example.com> SIZE=big
			501 5.5.4
			> MAIL FROM:<ann@example.com> AUTH=<>
			250
			> RCPT TO:<bob@example.org> NOTIFY=NEVER
			555 5.5.4
			> RCPT TO:<bob@example.org> ORCPT=rfc822;bob@example.org
			555 5.5.4
			> RCPT TO:<bob@example.org>
			250`},
		{"bigger than SIZE says", `
			> EHLO client
			250
			> MAIL FROM:<ann@example.com> SIZE=1000001
			552 5.3.4
			> MAIL FROM:<ann@example.com> SIZE=1000000
			250`},
		{"SMTPUTF8", `
			> EHLO client
			250
			> MAIL FROM:<änn@example.com>
			550 5.6.7
			> MAIL FROM:<ann@example.com>
			250
			> RCPT TO:<bøb@example.org>
			553 5.6.7
			> RSET
			250
			> MAIL FROM:<änn@exämple.com> SMTPUTF8
			250
			> RCPT TO:<bøb@example.org>
			250`},
		{"commands that are none", `
			> EHLO client
			250
			> FOO
			500 5.5.2
			> EXPN list
			500 5.5.2
			> VRFY bob
			252 2.5.0
			> HELP
			214 2.0.0
			> DATA now
			501 5.5.4
			> STARTTLS
			502 5.5.1`},
		{"a browser", `
			> POST / HTTP/1.1
			500 5.5.2
			hangs up`},
		{"chunks", `
			> EHLO client
			250
			> MAIL FROM:<ann@example.com>
			250
			> RCPT TO:<bob@example.org>
			250
			> BDAT 4
			> ab
			250 2.0.0
			> RCPT TO:<bob@example.org>
			503
			> DATA
			503
			> BDAT 4 LAST
			> cd
			250 2.0.0 Ok: queued as ID`},
		{"a chunk without MAIL, which is read all the same", `
			> EHLO client
			250
			> BDAT 6 LAST
			> QUIT
			503 5.5.1
			> NOOP
			250`},
		{"a chunk without a good recipient ends the message", `
			> EHLO client
			250
			> MAIL FROM:<ann@example.com>
			250
			> RCPT TO:<>
			501
			> BDAT 6
			> QUIT
			554 5.5.1
			> BDAT 6 LAST
			> QUIT
			503
			> MAIL FROM:<ann@example.com>
			250`},
		{"a chunk that is too big ends the message", `
			> EHLO client
			250
			> MAIL FROM:<ann@example.com>
			250
			> RCPT TO:<bob@example.org>
			250
			> BDAT 1000001
			` + "> " + strings.Repeat("x", 1000001-2) + `
			552 5.3.4
			> BDAT 6 LAST
			> QUIT
			503
			> NOOP
			250`},
		{"a size that is none", `
			> EHLO client
			250
			> BDAT abc LAST
			501 5.5.4
			hangs up`},
		{"lines that are too long", `
			> EHLO client
			250
			> NOOP ` + strings.Repeat("x", 3000) + `
			500 5.5.2
			> NOOP ` + strings.Repeat("x", 100_000) + `
			500 5.5.2
			> NOOP
			250`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := trusting()
			cfg.MaxMessageSize = 1_000_000
			dial(t, serve(t, &desk{}, cfg)).talk(tt.script)
		})
	}
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	_, _, config := certificate(t)
	cfg := smtpd.Config{Hostname: "mx.example.com", TLS: config}
	c := dial(t, serve(t, &desk{}, cfg))
	c.send("EHLO client\r\n")
	want := "250-mx.example.com\r\n250-SIZE 25000000\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n250 STARTTLS"
	if got := c.reply(); got != want {
		t.Errorf("EHLO: %q, want %q", got, want)
	}
}

// The envelope decides who gets a message, and the header does not.
func TestEnvelope(t *testing.T) {
	t.Parallel()
	d := &desk{}
	c := dial(t, serve(t, d, trusting()))
	c.talk(`
		> EHLO client
		250
		> MAIL FROM:<> SMTPUTF8
		250
		> RCPT TO:<bob@example.org>
		250
		> RCPT TO:<bøb@bücher.example>
		250
		> RCPT TO:<postmaster>
		250
		> RCPT TO:<"b b"@example.org>
		250
		> DATA
		354
		> From: ann@example.com
		> To: eve@example.com
		> Cc: mallory@example.com
		> Bcc: trudy@example.com
		>
		> x
		> .
		250`)
	e, err := d.one(t).message.Envelope()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"bob@example.org", "bøb@xn--bcher-kva.example", "postmaster@mx.example.com", `"b b"@example.org`}
	if e.From != "" || strings.Join(e.To, " ") != strings.Join(want, " ") {
		t.Errorf("envelope = %+v, want the null sender and %q", e, want)
	}
	var sent strings.Builder
	if _, err := d.one(t).message.WriteTo(&sent); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(sent.String(), "trudy") || !strings.Contains(sent.String(), "mallory") {
		t.Errorf("the message is sent as %q, want it without Bcc", sent.String())
	}
}

// Pipelined commands are answered in their order, in one packet.
func TestPipelining(t *testing.T) {
	t.Parallel()
	d := &desk{}
	c := dial(t, serve(t, d, trusting()))
	c.talk(`
		> EHLO client
		250`)
	c.send("MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<>\r\nDATA\r\n")
	buf := make([]byte, 1000)
	n, err := c.conn.Read(buf)
	if got := string(buf[:n]); err != nil || got != "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n501 5.1.3 Bad recipient address syntax\r\n354 End data with <CR><LF>.<CR><LF>\r\n" {
		t.Fatalf("first packet: %q, %v", got, err)
	}
	c.send("x: y\r\n.\r\nMAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.org>\r\nBDAT 6 LAST\r\nx: z\r\nQUIT\r\n")
	for _, want := range []string{"250 2.0.0 Ok: queued", "250 2.1.0", "250 2.1.5", "250 2.0.0 Ok: queued", "221", ""} {
		c.expect(want)
	}
	if n := len(d.taken()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

// LMTP has a reply for each recipient that was taken.
func TestLMTP(t *testing.T) {
	t.Parallel()
	d := &desk{}
	path := socket(t)
	s := serve(t, d, smtpd.Config{Hostname: "mx.example.com", TrustSockets: true, MaxMessageSize: 1_000_000, Listeners: []smtpd.Listener{{Network: "unix", Address: path, LMTP: true}}})
	c := dial(t, s)
	c.talk(`
		> EHLO client
		500
		> LHLO client
		250-mx.example.com
		> MAIL FROM:<ann@example.com>
		250
		> RCPT TO:<bob@example.org>
		250
		> RCPT TO:<>
		501
		> RCPT TO:<eve@example.org>
		250
		> RCPT TO:<bob@example.org>
		250
		> DATA
		354
		> Subject: x
		> .
		250 2.0.0
		250 2.0.0
		250 2.0.0
		> MAIL FROM:<ann@example.com>
		250
		> RCPT TO:<bob@example.org>
		250
		> RCPT TO:<eve@example.org>
		250
		> BDAT 14 LAST
		> Subject: xyz
		250 2.0.0
		250 2.0.0
		> MAIL FROM:<ann@example.com>
		250
		> RCPT TO:<bob@example.org>
		250
		> RCPT TO:<eve@example.org>
		250
		> BDAT 1000001
		> ` + strings.Repeat("x", 1000001-2) + `
		552 5.3.4
		> NOOP
		250
		> MAIL FROM:<ann@example.com>
		250
		> RCPT TO:<bob@example.org>
		250
		> RCPT TO:<eve@example.org>
		250
		> DATA
		354
		> ` + strings.Repeat("x", 1000001) + `
		> .
		552 5.3.4
		552 5.3.4
		> NOOP
		250`)
	if n := len(d.taken()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	field, _ := cutReceived(string(d.taken()[0].message.Raw))
	if !strings.HasPrefix(field, "Received: from client\r\n\tby mx.example.com (Mailpouch) with LMTP id ") {
		t.Errorf("field %q", field)
	}
}
