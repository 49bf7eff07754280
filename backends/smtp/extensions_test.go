package smtp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mailpouch/mailpouch/mailer"
)

// TestBackend_extensions: parameters are said where they are offered and needed.
func TestBackend_extensions(t *testing.T) {
	all := []string{"SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"}
	utf8 := letter("a@x", "üser@example.com")
	long := strings.Repeat("x", 100) + "@example.com" // more than servers must take (RFC 5321, 4.5.3.1.1)
	tests := []struct {
		name    string
		offers  []string
		message *mailer.EmailMessage
		dsn     DSN
		mail    string // MAIL and RCPT as said, without SIZE
		rcpt    string
		want    string
	}{
		{"plain", all, letter("a@x"), DSN{}, "MAIL FROM:<a@x>", "RCPT TO:<to@example.com>", "sent"},
		{"nothing offered", nil, letter("a@x"), DSN{"NEVER", "HDRS"}, "MAIL FROM:<a@x>", "RCPT TO:<to@example.com>", "sent"},
		{"SMTPUTF8", all, utf8, DSN{}, "MAIL FROM:<a@x> BODY=8BITMIME SMTPUTF8", "RCPT TO:<üser@example.com>", "sent"},
		{"long local parts", all, letter(long, long), DSN{}, "MAIL FROM:<" + long + ">", "RCPT TO:<" + long + ">", "sent"},
		{"dots that need quotes", nil, letter("a..b@x", ".c@example.com"), DSN{}, `MAIL FROM:<"a..b"@x>`, `RCPT TO:<".c"@example.com>`, "sent"},
		{"a dot at the end", nil, letter("a.@x", "root."), DSN{}, `MAIL FROM:<"a."@x>`, `RCPT TO:<"root.">`, "sent"},
		{"quotes", nil, letter("d.e@x", `"a..b c."@example.com`), DSN{}, `MAIL FROM:<d.e@x>`, `RCPT TO:<"a..b c."@example.com>`, "sent"},
		{"no SMTPUTF8", []string{"8BITMIME"}, utf8, DSN{}, "", "", "permanent"},
		{"SMTPUTF8 without 8BITMIME", []string{"SMTPUTF8"}, utf8, DSN{}, "MAIL FROM:<a@x> BODY=8BITMIME SMTPUTF8", "RCPT TO:<üser@example.com>", "sent"},
		{"domain in punycode", nil, letter("a@x", "user@bücher.example"), DSN{}, "MAIL FROM:<a@x>", "RCPT TO:<user@xn--bcher-kva.example>", "sent"},
		{"DSN", all, letter("a@x"), DSN{"SUCCESS,DELAY", "HDRS"}, "MAIL FROM:<a@x> RET=HDRS ENVID=<a@x>",
			"RCPT TO:<to@example.com> NOTIFY=SUCCESS,DELAY", "sent"},
		{"DSN with an odd id", all, with(letter("a@x"), func(m *mailer.EmailMessage) { m.MessageID = "<a+b=c@x>" }), DSN{Notify: "NEVER"},
			"MAIL FROM:<a@x> ENVID=<a+2Bb+3Dc@x>", "RCPT TO:<to@example.com> NOTIFY=NEVER", "sent"},
		{"null sender", all, with(letter("a@x"), func(m *mailer.EmailMessage) { m.Headers = map[string]string{"Return-Path": "<>"} }), DSN{},
			"MAIL FROM:<>", "RCPT TO:<to@example.com>", "sent"},
	}
	for _, tt := range tests {
		for _, w := range ways() {
			t.Run(tt.name+"/"+w.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPeer(t, tt.offers...)
					if w.name != "strict" {
						p.offers = append(p.offers, "PIPELINING", "CHUNKING")
					}
					cfg := testConfig(t, p)
					cfg.Chunking, cfg.DSN = w.chunking, tt.dsn
					results := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{tt.message})
					if got := fates(results); got != tt.want {
						t.Fatalf("got %s: %v", got, results[0].Err)
					}
					if tt.want != "sent" {
						if s := sendError(t, results[0].Err); s.Code != 0 || s.Step != mailer.StepMail {
							t.Errorf("got %v", s)
						}
						return
					}
					mail := p.said()[slices.IndexFunc(p.said(), func(c string) bool { return strings.HasPrefix(c, "MAIL") })]
					if size := fmt.Sprintf(" SIZE=%d", len(p.taken()[0].body)); strings.Contains(mail, "SIZE") {
						if !strings.Contains(mail, size) || tt.offers == nil {
							t.Errorf("%s, want %s", mail, size)
						}
						mail = strings.Replace(mail, size, "", 1)
					}
					if mail != tt.mail || !slices.Contains(p.said(), tt.rcpt) {
						t.Errorf("got %q, want %s and %s", p.said(), tt.mail, tt.rcpt)
					}
				})
			})
		}
	}
}

func with(m *mailer.EmailMessage, change func(m *mailer.EmailMessage)) *mailer.EmailMessage {
	change(m)
	return m
}

// TestBackend_unfit: what a server cannot be given fails alone, and before MAIL.
func TestBackend_unfit(t *testing.T) {
	big := letter("b@x")
	big.Body = strings.Repeat("0123456789\n", 1000)
	utf8, hidden := letter("b@x", "ü@x"), letter("b@x")
	hidden.Bcc = []string{"ü@x"}
	sender := letter("ü@x")
	for _, tt := range []struct {
		name    string
		message *mailer.EmailMessage
		want    string
		text    string
	}{
		{"too big", big, "permanent", "5.3.4"},
		{"UTF-8 address", utf8, "permanent", "5.6.7"},
		{"UTF-8 sender", sender, "permanent", "5.6.7"},
		{"UTF-8 address among the blind copies", hidden, "partly", "5.6.7"},
	} {
		everyWayNamed(t, tt.name, func(t *testing.T, p *peer, cfg Config) {
			p.offers[0] = "SIZE 5000"
			results := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{letter("a@x"), tt.message, letter("c@x")})
			if got, want := fates(results), "sent "+tt.want+" sent"; got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
			s := sendError(t, results[1].Error())
			if !strings.Contains(s.Error(), tt.text) || s.Class != mailer.Permanent {
				t.Errorf("got %v", s)
			}
			if tt.want == "permanent" && slices.ContainsFunc(p.said(), func(c string) bool { return strings.Contains(c, "b@x") }) {
				t.Errorf("said %q", p.said())
			}
		})
	}
}

// TestExtensions_known: each entry of the table sets something of its own, and is named where
// it is offered.
func TestExtensions_known(t *testing.T) {
	for _, k := range new(extensions).known() {
		ext := parseExtensions([]byte("peer greets\n" + k.keyword + " X"))
		if got := ext.names(); len(got) != 1 || got[0] != k.keyword {
			t.Errorf("%s: offered are %q", k.keyword, got)
		}
	}
	if ext := parseExtensions([]byte("peer greets\nAUTH")); len(ext.names()) != 0 {
		t.Error("AUTH without a mechanism is offered")
	}
}

func TestParseExtensions(t *testing.T) {
	ext := parseExtensions([]byte("peer greets\nPIPELINING\nsize 1000\nAUTH=LOGIN\nAUTH PLAIN cram-md5\n8BITMIME\nsmtputf8\nDSN\nSTARTTLS\nCHUNKING\nXFOO bar\n\n"))
	want := extensions{
		pipelining: true, chunking: true, eightBit: true, smtpUTF8: true, allBytes: true, dsn: true, startTLS: true,
		sized: true, size: 1000, login: true, auth: []string{"LOGIN", "PLAIN", "CRAM-MD5"},
	}
	if fmt.Sprint(ext) != fmt.Sprint(want) {
		t.Errorf("got %+v", ext)
	}
	if ext := parseExtensions([]byte("PIPELINING")); ext.pipelining {
		t.Error("the greeting is no extension")
	}
	for _, size := range []string{"99999999999999999999", "-1", "0", "", "35", "999", "35 MB", "35M", "1000000 OCTETS"} { // none of these is a limit that is meant
		odd := size
		if size == "0" {
			odd = "" // it means that there is none
		}
		if ext := parseExtensions([]byte("x\nSIZE " + size)); ext.size != 0 || !ext.sized || ext.oddSize != odd {
			t.Errorf("SIZE %s: %+v", size, ext)
		}
	}
}

// TestBackend_LMTP: one verdict for each recipient.
func TestBackend_LMTP(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script func(at event) string
		want   string
		wrong  string
		conns  int
	}{
		{"all", nil, "sent", "", 1},
		{"one refused at the end", func(at event) string {
			return map[string]string{"dot b@x": "550 5.2.1 off"}[at.step+" "+at.rcpt]
		}, "partly", "b@x permanent", 1},
		{"one refused at RCPT, one at the end", func(at event) string {
			return map[string]string{"RCPT a@x": "550 5.1.1 who?", "dot b@x": "452 4.2.2 full"}[at.step+" "+at.rcpt]
		}, "partly", "a@x permanent, b@x temporary", 1},
		{"all refused at the end", func(at event) string {
			return map[string]string{"dot": "450 4.2.0 later"}[at.step]
		}, "temporary", "a@x temporary, b@x temporary, c@x temporary", 1},
		{"closed in between", func(at event) string {
			return map[string]string{"dot b@x": "close"}[at.step+" "+at.rcpt]
		}, "partly", "b@x unknown, c@x unknown", 2},
		{"silent from the start", func(at event) string {
			return map[string]string{"dot a@x": "stall"}[at.step+" "+at.rcpt]
		}, "unknown", "", 2},
		{"all refused at RCPT", func(at event) string {
			return map[string]string{"RCPT": "550 5.1.1 who?"}[at.step]
		}, "permanent", "a@x permanent, b@x permanent, c@x permanent", 1},
		{"two at a time", twoAtATime(), "sent", "", 1},
	} {
		for _, offers := range [][]string{nil, {"PIPELINING", "CHUNKING"}} {
			t.Run(fmt.Sprintf("%s/%v", tt.name, offers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPeer(t, offers...)
					p.lmtp = true
					p.script = func(at event) string {
						if at.mail != "me@x" || tt.script == nil {
							return ""
						}
						return tt.script(at)
					}
					cfg := testConfig(t, p)
					cfg.LMTP, cfg.Chunking = true, Auto
					results := sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{letter("me@x", "a@x", "b@x", "c@x"), letter("z@x")})
					if got, want := fates(results), tt.want+" sent"; got != want {
						t.Errorf("got %s, want %s", got, want)
					}
					refused := results[0].Refused
					if results[0].Err != nil {
						refused = sendError(t, results[0].Err).Refused
					}
					var wrong []string
					for _, r := range refused {
						wrong = append(wrong, r.Recipient+" "+r.Class.String())
					}
					if got := strings.Join(wrong, ", "); got != tt.wrong || p.conns != tt.conns {
						t.Errorf("refused %s, %d connections", got, p.conns)
					}
					if !strings.HasPrefix(p.said()[0], "LHLO ") {
						t.Errorf("said %s", p.said()[0])
					}
				})
			})
		}
	}
}

// TestBackend_sequences are the replies of real servers to a message that goes wrong,
// as they were measured. The message before and the one behind it are sent.
func TestBackend_sequences(t *testing.T) {
	tests := []struct {
		name    string
		replies map[string]string
		want    string
		conns   int
		ways    string
	}{
		{"Postfix, recipient refused", map[string]string{"RCPT": "550 5.1.1 no", "DATA": "554 5.5.1 Error: no valid recipients",
			"chunk refused": "554 5.5.1 Error: no valid recipients"}, "permanent", 1, ""},
		{"go-smtp, recipient refused", map[string]string{"RCPT": "550 5.1.1 no", "DATA": "502 5.5.1 Missing RCPT TO command.",
			"chunk refused": "502 5.5.1 Missing RCPT TO command."}, "permanent", 1, ""},
		{"smtp-sink, recipient refused", map[string]string{"RCPT": "500 5.3.0 Error: command failed", "DATA": "503 5.5.1 Error: need RCPT command"},
			"permanent", 1, "strict pipelined"},
		{"recipient deferred", map[string]string{"RCPT": "450 4.3.0 later", "DATA": "554 5.5.1 no valid recipients"}, "temporary", 1, ""},
		{"Postfix, sender refused at RCPT", map[string]string{"RCPT": "553 5.7.1 not you", "DATA": "554 5.5.1 no valid recipients"}, "permanent", 1, ""},
		{"go-smtp, sender refused", map[string]string{"MAIL": "553 5.7.1 not you", "RCPT without MAIL": "502 5.5.1 Missing MAIL FROM command.",
			"DATA": "502 5.5.1 Missing RCPT TO command.", "chunk refused": "502 5.5.1 Missing RCPT TO command."}, "permanent", 1, ""},
		{"syntax error at MAIL", map[string]string{"MAIL": "501 5.1.7 Bad sender address syntax"}, "permanent", 1, ""},
		{"too big for SIZE", map[string]string{"MAIL": "552 5.3.4 Message size exceeds fixed limit"}, "permanent", 1, ""},
		{"too big at the end", map[string]string{"dot": "552 5.3.4 Error: message file too big"}, "permanent", 1, ""},
		{"too big a chunk", map[string]string{"dot": "552 5.3.4 Chunk exceeds message size limit"}, "permanent", 1, "chunked"},
		{"bare LF", map[string]string{"dot": "550 5.5.2 bare <LF> received"}, "permanent", 1, ""},
		{"TLS wanted", map[string]string{"MAIL": "530 5.7.0 Must issue a STARTTLS command first"}, "unavailable", 1, ""},
		{"login wanted", map[string]string{"MAIL": "530 5.7.1 Authentication required"}, "unavailable", 1, ""},
		{"login wanted for a recipient", map[string]string{"RCPT": "530 5.7.1 Authentication required"}, "temporary", 1, ""},
		{"Postfix, a foreign domain", map[string]string{"RCPT": "454 4.7.1 <to@example.com>: Relay access denied"}, "temporary", 1, ""},
		{"out of step", map[string]string{"MAIL": "503 5.5.1 Error: nested MAIL command"}, "temporary", 2, "strict pipelined"},
		{"out of step at DATA", map[string]string{"DATA": "503 5.5.1 Error: bad sequence"}, "temporary", 2, "strict pipelined"},
		{"250 to DATA", map[string]string{"DATA": "250 fine"}, "temporary", 2, "strict pipelined"},
		{"354 in several lines", map[string]string{"DATA": "354-go|354 ahead"}, "sent", 1, "strict pipelined"},
		{"250 in several lines", map[string]string{"dot": "250-2.0.0 well|250-2.0.0 done|250 2.0.0 queued"}, "sent", 1, ""},
		{"another 2yz", map[string]string{"dot": "251 queued elsewhere"}, "sent", 1, ""},
		{"a greeting for a verdict", map[string]string{"dot": "220 ready"}, "unknown", 2, "strict pipelined"},
		{"another 3yz", map[string]string{"DATA": "350 go ahead"}, "sent", 1, "strict pipelined"},
		{"a challenge to DATA", map[string]string{"DATA": "334 "}, "temporary", 2, "strict pipelined"},
		{"acceptance in a long line", map[string]string{"dot": "250 2.0.0 " + strings.Repeat("queued ", 2000)}, "sent", 1, ""},
		{"refusal in a long line", map[string]string{"dot": "550 5.7.1 " + strings.Repeat("policy ", 2000)}, "permanent", 1, ""},
		{"refusal of a recipient in a long line", map[string]string{"RCPT": "550-5.7.1 " + strings.Repeat("policy ", 2000) + "|550 5.7.1 see above"}, "permanent", 1, ""},
		{"RFC 7504, no mail here", map[string]string{"MAIL": "521 does not accept mail"}, "unavailable", 1, ""},
		{"RFC 7504, no mail there", map[string]string{"RCPT": "556 5.1.10 domain does not accept mail"}, "permanent", 1, ""},
		{"Postfix, 521 for a client", map[string]string{"MAIL": "521 5.7.1 not you"}, "permanent", 1, ""},
		{"250 alone", map[string]string{"dot": "250"}, "sent", 1, ""},
		{"too many errors", map[string]string{"MAIL": "421 4.7.0 mx Error: too many errors"}, "unavailable", 3, "strict pipelined"},
		{"throttled", map[string]string{"MAIL": "454 4.7.0 too fast"}, "unavailable", 1, ""},
	}
	for _, tt := range tests {
		for _, w := range ways() {
			if tt.ways != "" && !strings.Contains(tt.ways, w.name) {
				continue
			}
			w.run(t, tt.name, func(t *testing.T, p *peer, cfg Config) {
				p.script = func(at event) string {
					if at.mail == "b@x" {
						return tt.replies[at.step]
					}
					return ""
				}
				want := "sent " + tt.want + " sent"
				if got := fates(sendAll(t, newBackend(t, cfg), letters(3))); got != want || p.conns != tt.conns {
					t.Errorf("got %s with %d connections, want %s with %d", got, p.conns, want, tt.conns)
				}
				checkTaken(t, p, want)
				for _, m := range p.taken() {
					if strings.Contains(m.body, "From: ") && !strings.Contains(m.body, "From: "+m.from) {
						t.Errorf("the message of another went out as %s's", m.from)
					}
				}
			})
		}
	}
}

// TestBackend_manyRecipients: thousands of replies come while commands are still being
// written, and neither side waits for the other.
func TestBackend_manyRecipients(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		cfg.Trace = nil
		var to []string
		for i := range 3000 {
			to = append(to, fmt.Sprintf("r%d@x", i))
		}
		big := letter("a@x", to...)
		big.Body = strings.Repeat("0123456789\n", 20000)
		if got := fates(sendAll(t, newBackend(t, cfg), []*mailer.EmailMessage{big, big, letter("b@x")})); got != "sent sent sent" {
			t.Error(got)
		}
		if n := len(p.taken()[1].to); n != 3000 {
			t.Errorf("%d recipients", n)
		}
	})
}

// TestBackend_rendered: what arrives is what WriteTo writes, dots and all.
func TestBackend_rendered(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		var messages []*mailer.EmailMessage
		for i, body := range []string{"", ".", "..", ".\n.\n", "\n.\n", "a\n.b\n..c\n", "no end", strings.Repeat(".\n", 50000)} {
			m := letter(fmt.Sprintf("m%d@x", i))
			m.Body = body
			m.Attach("x.bin", []byte{0, 1, 2, '\r', '\n', '.', '\r', '\n', 255}, "application/octet-stream")
			messages = append(messages, m)
		}
		sendAll(t, newBackend(t, cfg), messages)
		for i, m := range messages {
			var want strings.Builder
			if _, err := m.WriteTo(&want); err != nil {
				t.Fatal(err)
			}
			if got := p.taken()[i].body; got != want.String() {
				t.Errorf("message %d: got %q\nwant %q", i, got, want.String())
			}
		}
	})
}

func TestMessage_inspect(t *testing.T) {
	for _, tt := range []struct {
		body string
		ok   bool
	}{
		{"A: b\r\n\r\nc\r\n", true}, {"A: b\r\n\r\nc", true}, {"A: b\r\n\r\n\r\n\r\n", true},
		{"A: b\n\r\n", false}, {"A: b\r\n\rc\r\n", false}, {"A: b\r\n\r\n\n.\r\n", false}, {"A: \x00\r\n", false},
		{"A: b\r\n\r\n" + strings.Repeat("x", 998) + "\r\n", true}, {"A: b\r\n\r\n" + strings.Repeat("x", 999) + "\r\n", false},
		{"A: b\r\r\n", false}, {"\r", false},
	} {
		m := &message{body: []byte(tt.body)}
		if err := m.inspect(); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.body, err)
		}
		if tt.ok && !strings.HasSuffix(string(m.body), "\r\n") {
			t.Errorf("%q does not end", m.body)
		}
	}
}
