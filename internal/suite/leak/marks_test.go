package leak

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mark is a secret. Its characters are written differently in each encoding.
type mark string

const (
	password     mark = "pa?ss/7f3a=9c+41e&Xq"
	redisPass    mark = "re?dis/2d8b=0e+77a&Kp"
	httpPassword mark = "ht?tp/5c1f=6d+93b&Wm"
	httpToken    mark = "tok-4e9a.8f27~c06d_Rv"
	apiSecret    mark = "mp_ap?i/61d8=0c+95b&Zy"
	hookSecret   mark = "hook?sec/28f5=c7+e04&Yn sig"
	hookPassword mark = "hook-pass_73be.4d~19Qh"
	hookToken    mark = "hook-tok_c5e2.8a~60Fj"

	subject      mark = "sub?ject/a83d=2f+60c&Jt"
	body         mark = "bo?dy/c94e=7b+18f&Hz"
	html         mark = "ht?ml/1ba7=d5+e42&Ny"
	header       mark = "head?er/e65f=3a+72d&Gc"
	fileName     mark = "na-me_f06b=4c+85e&Lb"
	fileBytes    mark = "by?tes/9d17=b8+a3f&Fs"
	rawHeader    mark = "raw?head/3c28=e9+b0a&Dr"
	rawBody      mark = "raw?body/6e39=f1+c4b&Tk"
	panicText    mark = "pan?ic/b7d0=5a+f2c&Ue"
	unreadable   mark = "unread?able/8f4b=c2+d9e&Ov"
	blindCopy    mark = "bcc-d15e7a"
	recipient    mark = "rcpt-a02c6f"
	author       mark = "from-7b31e8"
	wrongSetting mark = "wrong?set/52ce=9d+06f&Mu"
)

// credentials are what must come out nowhere at all.
func credentials() []mark {
	return []mark{password, redisPass, httpPassword, httpToken, apiSecret, hookSecret, hookPassword, hookToken, wrongSetting}
}

// contents are what is a message's. Who asks for a message is shown it.
func contents() []mark {
	return []mark{body, html, header, fileBytes, rawHeader, rawBody, panicText, unreadable}
}

// titles are what /monitor/ and "dead list" show of a message, to tell it from others.
func titles() []mark { return []mark{subject, fileName} }

// addresses are masked unless a setting says otherwise.
func addresses() []mark { return []mark{blindCopy, recipient, author} }

func everything() []mark { return slices.Concat(credentials(), contents(), titles(), addresses()) }

// forms are the ways in which a mark may be written.
func (m mark) forms() map[string]string {
	text := string(m)
	quoted, _ := json.Marshal(text)
	forms := map[string]string{
		"as it is": text, "in a URL": url.QueryEscape(text), "in a path": url.PathEscape(text), "in hex": hex.EncodeToString([]byte(text)),
		"in JSON": strings.Trim(string(quoted), `"`), "in Go": strings.Trim(strconv.Quote(text), `"`),
		"in quoted-printable": strings.ReplaceAll(text, "=", "=3D"), "in an encoded word": strings.NewReplacer("=", "=3D", "?", "=3F").Replace(text),
	}
	// Inside a longer text in base64 it begins at one of three places of a group; what it
	// shares with its neighbours is left out.
	for offset := range 3 {
		data := append(make([]byte, offset), text...)
		data = data[:len(data)/3*3]
		from := (offset*8 + 5) / 6
		forms[fmt.Sprintf("in base64, %d bytes on", offset)] = base64.StdEncoding.EncodeToString(data)[from:]
		forms[fmt.Sprintf("in base64 for URLs, %d bytes on", offset)] = base64.URLEncoding.EncodeToString(data)[from:]
	}
	return forms
}

// escaped is a character in quoted-printable, or in a URL.
var escaped = regexp.MustCompile(`[=%][0-9A-F]{2}`)

// find reports each mark that is in a text, in whatever form.
func find(t *testing.T, where, text string, marks []mark) {
	t.Helper()
	joined := strings.NewReplacer("\r\n", "", "\n", "", `\r\n`, "", `\n`, "").Replace(text) // base64 in lines
	decoded := escaped.ReplaceAllStringFunc(text, func(s string) string {
		char, _ := hex.DecodeString(s[1:])
		return string(char)
	})
	for _, m := range marks {
		for form, written := range m.forms() {
			at := strings.Index(text, written)
			in := text
			for _, other := range []string{joined, decoded} {
				if at < 0 {
					at, in = strings.Index(other, written), other
				}
			}
			if at >= 0 {
				t.Errorf("%s has %q %s: ...%q...", where, m, form, in[max(at-150, 0):min(at+len(written)+50, len(in))])
				break
			}
		}
	}
}

// TestFind: the search finds what it is for.
func TestFind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text string }{
		{"plain", "550 " + string(password)},
		{"base64", "535 " + base64.StdEncoding.EncodeToString([]byte("\x00me\x00"+string(password)))},
		{"base64, elsewhere", base64.StdEncoding.EncodeToString([]byte("user:" + string(password) + ":"))},
		{"a URL", "redis://:" + url.QueryEscape(string(password)) + "@127.0.0.1"},
		{"JSON", fmt.Sprintf("%q", "{\"x\":"+strconv.Quote(string(password))+"}")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			found := false
			for _, written := range password.forms() {
				found = found || strings.Contains(tt.text, written)
			}
			if !found {
				t.Errorf("%q is not found", tt.text)
			}
		})
	}
}
