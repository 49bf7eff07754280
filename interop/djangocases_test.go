package interop

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

type djangoCase struct {
	name    string
	message *mailer.EmailMessage

	exception string // the rule of Django that we do not follow, and why
	weRefuse  bool   // and what we do instead is to refuse the message
}

// base is a small complete message, changed by the functions given.
func base(change ...func(m *mailer.EmailMessage)) *mailer.EmailMessage {
	m := &mailer.EmailMessage{
		Subject:   "Subject",
		Body:      "Content\n",
		FromEmail: "from@example.com",
		To:        []string{"to@example.com"},
		MessageID: "<fixed@example.com>",
		Date:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Charset:   "utf-8",
		Headers:   map[string]string{"Date": "Fri, 02 Jan 2026 03:04:05 +0000"},
	}
	for _, f := range change {
		f(m)
	}
	return m
}

func header(name, value string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Headers[name] = value }
}

func attach(filename, content, mimetype string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Attach(filename, []byte(content), mimetype) }
}

func alternative(content, mimetype string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.AttachAlternative(content, mimetype) }
}

func body(s string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Body = s }
}

func subject(s string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Subject = s }
}

func to(list ...string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.To = list }
}

func from(s string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.FromEmail = s }
}

func charset(s string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Charset = s }
}

func subtype(s string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.ContentSubtype = s }
}

const eml = "From: a@example.com\r\nTo: b@example.com\r\nSubject: inner\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n"

const eightBitEml = "From: a@example.com\r\nSubject: inner\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n\r\nH\u00e9llo\r\n"

// handWritten has a case for each rule in which Django and we could differ.
func handWritten() []djangoCase {
	return []djangoCase{
		{name: "plain", message: base()},
		{name: "empty body", message: base(body(""))},
		{name: "no recipients", message: base(to())},
		{name: "no newline at the end", message: base(body("no newline"))},
		{name: "html only", message: base(subtype("html"), body("<p>Hi</p>\n"))},
		{name: "html alternative", message: base(alternative("<p>H\u00e9</p>\n", "text/html"))},
		{name: "empty body with alternative", message: base(body(""), alternative("<p>Hi</p>\n", "text/html"))},
		{name: "empty body with attachment", message: base(body(""), attach("a.txt", "text\n", "text/plain"))},
		{name: "empty body with alternative and attachment", message: base(body(""), alternative("<p>Hi</p>\n", "text/html"), attach("a.pdf", "%PDF-1", ""))},
		{name: "alternative and attachments", message: base(alternative("<p>Hi</p>\n", "text/html"), attach("a.txt", "a\n", ""), attach("b.png", "\x89PNG\r\n\x1a\n", ""))},
		{name: "calendar", message: base(alternative("BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", "text/calendar; method=REQUEST"))},
		{name: "non-text alternative", message: base(alternative("{\"a\": 1}", "application/json"))},
		{name: "three alternatives", message: base(alternative("<p>Hi</p>\n", "text/html"), alternative("*Hi*\n", "text/enriched"), alternative("BEGIN:VCALENDAR\r\n", "text/calendar"))},

		{name: "attachment guessed by name", message: base(attach("a.PNG", "\x89PNG\r\n\x1a\n", ""))},
		{name: "csv with semicolons", message: base(attach("data.csv", "a;b\n1;2\n", ""))},
		{name: "json attachment", message: base(attach("data.json", "{\"a\": 1}\n", ""))},
		{name: "binary attachment", message: base(attach("x.bin", "\x00\x01\r\n\n\r\xff", "application/octet-stream"))},
		{name: "text attachment that is not UTF-8", message: base(attach("a.txt", "caf\xe9\n", ""))},
		{name: "text attachment in UTF-8", message: base(attach("a.txt", "caf\u00e9\n", ""))},
		{name: "non-ASCII file name", message: base(attach("une pi\u00e8ce jointe.html", "<p>\u4e94</p>\n", "text/html"))},
		{name: "file name with quotes", message: base(attach("a \"b\" \\c.txt", "a\n", "text/plain"))},
		{name: "long file name", message: base(attach(strings.Repeat("name ", 40)+".txt", "a\n", "text/plain"))},
		{name: "longest file name", message: base(attach(strings.Repeat("\u65e5", 251)+".pdf", "%PDF-1", ""))},
		{name: "Japanese file name", message: base(attach("\u65e5\u672c\u8a9e\u306e\u30d5\u30a1\u30a4\u30eb.pdf", "%PDF-1", ""))},
		{name: "attached message", message: base(attach("m.eml", eml, "message/rfc822"))},
		{name: "attached message by name", message: base(attach("m.eml", eml, ""))},
		{name: "attached 8bit message", message: base(attach("m.eml", eightBitEml, "message/rfc822")), exception: "E59: Django fails"},
		{name: "same attachment twice", message: base(attach("a.txt", "a\n", ""), attach("a.txt", "a\n", ""))},
		{name: "attachment without name", message: base(attach("", "%PDF-1", "application/pdf")), exception: "E54: Django 3.2 leaves out Content-Disposition, 6.0 does not"},
		{name: "attachment without name and type", message: base(attach("", "text", "")), exception: "E47: Django cannot guess"},
		{name: "tar.gz", message: base(attach("x.tar.gz", "\x1f\x8b\x08", "")), exception: "E48: Django forgets the compression"},
		{name: "type in capitals", message: base(attach("a.txt", "a\n", "TEXT/PLAIN"))},
		{name: "unknown extension, text", message: base(attach("a.unknownext", "text\n", "")), exception: "E46: we look at the content as well"},

		{name: "UTF-8 body", message: base(body("Gr\u00fc\u00dfe \u65e5\u672c\u8a9e \U0001F600\n"))},
		{name: "latin-1", message: base(charset("iso-8859-1"), body("Firstname S\u00fcrname\n"), subject("S\u00fcrname"))},
		{name: "iso-2022-jp", message: base(charset("iso-2022-jp"), body("\u3053\u3093\u306b\u3061\u306f\n"), subject("\u65e5\u672c\u8a9e"))},
		{name: "shift_jis", message: base(charset("shift_jis"), body("\u3053\u3093\u306b\u3061\u306f\n"), subject("\u65e5\u672c\u8a9e"))},
		{name: "euc-jp", message: base(charset("euc-jp"), body("\u3053\u3093\u306b\u3061\u306f\n"), subject("\u65e5\u672c\u8a9e"))},
		{name: "koi8-r", message: base(charset("koi8-r"), body("\u041f\u0440\u0438\u0432\u0435\u0442\n"), subject("\u041f\u0440\u0438\u0432\u0435\u0442"))},
		{name: "windows-1251", message: base(charset("windows-1251"), body("\u041f\u0440\u0438\u0432\u0435\u0442\n"), subject("\u041f\u0440\u0438\u0432\u0435\u0442"))},
		{name: "charset cannot hold it", message: base(charset("iso-8859-1"), body("\u65e5\u672c\n")), exception: "E38: Django fails where we take UTF-8"},
		{name: "long line", message: base(body(strings.Repeat("x", 1200) + "\n"))},
		{name: "long UTF-8 line", message: base(body(strings.Repeat("\u00e9", 1200) + "\n"))},
		{name: "From at the beginning of a line", message: base(body("From here on\n From there\n"))},
		{name: "dots at the beginning of lines", message: base(body(".\n..\n.a\n"))},
		{name: "line ends of all kinds", message: base(body("a\nb\r\nc\rd\n"))},
		{name: "no line ends", message: base(body("a\u2028b\u2029c\u0085d\vf\fg\n"))},
		{name: "trailing white space", message: base(body("a \nb\t\n\u00e9 \n"))},
		{name: "header in the body", message: base(body("Subject: not a header\n\nText\n"))},
		{name: "boundary-like body", message: base(body("--=_boundary\n--\n"), alternative("<p>--</p>\n", "text/html"))},

		{name: "name", message: base(from("Fred Smith <fred@example.com>"))},
		{name: "name with comma", message: base(to("\"Smith, Fred\" <fred@example.com>", "b@example.com"))},
		{name: "name with quotes", message: base(to("\"Fred \\\"Freddy\\\" Smith\" <fred@example.com>"))},
		{name: "non-ASCII name", message: base(from("\"Firstname S\u00fcrname\" <from@example.com>"), to("\"S\u00fcrname, Firstname\" <to@example.com>", "other@example.com"))},
		{name: "non-ASCII name without quotes", message: base(to("Firstname S\u00fcrname <to@example.com>"))},
		{name: "Japanese name", message: base(to("\u5c71\u7530\u592a\u90ce <taro@example.jp>"))},
		{name: "encoded name", message: base(to("=?utf-8?q?S=C3=BCrname?= <to@example.com>"))},
		{name: "dots in name", message: base(to("J. R. Smith <jr@example.com>"))},
		{name: "comment", message: base(to("to@example.com (To Example)"))},
		{name: "local part only", message: base(to("root"))},
		{name: "quoted local part", message: base(to("\"very.(),:;<>[].unusual\"@example.com"))},
		{name: "two at signs in quotes", message: base(to("\"to@other.com\"@example.com"))},
		{name: "IDN", message: base(from("from@\u00f6\u00e4\u00fc.com"), to("to@\u00f6\u00e4\u00fc.com", "N\u00e4me <x@\u65e5\u672c.jp>"))},
		{name: "IDN in punycode", message: base(to("to@xn--4ca0bs.com"))},
		{name: "sharp s", message: base(to("to@stra\u00dfe.example"))},
		{name: "address literal", message: base(to("to@[192.0.2.1]"))},
		{name: "non-ASCII local part", message: base(to("t\u00f6@example.com")), exception: "M17: Django makes an encoded word of it"},
		{name: "empty recipients", message: base(to("a@example.com", "")), exception: "E8: Django writes an empty address"},
		{name: "many recipients", message: base(to(many("recipient-number-%d@example.com", 60)...))},
		{name: "many names", message: base(to(many("R\u00e9cipient Number %d <r%d@example.com>", 30)...))},
		{name: "recipients twice", message: base(to("a@example.com", "a@example.com"))},
		{name: "cc and bcc", message: base(func(m *mailer.EmailMessage) {
			m.Cc, m.Bcc = []string{"cc@example.com", "C C <cc2@example.com>"}, []string{"bcc@example.com"}
		})},
		{name: "reply-to", message: base(func(m *mailer.EmailMessage) { m.ReplyTo = []string{"a@example.com", "B\u00e9 <b@example.com>"} })},
		{name: "only cc", message: base(to(), func(m *mailer.EmailMessage) { m.Cc = []string{"cc@example.com"} })},

		{name: "From in headers", message: base(header("From", "Other <other@example.com>"))},
		{name: "To in headers", message: base(header("To", "list@example.com")), exception: "E17: Django 3.2 writes To twice"},
		{name: "lower case from in headers", message: base(header("from", "other@example.com")), exception: "E18: Django writes both"},
		{name: "lower case to in headers", message: base(header("to", "list@example.com")), exception: "E18: Django writes both"},
		{name: "To only in headers", message: base(to(), header("To", "list@example.com"))},
		{name: "undisclosed recipients", message: base(to(), header("To", "undisclosed-recipients:;"))},
		{name: "Message-ID in headers", message: base(header("message-id", "<other@example.com>"))},
		{name: "Message-ID without brackets in headers", message: base(header("Message-ID", "other@example.com")), exception: "RFC 5322, 3.6.4: Django sends it without"},
		{name: "what is no Message-ID", message: base(header("Message-ID", "foo")), exception: "RFC 5322, 3.6.4: Django sends it", weRefuse: true},
		{name: "what is no date", message: base(header("Date", "tomorrow")), exception: "RFC 5322, 3.3: Django sends it", weRefuse: true},
		{name: "From that is no address", message: base(header("From", "Support Team")), exception: "RFC 5322, 3.6.2: Django sends it", weRefuse: true},
		{name: "two authors", message: base(header("From", "a@example.com, b@example.com")), exception: "RFC 5322, 3.6.2: Django leaves out the Sender"},
		{name: "two authors and a sender", message: base(header("From", "a@example.com, b@example.com"), header("Sender", "s@example.com"))},
		{name: "group", message: base(to(), header("To", "Friends: a@example.com, B <b@example.com>;"))},
		{name: "URL", message: base(header("List-Unsubscribe", "<https://example.com/a?n=J%C3%B6rg>, <mailto:a@example.com>"))},
		{name: "URL beyond ASCII", message: base(header("List-Unsubscribe", "<https://example.com/a?n=J\u00f6rg>")), exception: "RFC 2047, 5: Django makes an encoded word of it"},
		{name: "references", message: base(header("References", "<a@example.com> <b@example.com>"))},
		{name: "Sender", message: base(header("Sender", "S\u00e9 <s@example.com>"))},
		{name: "Bcc in headers", message: base(header("Bcc", "secret@example.com")), exception: "E11: Django shows it and does not deliver to it"},
		{name: "Return-Path", message: base(header("Return-Path", "<bounce@example.com>")), exception: "(port) ours sets the envelope sender"},
		{name: "Subject in headers", message: base(header("Subject", "Other")), exception: "E33: refused from Django 6.0 on", weRefuse: true},
		{name: "MIME-Version in headers", message: base(header("mime-version", "2.0")), exception: "E34: refused from Django 6.0 on", weRefuse: true},
		{name: "newline in header name", message: base(header("X-A: b\nX-B", "c")), exception: "E29: Django lets it inject a field", weRefuse: true},
		{name: "NUL in subject", message: base(subject("a\x00b")), exception: "M24: Django sends it", weRefuse: true},
		{name: "numbers in headers", message: base(header("X-Priority", "1"))},
		{name: "non-ASCII header", message: base(header("X-Note", "Gr\u00fc\u00dfe aus K\u00f6ln"))},
		{name: "empty header", message: base(header("X-Empty", ""))},
		{name: "header with tabs", message: base(header("X-Tab", "a\tb"))},
		{name: "long unbreakable header", message: base(header("List-Unsubscribe", "<https://example.com/"+strings.Repeat("u", 200)+">"))},
		{name: "references", message: base(header("References", strings.Join(many("<%d.reference@mail.example.com>", 20), " ")))},

		{name: "empty subject", message: base(subject(""))},
		{name: "UTF-8 subject", message: base(subject("Gr\u00fc\u00dfe aus K\u00f6ln"))},
		{name: "Japanese subject", message: base(subject(strings.Repeat("\u65e5\u672c\u8a9e\u306e\u4ef6\u540d ", 12)))},
		{name: "emoji subject", message: base(subject("\U0001F600 \U0001F680 Launch!"))},
		{name: "long ASCII subject", message: base(subject(strings.Repeat("long subject ", 20) + "end"))},
		{name: "subject with runs of blanks", message: base(subject("a   b" + strings.Repeat(" ", 90) + "c"))},
		{name: "subject with encoded word", message: base(subject("=?utf-8?q?Gr=C3=BC=C3=9Fe?="))},
		{name: "subject with blanks around UTF-8", message: base(subject(" \u00e9 "))},
		{name: "subject with =?", message: base(subject("\u00e9 =?utf-8?q?a?="))},
		{name: "subject with U+2028", message: base(subject("a\u2028b")), exception: "M23: Django breaks the line there"},
		{name: "subject with U+0085", message: base(subject("a\u0085b")), exception: "M23: Django breaks the line there"},
	}
}

func many(format string, n int) []string {
	var list []string
	for i := range n {
		list = append(list, strings.ReplaceAll(format, "%d", fmt.Sprint(i)))
	}
	return list
}

// generated makes messages of pieces that go together in any way.
func generated() []djangoCase {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var cases []djangoCase
	for i := range 150 {
		m := base(
			subject(pick("Hello", "Gr\u00fc\u00dfe", "\u65e5\u672c\u8a9e\u306e\u4ef6\u540d", "", "An ASCII subject of more than seventy-eight characters, so that it has to be folded somewhere")),
			body(pick("", "Hi\n", "Gr\u00fc\u00dfe\n", "\u65e5\u672c\u8a9e\n", strings.Repeat("a line of text\r\n", 20), strings.Repeat("w ", 700)+"\n", "a=b; c = d\n", "tab\there \n")),
			from(pick("a@example.com", "A B <a@example.com>", "\"B, A\" <a@example.com>", "\u00c4 B <a@example.com>", "\"J. B.\" <a@example.com>")),
			subtype(pick("plain", "plain", "html")),
		)
		m.To = nil
		for j := range r.IntN(4) {
			m.To = append(m.To, pick("t%d@example.com", "T %d <t%d@example.com>", "\"T, %d\" <t%d@example.com>", "T\u00e9 %d <t%d@example.com>", "t%d@b\u00fccher.example"))
			m.To[j] = strings.ReplaceAll(m.To[j], "%d", fmt.Sprint(j))
		}
		for range r.IntN(3) {
			m.Cc = append(m.Cc, pick("c@example.com", "\u65e5\u672c <c@example.jp>"))
		}
		if r.IntN(3) == 0 {
			m.Bcc = []string{"hidden@example.com"}
		}
		if r.IntN(3) == 0 {
			m.ReplyTo = []string{pick("r@example.com", "R\u00e9 <r@example.com>")}
		}
		if r.IntN(2) == 0 {
			m.Headers["X-"+pick("A", "Mailer", "long-Name")] = pick("1", "\u00fcber", "some words, and more words; and even more words than fit in one single line of a header", "")
		}
		for range r.IntN(3) {
			m.AttachAlternative(pick("<p>Hi</p>\n", "<p>\u00e9</p>", "\u65e5\u672c\n"), pick("text/html", "text/html", "text/calendar; method=CANCEL"))
		}
		for range r.IntN(3) {
			a := [][2]string{{"a.txt", "text\n"}, {"b.pdf", "%PDF-1\xff"}, {"\u00e9.csv", "a,\u00e9\n"}, {"c.jpg", "\xff\xd8\xff\x00"}, {"m.eml", eml}}[r.IntN(5)]
			m.Attach(a[0], []byte(a[1]), "")
		}
		cases = append(cases, djangoCase{name: fmt.Sprintf("generated %d", i), message: m})
	}
	return cases
}
