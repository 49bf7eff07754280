package smtp

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/catcher"
	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
	"github.com/mailpouch/mailpouch/mailer"
)

// inEightBit are finished messages in 8 bit.
func inEightBit() map[string]string {
	const head = "From: f@x.example\nTo: t@x.example\nDate: Fri, 02 Jan 2026 03:04:05 +0000\nMessage-ID: <m@x.example>\nMIME-Version: 1.0\n"
	multi := func(kind string, parts ...string) string {
		return "Content-Type: multipart/" + kind + "; boundary=" + kind + "\nContent-Transfer-Encoding: 8bit\n\npreamble\n--" + kind + "\n" +
			strings.Join(parts, "\n--"+kind+"\n") + "\n--" + kind + "--\n"
	}
	const (
		text   = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\u00fc\u00dfe = \u20ac \n.\n..dots\nend \t\n"
		latin  = "Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\n<p>Gr\xfc\xdfe</p>\n"
		plain  = "Content-Type: text/plain; charset=us-ascii\n\n=C3=BC stays so\n"
		signed = "Content-Type: multipart/signed; protocol=\"application/pgp-signature\"; boundary=sig\n\n--sig\n" +
			"Content-Type: text/plain\n\nsigned\n--sig\nContent-Type: application/pgp-signature\n\nx\n--sig--\n"
	)
	return map[string]string{
		"text":                 head + text,
		"latin1":               head + latin,
		"alternative":          head + multi("alternative", text, latin),
		"nested":               head + multi("mixed", multi("alternative", plain, latin), text),
		"message in it":        head + multi("mixed", plain, "Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nFrom: g@x.example\nSubject: inner\nMIME-Version: 1.0\n"+text),
		"digest":               head + multi("digest", "\nFrom: g@x.example\nMIME-Version: 1.0\n"+text, "\nFrom: h@x.example\nMIME-Version: 1.0\n"+latin),
		"binary":               head + multi("mixed", plain, "Content-Type: application/octet-stream\nContent-Transfer-Encoding: 8bit\n\n\x01\xff\xfe line\n\xfd = \n"),
		"signed part beside":   head + multi("mixed", signed, text),
		"base64 beside":        head + multi("mixed", text, "Content-Type: image/png; name=a.png\nContent-Transfer-Encoding: base64\n\nAAAA\n"),
		"headers of a part":    head + multi("mixed", plain, "Content-Type: application/pdf; name=a.pdf\nContent-Description: J\u00f6rg\nContent-Transfer-Encoding: base64\n\nAAAA\n"),
		"long lines":           head + strings.Replace(text, "end", strings.Repeat("\u20acuro ", 300), 1),
		"without a type":       strings.Replace(head, "MIME-Version: 1.0\n", "", 1) + "\nGr\u00fc\u00dfe\n",
		"encoded as it should": head + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe\n",
	}
}

// seen is what a reader sees of the parts of a message.
func seen(raw []byte) (all []string) {
	for _, p := range catcher.Decode(raw).Parts {
		if p.MediaType == "message/rfc822" {
			all = append(all, p.MediaType)
			all = append(all, seen(p.Content)...)
			continue
		}
		content := strings.ReplaceAll(string(p.Content), "\r\n", "\n")
		all = append(all, fmt.Sprintf("%s %s %q%s", p.MediaType, p.Filename, strings.TrimRight(content, "\n"), p.Problem))
	}
	return all
}

// TestPostfix_withoutEightBit: what goes to a server without 8BITMIME means the same as before, and the same as what
// Postfix makes of it.
func TestPostfix_withoutEightBit(t *testing.T) {
	old := postfixtest.Start(t, postfixtest.Options{DiscardEHLO: []string{"8BITMIME", "SMTPUTF8"}})
	_, port, _ := net.SplitHostPort(old.Addr())
	between := postfixtest.Start(t, postfixtest.Options{Main: []string{"virtual_transport = smtp:[127.0.0.1]:" + port, "smtp_connection_cache_on_demand = no"}})
	raws := inEightBit()
	names := slices.Sorted(maps.Keys(raws))
	var ours, postfixs []*mailer.EmailMessage
	for i, name := range names {
		raw := []byte(strings.ReplaceAll(raws[name], "\n", "\r\n"))
		ours = append(ours, &mailer.EmailMessage{Raw: raw, FromEmail: "f@x.example", To: []string{fmt.Sprintf("ours%d@x.example", i)}})
		postfixs = append(postfixs, &mailer.EmailMessage{Raw: raw, FromEmail: "f@x.example", To: []string{fmt.Sprintf("postfix%d@x.example", i)}})
	}
	b := newBackend(t, forPostfix(old, Config{}))
	for _, r := range slices.Concat(sendAll(t, b, ours), sendAll(t, newBackend(t, forPostfix(between, Config{})), postfixs)) {
		if r.Error() != nil {
			t.Fatal(r.Error())
		}
	}
	if err := between.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := arrived(t, old, 2*len(names))
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			mine := got[fmt.Sprintf("f@x.example ours%d@x.example", i)].Raw
			theirs := got[fmt.Sprintf("f@x.example postfix%d@x.example", i)].Raw
			for _, c := range mine {
				if c > 0x7f {
					t.Fatalf("8 bit: %q", mine)
				}
			}
			want := seen(ours[i].Raw)
			if !slices.Equal(seen(mine), want) {
				t.Errorf("a reader sees\n%s\nwant\n%s\n%s", strings.Join(seen(mine), "\n"), strings.Join(want, "\n"), mine)
			}
			if !slices.Equal(seen(mine), seen(theirs)) {
				t.Errorf("a reader sees\n%s\nof Postfix's\n%s\n%s", strings.Join(seen(mine), "\n"), strings.Join(seen(theirs), "\n"), theirs)
			}
		})
	}
}

// TestBackend_withoutEightBit: the same bytes at each try, and a signature is not broken.
func TestBackend_withoutEightBit(t *testing.T) {
	message := func(from, raw string) *mailer.EmailMessage {
		return &mailer.EmailMessage{Raw: []byte(raw), FromEmail: from, To: []string{"to@example.com"}}
	}
	const head = "From: f@x\nDate: Fri, 02 Jan 2026 03:04:05 +0000\nMessage-ID: <m@x>\nContent-Type: text/plain; charset=utf-8\n"
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		p.offers = slices.DeleteFunc(p.offers, func(o string) bool { return o == "8BITMIME" })
		b := newBackend(t, cfg)
		p.script = func(at event) string {
			if at.step == "dot" && at.conn == 1 {
				return "421 4.3.2 going down"
			}
			return ""
		}
		messages := []*mailer.EmailMessage{message("a@x", head+"\n\u00fc\n"), message("b@x", "DKIM-Signature: v=1; h=from; bh=x; b=y\n"+head+"\n\u00fc\n"), letter("c@x")}
		results := sendAll(t, b, messages)
		if fates(results) != "sent permanent sent" {
			results = sendAll(t, b, messages)
		}
		if got := fates(results); got != "sent permanent sent" {
			t.Fatalf("got %s: %v", got, results[0].Err)
		}
		if s := sendError(t, results[1].Err); s.Enhanced != "5.6.3" || !strings.Contains(s.Error(), "8BITMIME") || !strings.Contains(s.Error(), "DKIM-Signature") {
			t.Errorf("got %v", s)
		}
		const want = "MIME-Version: 1.0\r\nFrom: f@x\r\nDate: Fri, 02 Jan 2026 03:04:05 +0000\r\nMessage-ID: <m@x>\r\n" +
			"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n"
		sent := 0
		for _, m := range p.taken() {
			if m.from != "a@x" {
				continue
			}
			if sent++; m.body != want {
				t.Errorf("sent\n%s", m.body)
			}
		}
		if sent == 0 {
			t.Error("not sent")
		}
	})
}
