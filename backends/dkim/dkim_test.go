package dkim

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/mailpouch/mailpouch/mailer"
)

// rsaKey makes one key for all tests: it takes a while.
var rsaKey = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func ed25519Key() crypto.Signer {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// bothKeys are a key of each kind for example.com.
func bothKeys() []Key {
	return []Key{
		{Domain: "example.com", Selector: "one", Private: rsaKey()},
		{Domain: "example.com", Selector: "two", Private: ed25519Key()},
	}
}

func signed(t testing.TB, keys []Key, m *mailer.EmailMessage) []byte {
	t.Helper()
	s, err := New(Config{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Sign(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return written(t, out)
}

func written(t testing.TB, m *mailer.EmailMessage) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// verify lets an independent verifier judge, with a DNS that has the records of keys. It returns the domains of the good
// signatures, and the first error.
func verify(message []byte, keys []Key) (good []string, err error) {
	dns := map[string]string{}
	for _, k := range keys {
		name, text := k.Record()
		dns[name] = text
	}
	all, err := msgauth.VerifyWithOptions(bytes.NewReader(message), &msgauth.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			if text, ok := dns[name]; ok {
				return []string{text}, nil
			}
			return nil, errors.New("no such name")
		},
	})
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Err != nil {
			err = cmpErr(err, fmt.Errorf("%s: %w", v.Domain, v.Err))
			continue
		}
		good = append(good, v.Domain)
	}
	return good, err
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func message(change ...func(*mailer.EmailMessage)) *mailer.EmailMessage {
	m := &mailer.EmailMessage{
		Subject: "Hello", Body: "It works.\n", FromEmail: "Ann <ann@example.com>", To: []string{"bob@example.org"},
		MessageID: "<1@example.com>", Date: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC),
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func body(text string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) { m.Body = text }
}

func header(name, value string) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) {
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		m.Headers[name] = value
	}
}

func raw(text string) *mailer.EmailMessage {
	return &mailer.EmailMessage{
		Raw: []byte(text), FromEmail: "ann@example.com", To: []string{"bob@example.org"},
		MessageID: "<1@example.com>", Date: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC),
	}
}

// testMessages are messages of all kinds.
func testMessages() map[string]*mailer.EmailMessage {
	const rawHeader = "From: Ann <ann@example.com>\nTo: bob@example.org\nSubject: raw\nDate: Fri, 02 Jan 2026 13:00:00 +0100\n"
	return map[string]*mailer.EmailMessage{
		"plain":                message(),
		"no body":              message(body("")),
		"only blank lines":     message(body("\n\n \n\t\n")),
		"blank lines at ends":  message(body("\n\n  first\n\n\nlast\n \n\n\n")),
		"white space":          message(body(" two  blanks \ttab\t\n\ttab first\n trailing   \nno end")),
		"one blank":            message(body(" ")),
		"dots":                 message(body(".\n..\n.dots\n")),
		"lines of many words":  message(body(strings.Repeat("word and word  ", 60) + "\n")),
		"long lines":           message(body(strings.Repeat("x", 5000) + "\n")),
		"beyond ASCII":         message(body("Grüße, 世界 🙂\n" + strings.Repeat("ä", 3000))),
		"subject beyond ASCII": message(func(m *mailer.EmailMessage) { m.Subject = strings.Repeat("Grüße ", 30) }),
		"folded":               message(func(m *mailer.EmailMessage) { m.Subject = strings.Repeat("long  subject ", 20) }),
		"big": message(body(strings.Repeat("a line of text \n", 20_000)), func(m *mailer.EmailMessage) {
			m.AttachAlternative(strings.Repeat("<p>ä</p>\n", 10_000), "text/html")
			m.Attach("a.bin", bytes.Repeat([]byte{0, 1, 2, 255}, 100_000), "")
		}),
		"many recipients": message(func(m *mailer.EmailMessage) {
			for i := range 500 {
				m.To = append(m.To, fmt.Sprintf("Name %d <r%d@example.org>", i, i))
			}
		}),
		"only blind copies": message(func(m *mailer.EmailMessage) { m.To, m.Bcc = nil, []string{"bob@example.org"} }),
		"list": message(header("List-Unsubscribe", "<https://example.com/u/1>"), header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
			header("List-Id", "News <news.example.com>"), header("Feedback-ID", "1:2:3:example")),
		"reply": message(header("In-Reply-To", "<0@example.org>"), header("References", "<0@example.org>"), func(m *mailer.EmailMessage) {
			m.ReplyTo, m.Cc = []string{"answers@example.com"}, []string{"carl@example.org"}
		}),
		"two authors": message(header("From", "Ann <ann@example.com>, Zoe <zoe@example.net>")),
		"SMTPUTF8": message(func(m *mailer.EmailMessage) {
			m.FromEmail, m.To = "Jürgen <jürgen@example.com>", []string{"用户@example.org"}
		}),
		"raw":                    raw(rawHeader + "\nbody\n"),
		"raw, CRLF":              raw(strings.ReplaceAll(rawHeader+"\nbody\n\n\n", "\n", "\r\n")),
		"raw, no body":           raw(rawHeader),
		"raw, no end":            raw(rawHeader + "\nbody"),
		"raw, long line":         raw(rawHeader + "\n" + strings.Repeat("x", 3000) + "\n"),
		"raw, header only":       raw("X-Y: z\n\nbody\n"),
		"raw, 8 bit":             raw(rawHeader + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n"),
		"raw, 8 bit and no MIME": raw(rawHeader + "\nGrüße\n"),
		"raw, header in 8 bit":   raw(strings.Replace(rawHeader, "raw", "Grüße", 1) + "\nbody\n"),
		"raw, SMTPUTF8":          raw(strings.Replace(rawHeader, "bob", "jürgen", 1) + "\nGrüße\n"),
		"raw, odd fields":        raw("Received: a\n  b\nreceived: c\nFROM : Ann <ann@example.com>\nto:bob@example.org\nSubject:\n \nCC:\tx@example.org\n\nbody\n"),
		"raw, two of a field":    raw("To: a@example.org\nTo: b@example.org\n" + rawHeader + "\nbody\n"),
		"sent on":                message(body("Grüße")).WithTrace(mailer.Field{Name: "X-Original-To", Value: "carl@example.org"}),
		"raw, 8 bit, sent on":    raw(rawHeader + "\nGrüße\n").WithTrace(mailer.Field{Name: "X-Original-To", Value: "carl@example.org"}),
		"raw, S/MIME": raw(rawHeader + "MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b; protocol=\"application/pkcs7-signature\"\n\n" +
			"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n--b\nContent-Type: application/pkcs7-signature\n\nabc\n--b--\n"),
	}
}

// TestSign: an independent verifier accepts what is signed, of every kind of message and with every kind of key; and nothing of the
// message has changed but where it must be encoded.
func TestSign(t *testing.T) {
	t.Parallel()
	for name, m := range testMessages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := written(t, m)
			for _, keys := range [][]Key{bothKeys()[:1], bothKeys()[1:], bothKeys()} {
				got := signed(t, keys, m)
				good, err := verify(got, keys)
				if err != nil || len(good) != len(keys) {
					t.Fatalf("%d of %d signatures are good: %v\n%s", len(good), len(keys), err, got[:min(len(got), 2000)])
				}
				if again := signed(t, keys, m); !bytes.Equal(again, got) {
					t.Error("another try has other bytes")
				}
				for line := range bytes.SplitSeq(got, []byte("\r\n")) {
					if !bytes.HasPrefix(line, []byte("DKIM-Signature:")) && !bytes.HasPrefix(line, []byte(" ")) {
						break // the end of our fields
					}
					if len(line) > 78 {
						t.Errorf("a line of %d bytes: %s", len(line), line)
					}
				}
				if rest := got[len(got)-min(len(got), len(before)):]; isASCII(before) && !bytes.Equal(rest, before) {
					t.Errorf("the message has changed:\n%s", got)
				}
				if n := bytes.Count(got, []byte("X-Original-To: carl@example.org")); strings.HasSuffix(name, "sent on") != (n == 1) || n > 1 {
					t.Errorf("X-Original-To is there %d times:\n%s", n, got)
				}
				if !bytes.Equal(written(t, m), before) {
					t.Error("the message that was given has changed")
				}
			}
		})
	}
}

// TestSign_time: t= is the Date of the message, wherever that stands.
func TestSign_time(t *testing.T) {
	t.Parallel()
	noon := "1767355200"
	for name, tt := range map[string]struct {
		m    *mailer.EmailMessage
		want string
	}{
		"Date":            {message(), noon},
		"with a zone":     {message(func(m *mailer.EmailMessage) { m.Date = m.Date.In(time.FixedZone("", -5*3600)) }), noon},
		"Headers":         {message(header("Date", "Fri, 02 Jan 2026 13:00:00 +0100")), noon},
		"raw":             {raw("From: ann@example.com\nDate: Fri, 02 Jan 2026 13:00:00 +0100\n\nx"), noon},
		"raw without":     {raw("From: ann@example.com\n\nx"), noon},
		"raw, unreadable": {raw("From: ann@example.com\nDate: noon\n\nx"), noon},
		"before 1970":     {message(func(m *mailer.EmailMessage) { m.Date = time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC) }), ""},
	} {
		got := string(signed(t, bothKeys()[1:], tt.m))
		_, rest, found := strings.Cut(got[:strings.Index(got, " h=")], " t=")
		at, _, _ := strings.Cut(rest, ";")
		if at != tt.want || found != (tt.want != "") {
			t.Errorf("%s: t=%s in\n%s", name, at, got)
		}
		if _, err := verify([]byte(got), bothKeys()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSign_sevenBit: what is signed has its body in 7 bit, unless that would break an older signature.
func TestSign_sevenBit(t *testing.T) {
	t.Parallel()
	for name, m := range testMessages() {
		_, body, _ := bytes.Cut(signed(t, bothKeys()[1:], m), []byte("\r\n\r\n"))
		if got, want := isASCII(body), name != "raw, S/MIME"; got != want {
			t.Errorf("%s: in 7 bit: %t", name, got)
		}
	}
	first := signed(t, bothKeys()[1:], raw("From: ann@example.com\n\nbody\n"))
	eight := bytes.Replace(first, []byte("\r\n\r\nbody"), []byte("\r\n\r\nGr\xc3\xbc\xc3\x9fe"), 1)
	if got := signed(t, bothKeys()[1:], raw(string(eight))); !bytes.HasSuffix(got, eight) {
		t.Errorf("what an older signature covers was changed:\n%s", got)
	}
}

// TestSign_again: a message that is signed already, by us or by another, gets our signature too.
func TestSign_again(t *testing.T) {
	t.Parallel()
	other := []Key{{Domain: "example.net", Selector: "x", Private: ed25519Key()}}
	ours := bothKeys()[1:]
	once := signed(t, ours, message())
	twice := signed(t, ours, raw(string(once)))
	thrice := signed(t, other, raw(string(twice)))
	good, err := verify(thrice, slices.Concat(ours, other))
	if err != nil || !slices.Equal(good, []string{"example.net", "example.com", "example.com"}) {
		t.Errorf("%s are good: %v", good, err)
	}
	if !bytes.HasSuffix(thrice, once) {
		t.Errorf("what was signed has changed:\n%s", thrice)
	}
}

// TestSign_changed: nobody can change the message or add to its header what people or their programs read.
func TestSign_changed(t *testing.T) {
	t.Parallel()
	keys := bothKeys()
	m := message(header("List-Unsubscribe", "<https://example.com/u>"))
	for _, change := range [][2]string{
		{"", "From: Eve <eve@example.net>\r\n"}, {"", "To: eve@example.net\r\n"}, {"", "Subject: another\r\n"}, {"", "Cc: eve@example.net\r\n"},
		{"", "Reply-To: eve@example.net\r\n"}, {"", "List-Unsubscribe: <https://example.net>\r\n"}, {"", "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"},
		{"It works", "It fails"}, {"works.\r\n", "works.\r\nmore\r\n"}, {"Hello", "Hell"}, {"Content-Type: text/plain", "Content-Type: text/html"},
		{"bob@", "eve@"}, {"t=1767355200", "t=1767355201"},
	} {
		got := signed(t, keys, m)
		tampered := append([]byte(change[1]), got...)
		if change[0] != "" {
			tampered = bytes.ReplaceAll(got, []byte(change[0]), []byte(change[1]))
		}
		if bytes.Equal(tampered, got) {
			t.Fatalf("nothing was changed by %q", change)
		}
		if good, err := verify(tampered, keys); len(good) > 0 || err == nil {
			t.Errorf("%q: %d signatures are good", change, len(good))
		}
	}
	// What relays do on the way is no harm.
	for _, change := range [][2]string{
		{"", "Received: from a by b; Fri, 02 Jan 2026 12:00:01 +0000\r\n"}, {"", "X-Spam: no\r\n"}, {"Message-ID: <1@", "Message-ID: <2@"},
		{"Date: Fri, 02 Jan 2026 12:00:00 +0000", "Date: Fri, 02 Jan 2026 12:00:09 +0000"}, {"Subject: Hello", "SUBJECT:   Hello "}, {"works.\r\n", "works. \r\n\r\n\r\n"},
	} {
		got := signed(t, keys, m)
		if change[0] == "" {
			got = append([]byte(change[1]), got...)
		} else if got = bytes.Replace(got, []byte(change[0]), []byte(change[1]), 1); !bytes.Contains(got, []byte(change[1])) {
			t.Fatalf("nothing was changed by %q", change)
		}
		if good, err := verify(got, keys); len(good) != 2 || err != nil {
			t.Errorf("%q: %d signatures are good, %v", change, len(good), err)
		}
	}
}

// TestSign_domain: the keys of the domain in From sign, or of the nearest one, or of the first one.
func TestSign_domain(t *testing.T) {
	t.Parallel()
	var keys []Key
	for _, name := range []string{"first.example", "example.com", "mail.example.com", "example.co.uk", "xn--bcher-kva.example", "example.com/two"} {
		domain, selector, _ := strings.Cut(name, "/")
		keys = append(keys, Key{Domain: domain, Selector: "s" + selector, Private: ed25519Key()})
	}
	for from, want := range map[string]string{
		"ann@example.com":                              "example.com example.com",
		"ann@EXAMPLE.com":                              "example.com example.com",
		"ann@mail.example.com":                         "mail.example.com",
		"ann@a.mail.example.com":                       "mail.example.com",
		"ann@news.example.com":                         "example.com example.com",
		"ann@www.example.co.uk":                        "example.co.uk",
		"ann@other.co.uk":                              "first.example",
		"ann@bücher.example":                           "xn--bcher-kva.example",
		"ann@notexample.com":                           "first.example",
		"a@example.org, b@example.co.uk":               "example.co.uk",
		"\"ann@example.co.uk\" <ann@mail.example.com>": "mail.example.com",
		"root": "first.example",
	} {
		m := message(header("From", from))
		good, err := verify(signed(t, keys, m), keys)
		if err != nil || strings.Join(good, " ") != want {
			t.Errorf("From: %s is signed by %s, want %s (%v)", from, good, want, err)
		}
	}
	for from, want := range map[string]string{
		"Ann <ann@example.com": "example.com example.com", "=?x-odd?q?A?= <ann@example.com>": "example.com example.com", "": "first.example",
		"Ann": "first.example", "ann@example.com.": "example.com example.com", "x: ann@mail.example.com;": "mail.example.com",
	} {
		m := raw("From: " + from + "\n\nx")
		m.FromEmail = "x@first.example"
		good, err := verify(signed(t, keys, m), keys)
		if err != nil || strings.Join(good, " ") != want {
			t.Errorf("raw From: %s is signed by %s, want %s (%v)", from, good, want, err)
		}
	}
}

// TestSign_errors: a message that cannot be written has WriteTo's error; a key that fails costs the message nothing but a try.
func TestSign_errors(t *testing.T) {
	t.Parallel()
	s := must(New(Config{Keys: bothKeys()[1:]}))
	if _, err := s.Sign(t.Context(), message(func(m *mailer.EmailMessage) { m.Subject = "a\nb" })); !mailer.IsBadInput(err) {
		t.Errorf("got %v", err)
	}
	broken := errors.New("the module is gone")
	s = must(New(Config{Keys: []Key{{Domain: "example.com", Selector: "s", Private: failing{ed25519Key(), broken}}}}))
	m, err := s.Sign(t.Context(), message())
	if m != nil || !errors.Is(err, broken) || mailer.ClassOf(err) != mailer.Temporary || !strings.Contains(err.Error(), "s._domainkey.example.com") {
		t.Errorf("got %v, %v", m, err)
	}
}

type failing struct {
	crypto.Signer
	err error
}

func (f failing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, f.err
}

func TestNew_errors(t *testing.T) {
	t.Parallel()
	good := bothKeys()[1]
	with := func(change func(*Key)) []Key {
		k := good
		change(&k)
		return []Key{k}
	}
	for want, keys := range map[string][]Key{
		"there is no key":                   nil,
		"is no domain":                      with(func(k *Key) { k.Domain = "a b" }),
		"is no selector":                    with(func(k *Key) { k.Selector = "" }),
		"has no private key":                with(func(k *Key) { k.Private = nil }),
		"is there twice":                    {good, with(func(k *Key) { k.Domain = "EXAMPLE.com" })[0]},
		"is an RSA key of 1024 bits: 2048 ": with(func(k *Key) { k.Private = must(rsa.GenerateKey(rand.Reader, 1024)) }),
		"is a key of the kind *ecdsa":       with(func(k *Key) { k.Private = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }),
	} {
		if _, err := New(Config{Keys: keys}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// TestSign_concurrent: one Signer serves several goroutines.
func TestSign_concurrent(t *testing.T) {
	t.Parallel()
	s := must(New(Config{Keys: bothKeys()[1:]}))
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for n := range 50 {
				m := message(body(strings.Repeat(fmt.Sprintf("%d %d\n", i, n), 1+n*50)))
				out, err := s.Sign(t.Context(), m)
				if err != nil {
					t.Error(err)
					return
				}
				if good, err := verify(written(t, out), bothKeys()); len(good) != 1 || err != nil {
					t.Errorf("%d are good: %v", len(good), err)
				}
			}
		})
	}
	wait.Wait()
}
