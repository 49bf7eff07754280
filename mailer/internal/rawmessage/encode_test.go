package rawmessage

import (
	"bytes"
	"strings"
	"testing"
)

// crlf writes a message as it is on the wire.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestEncode(t *testing.T) {
	const head = "From: f@x\nMIME-Version: 1.0\n"
	multi := func(parts ...string) string {
		return "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n--b\n" + strings.Join(parts, "\n--b\n") + "\n--b--\n"
	}
	const (
		text    = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\u00fc\u00dfe = 1 \n.\n"
		encoded = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe =3D 1=20\n.\n"
		plain   = "Content-Type: text/plain\nContent-Transfer-Encoding: 7bit\n\nstays =C3 so\n"
		signed  = "Content-Type: multipart/signed; protocol=\"application/pgp-signature\"; boundary=s\n\n--s\n" +
			"Content-Type: text/plain\n\nsigned \n--s\nContent-Type: application/pgp-signature\n\nx\n--s--\n"
	)
	multi7 := func(parts ...string) string {
		return strings.Replace(strings.Replace(multi(parts...), "Content-Transfer-Encoding: 8bit\n", "", 1), "boundary=b\n", "boundary=b\nContent-Transfer-Encoding: 7bit\n", 1)
	}
	for _, tt := range []struct {
		name, in, want string
	}{
		{"text", head + text, head + encoded},
		{"without a type", "From: f@x\n\n\u00fc\n", "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nFrom: f@x\nContent-Transfer-Encoding: quoted-printable\n\n=C3=BC\n"},
		{"without a type, in no charset that is known", "From: f@x\n\n\xfc\n", "MIME-Version: 1.0\nFrom: f@x\nContent-Transfer-Encoding: quoted-printable\n\n=FC\n"},
		{"in an encoding that is none", head + strings.Replace(text, ": 8bit", ": 7-bit", 1), head + encoded},
		{"a part", head + multi(text, plain), head + multi7(encoded, plain)},
		{
			"a multipart in one", head + multi(strings.Replace(multi(text), "=b", "=c", 1), plain),
			"",
		},
		{
			"no text", head + "Content-Type: application/octet-stream\nContent-Transfer-Encoding: binary\n\n\xff\xfe\xfd\xfc\xfb\xfa\n",
			head + "Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n//79/Pv6DQo=\n",
		},
		{
			"a message in it", head + multi("Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: J\u00f6rg\n"+text, plain),
			head + multi7("Content-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nSubject: =?utf-8?b?SsO2cmc=?=\n"+encoded, plain),
		},
		{
			"the header of a part", head + multi("Content-Type: application/pdf; name=\u00fc.pdf\nContent-Description: \u00fc\n\nx\n"),
			head + multi7("Content-Type: application/pdf; name*=utf-8''%C3%BC.pdf\nContent-Description: =?utf-8?b?w7w=?=\n\nx\n"),
		},
		{"a signed part beside it", head + multi(text, signed), head + multi7(encoded, signed)},
		{"base64 stays", head + multi(text, "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\nAAAA\n"), head + multi7(encoded, "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\nAAAA\n")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, reason := Encode([]byte(crlf(tt.in)))
			if reason != "" {
				t.Fatal(reason)
			}
			if tt.want != "" && string(got) != crlf(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", got, crlf(tt.want))
			}
			for _, c := range got {
				if c > 0x7f {
					t.Fatalf("not in 7 bit:\n%q", got)
				}
			}
			if again, _ := Encode([]byte(crlf(tt.in))); !bytes.Equal(got, again) {
				t.Errorf("the second time:\n%s", again)
			}
			if twice, reason := Encode(got); reason != "" || !bytes.Equal(got, twice) {
				t.Errorf("of what is encoded (%s):\n%s", reason, twice)
			}
		})
	}
}

// TestEncode_refuses: what a signature covers is not changed, and what cannot be encoded is named.
func TestEncode_refuses(t *testing.T) {
	const head = "From: f@x\nMIME-Version: 1.0\n"
	for _, tt := range []struct {
		name, in, want string
	}{
		{"DKIM", "DKIM-Signature: v=1; h=from; bh=x; b=y\n" + head + "Content-Type: text/plain; charset=utf-8\n\n\u00fc\n", "octets above 127 and a DKIM-Signature"},
		{
			"multipart/signed", head + "Content-Type: multipart/signed; boundary=s\n\n--s\nContent-Type: text/plain\n\n\u00fc\n--s\nContent-Type: application/pgp-signature\n\nx\n--s--\n",
			"signed part",
		},
		{
			"a signed part", head + "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/signed; boundary=s\n\n--s\nContent-Type: text/plain\n\n\u00fc\n--s\n" +
				"Content-Type: application/pgp-signature\n\nx\n--s--\n\n--b--\n", "signed part",
		},
		{"part of a message", head + "Content-Type: message/partial; id=x; number=1\n\n\u00fc\n", "message/partial"},
		{"an encoding of its own", head + "Content-Type: text/plain\nContent-Transfer-Encoding: x-uuencode\n\n\u00fc\n", "x-uuencode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, reason := Encode([]byte(crlf(tt.in))); !strings.Contains(reason, tt.want) {
				t.Errorf("got %q, want %q\n%s", reason, tt.want, got)
			}
		})
	}
}
