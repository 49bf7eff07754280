package main

import (
	"io"
	"mime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/htmlindex"

	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// What the sendmail of Postfix delivers is delivered here, to the same recipients and with the same
// meaning: what a reader sees in the header, and the body.
func TestRaw_asPostfix(t *testing.T) {
	const head = "From: F <f@example.com>\nTo: a@example.com\n"
	tests := []struct {
		name, args, in string
	}{
		{"blanks before the colon", "-t", head + "Subject : x\nX-A \t :y\nMIME-Version : 1.0\n\nbody\n"},
		{"line of a mailbox file", "-t", "From ann Fri Jan  2 03:04:05 2026\n" + head + "Subject: x\n\nFrom here\n"},
		{"another kind of it, before a body", "b@example.com", ">From ann Fri Jan  2 03:04:05 2026\n\nno header\n"},
		{"folded and empty fields", "-t", head + "Subject:\n folded\n\tagain\nX-Empty:\nX-Blank: \nX-Last: a\n b\n\nbody\n"},
		{"a long line in the header", "-t", head + "X-Long: " + strings.Repeat("y", 3000) + "\nSubject: " + strings.Repeat("z", 1500) + "\n\nbody\n"},
		{"a long line of words", "-t", head + "X-Long: " + strings.Repeat("word ", 800) + "\n\nbody\n"},
		{"a long list of addresses without blanks", "-t", "From: f@example.com\nTo: " + strings.Repeat("ab@example.com,", 90) + "b@example.com\n\nbody\n"},
		{"no field in the header", "-t", head + "Subject: x\nnot a header\nX-B: c\n\nbody\n"},
		{"a field name in two words", "-t", head + "Sub ject: x\n\nbody\n"},
		{"a name beyond ASCII", "-t", head + "S\u00fcb: x\n\nbody\n"},
		{"no name", "-t", head + ": x\n\nbody\n"},
		{"a mailbox line in the header", "-t", head + "Subject: x\n>From ann Fri\nX-a: b\n\nbody\n"},
		{"begins with white space", "b@example.com", " From: f@example.com\n\nbody\n"},
		{"begins with an empty line", "b@example.com", "\n\nFrom: f@example.com\n\nbody\n"},
		{"CRLF", "-t", strings.ReplaceAll(head+"Subject: x\n y\n\nbody\n", "\n", "\r\n")},
		{"a long line of a body", "-t", head + "\n" + strings.Repeat("x", 3000) + "\nend\n"},

		{"as cron writes them", "-t", "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@app> echo\n\nbody\n"},
		{"addresses without a domain", "-t", "From: root\nTo: \"a b\" <joe>, <al>\nCc: x@y.example, bob (the builder)\nSender: daemon\nReply-To: =?utf-8?q?J=C3=B6rg?= <jorg>\nErrors-To: x@y.example\n\nbody\n"},
		{"a resent message", "-t", "Resent-From: rf\nResent-To: rt\n" + head + "\nbody\n"},
		{"names that look like addresses", "-t", "From: f@example.com <f@example.com>\nTo: a@x.example <a@x.example>, 'b@x.example' <b@x.example>,\n \"c@x.example\" <c@x.example>\n\nbody\n"},
		{"a route", "-t", "From: f@example.com\nTo: a@x.example, <@relay.example:b@x.example>\n\nbody\n"},
		{"white space and semicolons between addresses", "-t", "From: f@example.com\nTo: a@x.example b@x.example; c@x.example\n\nbody\n"},
		{"white space between addresses in brackets", "-t", "From: f@example.com\nTo: <a@x.example> b@x.example, A <c@x.example> (c) B B <d@x.example>\n\nbody\n"},
		{"white space beside the @", "-t", "From: f@example.com\nTo: a @ x.example, b@ x.example c @x.example\n\nbody\n"},
		{"groups", "-t", "From: f@example.com\nTo: undisclosed-recipients: ;, c@x.example\nCc: friends: d@x.example, E <e@x.example>;\n\nbody\n"},
		{"comments and empty entries", "-t", "From: f@example.com\nTo: a@x.example (hi, all), \"x@y.example\" <z@x.example>,,\n\nbody\n"},
		{"a dot at the end of a domain", "-t -- c@x.example.", "From: f@example.com\nTo: a@x.example., B <b@x.example.>\n\nbody\n"},
		{"a dot at the end, on the command line", "c@x.example.", head + "\nbody\n"},

		{"8 bit in UTF-8", "-t", "From: J\u00f6rg <f@example.com>\nTo: a@example.com\nSubject: Gr\u00fc\u00dfe\n\nbody\n"},
		{"8 bit in koi8-r", "-t", head + "Subject: \xf0\xd2\xc9\xd7\xc5\xd4\nContent-Type: text/plain; charset=koi8-r\n\n\xf0\xd2\xc9\xd7\xc5\xd4\n"},
		{"8 bit beside encoded words", "-t", head + "Subject: Re: =?koi8-r?b?8NLJ18XU?= \xcd\xc9\xd2 =?koi8-r?b?8NLJ18XU?=\nContent-Type: text/plain; charset=koi8-r\n\nbody\n"},
	}
	postfix := postfixtest.Start(t, postfixtest.Options{})
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "mx.example.com") // as Postfix's
	seen := 0
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"-f", "ann@example.com", "-i"}, strings.Fields(tt.args)...)
			if err := postfix.Sendmail(t.Context(), []byte(tt.in), args...); err != nil {
				t.Fatal(err)
			}
			if err := postfix.Wait(t.Context(), seen+1); err != nil {
				t.Fatal(err)
			}
			if err := postfix.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			all := postfix.Messages()
			var want []string
			for _, m := range all[seen:] {
				want = append(want, strings.TrimSuffix(withDomain(m.To), "."))
			}
			delivered := meaning(t, string(all[seen].Raw))
			seen = len(all)

			if got := enqueue(t, tt.in, append([]string{"raw"}, args...)...); got != (result{}) {
				t.Fatalf("%+v", got)
			}
			ours := takeQueued(t, server, "default")
			if len(ours) != 1 {
				t.Fatalf("%d messages", len(ours))
			}
			got := ours[0].to
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, slices.Compact(want)) {
				t.Errorf("goes to %q, Postfix's to %q", got, want)
			}
			if ours := meaning(t, ours[0].data); !slices.Equal(ours, delivered) {
				t.Errorf("says\n%s\nwant, as Postfix:\n%s", strings.Join(ours, "\n"), strings.Join(delivered, "\n"))
			}
		})
	}
}

// withDomain is a recipient as Postfix rewrites it after it has noted the original.
func withDomain(addr string) string {
	if i := strings.IndexByte(addr, ':'); strings.HasPrefix(addr, "@") && i > 0 {
		addr = addr[i+1:]
	}
	if !strings.Contains(addr, "@") {
		return addr + "@mx.example.com"
	}
	return addr
}

// meaning is what a reader sees of a message: its fields, sorted, and its body. Those that Postfix or
// we add are not compared, nor are blanks.
func meaning(t *testing.T, data string) []string {
	t.Helper()
	data = strings.ReplaceAll(data, "\r\n", "\n")
	header, body, _ := strings.Cut(data, "\n\n")
	header = strings.NewReplacer("\n ", " ", "\n\t", " ").Replace(header)
	d := mime.WordDecoder{CharsetReader: func(name string, r io.Reader) (io.Reader, error) {
		enc, err := htmlindex.Get(name)
		if err != nil {
			return nil, err
		}
		return enc.NewDecoder().Reader(r), nil
	}}
	charset := "utf-8"
	if strings.Contains(header, "koi8-r") {
		charset = "koi8-r"
	}
	var all []string
	for line := range strings.SplitSeq(header, "\n") {
		name, value, _ := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if strings.ContainsFunc(value, func(r rune) bool { return r > '~' }) && charset != "utf-8" {
			enc, _ := htmlindex.Get(charset)
			value, _ = enc.NewDecoder().String(value)
		}
		value, err := d.DecodeHeader(value)
		if err != nil {
			t.Fatal(err)
		}
		value = strings.NewReplacer(" ", "", "\t", "", `"`, "", "@relay.example:", "", "<", "", ">", "").Replace(value)
		switch name {
		case "date", "message-id", "content-transfer-encoding", "mime-version", "", "resent-date", "resent-message-id":
			continue
		case "from":
			if strings.Contains(value, "ann@example.com") {
				continue // added
			}
		}
		all = append(all, name+":"+value)
	}
	slices.Sort(all)
	if strings.Contains(header, "Content-Transfer-Encoding: quoted-printable") {
		body = strings.ReplaceAll(body, "=\n", "")
	}
	return append(all, body)
}
