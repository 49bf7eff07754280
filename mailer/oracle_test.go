package mailer_test

import (
	"bytes"
	"mime"
	"net/mail"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/charmap"

	"github.com/mailpouch/mailpouch/mailer"
)

// field is a header field as it stands in a message, unfolded by the letter of RFC 5322,
// 2.2.3: only the line ends go.
type field struct{ name, value string }

// headerFields reads the header of a message line by line, and ends the test if a line in it
// is blank: for it is one in the middle of the header, where the rest of it becomes body. The
// end is told from where the body must begin, if body is given.
func headerFields(t testing.TB, rendered string) (fields []field, body string) {
	t.Helper()
	header, body, found := strings.Cut(rendered, "\r\n\r\n")
	if !found {
		t.Fatalf("the header has no end:\n%q", rendered)
	}
	for line := range strings.SplitSeq(header, "\r\n") {
		name, value, isField := strings.Cut(line, ":")
		last := len(fields) - 1
		switch {
		case strings.Trim(line, " \t") == "":
			t.Fatalf("has a blank line in its header:\n%q", header)
		case strings.ContainsAny(line, "\r\n\x00"):
			t.Fatalf("has a line end or a NUL in the line %q", line)
		case line[0] == ' ' || line[0] == '\t':
			if last < 0 {
				t.Fatalf("begins with white space:\n%q", header)
			}
			fields[last].value += line
		case !isField || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }):
			t.Fatalf("has the line %q in its header", line)
		default:
			fields = append(fields, field{name, value})
		}
	}
	return fields, body
}

// canonical makes names equal that are the same.
func canonical(name string) string {
	return textproto.CanonicalMIMEHeaderKey(strings.ToLower(name))
}

// checkFields demands that a message has every field that was set, each with what was given,
// and no other. net/mail has to find the same ones.
func checkFields(t testing.TB, m *mailer.EmailMessage, rendered string) {
	t.Helper()
	fields, _ := headerFields(t, rendered)
	got := map[string]string{}
	for _, f := range fields {
		name := canonical(f.name)
		if _, twice := got[name]; twice {
			t.Fatalf("has two fields %q", f.name)
		}
		got[name] = strings.Trim(f.value, " \t")
	}
	checkNetMail(t, got, rendered)
	for name, check := range wantFields(m) {
		value, there := got[name]
		if check == nil { // may be there
			delete(got, name)
			continue
		}
		if !there {
			t.Fatalf("has no field %q:\n%q", name, rendered)
		}
		check(t, name, value)
		delete(got, name)
	}
	for name := range got {
		t.Fatalf("has the field %q, which nobody set:\n%q", name, rendered)
	}
}

// checkNetMail demands that net/mail finds the fields that were found by the letter.
func checkNetMail(t testing.TB, fields map[string]string, rendered string) {
	t.Helper()
	for name := range fields {
		if !isToken(name) {
			return // net/mail knows no such names, though RFC 5322 has them
		}
	}
	parsed, err := mail.ReadMessage(strings.NewReader(rendered))
	if err != nil {
		t.Fatalf("net/mail: %v\n%q", err, rendered)
	}
	for name, value := range fields {
		if all := parsed.Header[name]; len(all) != 1 || oneBlank(all[0]) != oneBlank(value) {
			t.Fatalf("net/mail finds %q in the field %q, want %q", all, name, value)
		}
	}
	if len(parsed.Header) != len(fields) {
		t.Fatalf("net/mail finds %d fields, want %d", len(parsed.Header), len(fields))
	}
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	})
}

// oneBlank makes all white space single blanks, as net/mail does where a line was folded.
func oneBlank(s string) string { return strings.Join(strings.Fields(s), " ") }

// wantFields has a check of the value for every field that a message must have.
func wantFields(m *mailer.EmailMessage) map[string]func(t testing.TB, name, value string) {
	want := map[string]func(t testing.TB, name, value string){
		"Subject":      sameText(m.Subject),
		"Mime-Version": sameText("1.0"),
		"Content-Type": isMediaType,
	}
	if len(m.Alternatives) == 0 && len(m.Attachments) == 0 {
		want["Content-Transfer-Encoding"] = anything
	} else if m.Body == "" && len(m.Alternatives) == 0 && len(m.Attachments) == 1 || m.Body == "" && len(m.Alternatives) == 1 && len(m.Attachments) == 0 {
		// One part alone may be the message, or a multipart of one.
		want["Content-Type"] = isMediaType
	}
	lists := map[string][]string{"From": {m.FromEmail}, "To": m.To, "Cc": m.Cc, "Reply-To": m.ReplyTo}
	for name, list := range lists {
		if list = slices.DeleteFunc(slices.Clone(list), isBlank); len(list) > 0 {
			want[name] = sameAddresses(list)
		}
	}
	if !m.Date.IsZero() {
		want["Date"] = sameDate(m.Date)
	}
	if m.MessageID != "" {
		want["Message-Id"] = sameParts(m.MessageID)
	}
	for name, value := range m.Headers {
		switch name = canonical(name); {
		case name == "Bcc", name == "Resent-Bcc", name == "Return-Path":
		case isBlank(value) && (name == "From" || name == "Date"), value == "" && name == "Message-Id":
		case isStructured(name) && isBlank(value):
			delete(want, name)
		case isAddressField(name):
			want[name] = sameAddressText(value)
		case isStructured(name):
			want[name] = sameParts(value)
		default:
			want[name] = sameText(value)
		}
	}
	for from, sender := range map[string]string{"From": "Sender", "Resent-From": "Resent-Sender"} {
		if _, given := want[sender]; given {
			continue
		}
		switch n := authors(m, from); {
		case n > 1:
			want[sender] = sameAddresses([]string{m.FromEmail})
		case n < 0: // net/mail cannot count them
			want[sender] = nil
		}
	}
	return want
}

// authors is how many addresses the field from of Headers has, or -1.
func authors(m *mailer.EmailMessage, from string) int {
	for name, value := range m.Headers {
		if canonical(name) != from || isBlank(value) {
			continue
		}
		list, err := addressParser().ParseList(value)
		if err != nil {
			return -1
		}
		return len(list)
	}
	return 0
}

// isStructured reports whether a field has a grammar, so that it may not be empty.
func isStructured(name string) bool {
	return isAddressField(name) || slices.Contains(structured, name)
}

var structured = []string{
	"Date", "Resent-Date", "Message-Id", "Resent-Message-Id", "Original-Message-Id", "In-Reply-To", "References", "Supersedes",
	"List-Help", "List-Subscribe", "List-Unsubscribe", "List-Post", "List-Owner", "List-Archive", "Archived-At", "List-Id", "Keywords",
	"List-Unsubscribe-Post", "Auto-Submitted", "Importance", "Priority", "Sensitivity", "Expires", "Reply-By", "Precedence",
	"X-Priority", "X-Msmail-Priority", "Autocrypt", "Received", "Authentication-Results", "Dkim-Signature",
}

// sameParts demands the parts of a value with a grammar: with the white space, the quotes and the
// angle brackets that it has to have, percent-encoded and decoded as one likes.
func sameParts(want string) func(testing.TB, string, string) {
	const free = " \t<>\"\\,"
	drop := func(r rune) rune {
		if strings.ContainsRune(free, r) {
			return -1
		}
		return r
	}
	escape := regexp.MustCompile("%[0-9A-Fa-f]{2}")
	parts := func(s string) string {
		s = escape.ReplaceAllStringFunc(strings.Map(drop, decodeHeader(s)), func(s string) string {
			decoded, _ := url.PathUnescape(s)
			return decoded
		})
		return strings.Map(drop, s)
	}
	return func(t testing.TB, name, value string) {
		t.Helper()
		if strings.ContainsFunc(value, func(r rune) bool { return r > '~' }) {
			t.Fatalf("%s: got %q, which is not ASCII", name, value)
		}
		host := strings.Contains(want, ":") && strings.ContainsFunc(want, func(r rune) bool { return r > '~' }) // maybe, in punycode
		if parts(value) != parts(want) && !host {
			t.Fatalf("%s: got %q, want %q", name, value, want)
		}
	}
}

func isBlank(s string) bool { return strings.Trim(s, " \t") == "" }

func isAddressField(name string) bool {
	return slices.Contains([]string{"From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Reply-To",
		"Disposition-Notification-To", "Author", "Mail-Followup-To", "Mail-Reply-To", "Return-Receipt-To", "Errors-To"}, name)
}

func anything(testing.TB, string, string) {}

func isMediaType(t testing.TB, name, value string) {
	t.Helper()
	if _, _, err := mime.ParseMediaType(value); err != nil {
		t.Fatalf("%s: %v: %q", name, err, value)
	}
}

// sameText demands a text as it was given, or in encoded words that say it.
func sameText(want string) func(testing.TB, string, string) {
	return func(t testing.TB, name, value string) {
		t.Helper()
		want := strings.Trim(want, " \t")
		if value == want {
			return
		}
		if got := strings.Trim(decodeHeader(value), " \t"); got != want {
			t.Fatalf("%s: got %q, which says %q, want %q", name, value, got, want)
		}
	}
}

func decodeHeader(s string) string {
	text, err := decoder().DecodeHeader(s)
	if err != nil {
		return "cannot be decoded: " + err.Error()
	}
	return text
}

func sameDate(want time.Time) func(testing.TB, string, string) {
	return func(t testing.TB, name, value string) {
		t.Helper()
		if got, err := mail.ParseDate(value); err != nil || !got.Equal(want.Truncate(time.Second)) {
			t.Fatalf("%s: got %q, %v, want %v", name, value, err, want)
		}
	}
}

// sameAddressText is sameAddresses of a whole field, which may be no addresses at all.
func sameAddressText(want string) func(testing.TB, string, string) {
	return func(t testing.TB, name, value string) {
		t.Helper()
		given, err := addressParser().ParseList(want)
		if trimmed := strings.Trim(want, " \t"); value == trimmed || decodeHeader(value) == trimmed || err != nil && mustSay(want, value) {
			return
		}
		if err != nil {
			t.Fatalf("%s: got %q, want %q", name, value, want)
		}
		got, err := addressParser().ParseList(value)
		if err != nil || len(got) != len(given) {
			t.Fatalf("%s: got %q, %v, want %q", name, value, err, want)
		}
		for i := range got {
			if !sameName(got[i].Name, given[i].Name, want) || bareAddress(got[i].Address) != bareAddress(given[i].Address) {
				t.Fatalf("%s: got %v, want %v", name, got[i], given[i])
			}
		}
	}
}

// sameAddresses demands each address of a list, with the name that was given for it.
func sameAddresses(list []string) func(testing.TB, string, string) {
	return func(t testing.TB, name, value string) {
		t.Helper()
		var given []*mail.Address
		for _, entry := range list {
			parsed, err := addressParser().Parse(entry)
			if err != nil {
				if !mustSay(strings.Join(list, ","), value) {
					t.Fatalf("%s: got %q, want %q", name, value, list)
				}
				return
			}
			given = append(given, parsed)
		}
		got, err := addressParser().ParseList(value)
		if err != nil || len(got) != len(given) {
			t.Fatalf("%s: got %q, %v, want %q", name, value, err, list)
		}
		for i := range got {
			if !sameName(got[i].Name, given[i].Name, list[i]) || bareAddress(got[i].Address) != bareAddress(given[i].Address) {
				t.Fatalf("%s: got %q %q, want %q %q", name, got[i].Name, got[i].Address, given[i].Name, given[i].Address)
			}
		}
	}
}

// sameName compares names. net/mail takes some comments for one, with other blanks.
func sameName(got, given, text string) bool {
	if strings.Contains(text, "(") {
		return given == "" || strings.Join(strings.Fields(got), "") == strings.Join(strings.Fields(given), "")
	}
	return got == given
}

func addressParser() *mail.AddressParser { return &mail.AddressParser{WordDecoder: decoder()} }

// bareAddress is an address as the envelope has it.
func bareAddress(a string) string {
	at := strings.LastIndexByte(a, '@')
	e, err := (&mailer.EmailMessage{FromEmail: "x", To: []string{(&mail.Address{Address: a}).String()}}).Envelope()
	if err != nil || len(e.To) != 1 || at < 0 {
		return a
	}
	return e.To[0]
}

// mustSay reports whether a value has the letters and digits of what was given, whatever became
// of quotes, encoded words and domains beyond ASCII around them. It is for what net/mail
// cannot read.
func mustSay(given, value string) bool {
	letters := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, s)
	}
	for _, r := range given {
		if r > '~' { // encoded, or in punycode
			return true
		}
	}
	return letters(given) == letters(value) || letters(given) == letters(decodeHeader(value))
}

// checkFiles demands that a reader finds each attachment under its name.
func checkFiles(t testing.TB, m *mailer.EmailMessage, rendered string) {
	t.Helper()
	if len(m.Attachments) == 0 {
		return
	}
	var found []string
	collectFiles(parse(t, rendered), &found)
	for _, a := range m.Attachments {
		if want := a.Filename + "\n" + strings.TrimSuffix(strings.TrimPrefix(a.ContentID, "<"), ">"); !slices.Contains(found, want) {
			t.Fatalf("has no file %q, only %q:\n%q", want, found, rendered)
		}
	}
}

func collectFiles(n node, found *[]string) {
	for _, p := range n.parts {
		collectFiles(p, found)
	}
	if n.parts != nil {
		return
	}
	_, params, _ := mime.ParseMediaType(n.header.Get("Content-Disposition"))
	id := strings.TrimSuffix(strings.TrimPrefix(n.header.Get("Content-Id"), "<"), ">")
	*found = append(*found, params["filename"]+"\n"+id)
}

// checkRawFields demands that a raw message keeps each of its fields, in their order and
// with their values, but for those that are never sent.
func checkRawFields(t testing.TB, raw []byte, rendered string) {
	t.Helper()
	got, _ := headerFields(t, rendered)
	for _, want := range rawFields(raw) {
		if name := canonical(want.name); name == "Bcc" || name == "Resent-Bcc" || name == "Return-Path" {
			continue
		}
		at := slices.IndexFunc(got, func(f field) bool { return strings.EqualFold(f.name, want.name) })
		if at < 0 {
			if canonical(want.name) == "Content-Transfer-Encoding" {
				continue // the body may have got another one, which stands at the end
			}
			t.Fatalf("has no field %q behind the one before it:\n%q", want.name, rendered)
		}
		if canonical(want.name) != "Content-Transfer-Encoding" {
			sameRawField(t, want, got[at])
		}
		got = got[at+1:]
	}
}

func sameRawField(t testing.TB, want, got field) {
	t.Helper()
	want.value, got.value = strings.Trim(want.value, " \t"), strings.Trim(got.value, " \t")
	switch {
	case want.value == got.value:
		return
	case len(want.name)+len(want.value) > 900 && mustSay(want.value, got.value):
		return // too long a word is broken in two
	case canonical(want.name) == "Content-Type" || canonical(want.name) == "Content-Disposition":
		media, params, err := mime.ParseMediaType(want.value)
		if first, _, _ := strings.Cut(want.value, ";"); err != nil || strings.ContainsFunc(first, func(r rune) bool { return r > '~' }) {
			if !mustSay(want.value, got.value) {
				t.Fatalf("%s: got %q, want %q", want.name, got.value, want.value)
			}
			return
		}
		media2, params2, err := mime.ParseMediaType(got.value)
		same := err == nil && media == media2 && len(params) == len(params2)
		for k, v := range params {
			same = same && params2[k] == v
		}
		if !same {
			t.Fatalf("%s: got %q, want %q", want.name, got.value, want.value)
		}
	case isAddressField(canonical(want.name)):
		sameAddressText(want.value)(t, want.name, got.value)
	case strings.Contains(want.value, "=?"): // what is encoded already stays so, and is text as the rest is
		words := func(s string) string { return strings.Join(strings.Fields(decodeHeader(s)), " ") }
		if words(want.value) != words(got.value) {
			t.Fatalf("%s: got %q, want %q", want.name, got.value, want.value)
		}
	default:
		sameText(want.value)(t, want.name, got.value)
	}
}

// rawFields reads the header of a raw message as net/mail would, but by the letter.
func rawFields(raw []byte) (fields []field) {
	for line := range bytes.Lines(raw) {
		text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		if text == "" {
			break
		}
		if last := len(fields) - 1; last >= 0 && (text[0] == ' ' || text[0] == '\t') {
			if !isBlank(text) {
				fields[last].value += text
			}
			continue
		}
		name, value, _ := strings.Cut(text, ":")
		fields = append(fields, field{strings.TrimRight(name, " \t"), value})
	}
	for i, f := range fields {
		fields[i].value = fromLatin1(f.value)
	}
	return fields
}

// fromLatin1 is a text in UTF-8: what is not is taken for Latin-1, as browsers read it.
func fromLatin1(s string) string {
	if strings.ToValidUTF8(s, "") == s {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(charmap.Windows1252.DecodeByte(s[i]))
	}
	return b.String()
}
