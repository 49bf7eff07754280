package adminlog

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/mailer"
)

func TestReport(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, line, subject, body string
	}{
		{
			"fields are sorted",
			`{"level":"error","user":17,"big":12345678901234567890,"ok":true,"none":null,"a<b":"<&>","message":"cannot pay"}`,
			"ERROR: cannot pay",
			"ERROR: cannot pay\n\na<b: <&>\nbig: 12345678901234567890\nlevel: error\nmessage: cannot pay\nnone: null\nok: true\nuser: 17\n",
		},
		{
			"nested fields and a stack",
			`{"level":"error","request":{"path":"/pay","headers":{"b":["1","2"],"a":[]}},"stack":[{"func":"<pay>","line":"12"},{"func":"main","line":"3"}],"message":"x"}`,
			"ERROR: x",
			"ERROR: x\n\nlevel: error\nmessage: x\nrequest:\n    headers:\n        a:\n        b:\n            - 1\n            - 2\n    path: /pay\n" +
				"stack:\n    - {\"func\":\"<pay>\",\"line\":\"12\"}\n    - {\"func\":\"main\",\"line\":\"3\"}\n",
		},
		{
			"a trace of several lines",
			`{"message":"x","trace":"goroutine 1:\nmain.pay()\n\tpay.go:12\r\nmain.main()\r"}`,
			"ERROR: x",
			"ERROR: x\n\nmessage: x\ntrace:\n    goroutine 1:\n    main.pay()\n    \tpay.go:12\n    main.main()\n",
		},
		{
			"deep fields",
			`{"a":{"b":{"c":{"d":{"e":{"f":{"g":1}}}}}}}`,
			"ERROR: (no message)",
			"ERROR: (no message)\n\na:\n    b:\n        c:\n            d:\n                e:\n                    f: {\"g\":1}\n",
		},
		{
			"lines in a list",
			`{"message":"x","steps":["one\ntwo","three"]}`,
			"ERROR: x",
			"ERROR: x\n\nmessage: x\nsteps:\n    -\n        one\n        two\n    - three\n",
		},
		{
			"a key twice",
			`{"id":1,"id":2,"message":"x"}`,
			"ERROR: x",
			"ERROR: x\n\nid: 1\nid: 2\nmessage: x\n",
		},
		{
			"line ends in a subject are seen",
			`{"message":"x\r\nBcc: all@example.com\u001b[0m\u0000\u2028","k\ney":1}`,
			`ERROR: x\r\nBcc: all@example.com\x1b[0m\x00\u2028`,
			"ERROR: x\\r\\nBcc: all@example.com\\x1b[0m\\x00\\u2028\n\nk\\ney: 1\nmessage:\n    x\n    Bcc: all@example.com\x1b[0m\x00\u2028\n",
		},
		{
			"an error and no message",
			`{"level":"error","error":"no route"}`,
			"ERROR: no route",
			"ERROR: no route\n\nerror: no route\nlevel: error\n",
		},
		{"neither", `{"level":"error"}`, "ERROR: (no message)", "ERROR: (no message)\n\nlevel: error\n"},
		{"nothing", ``, "ERROR: (no message)", "ERROR: (no message)\n\nThe line cannot be read to its end. This is all of it:\n\n"},
		{
			"no JSON",
			"it\nbroke \xff",
			`ERROR: it\nbroke ` + "\ufffd",
			"ERROR: it\\nbroke \ufffd\n\nThe line cannot be read to its end. This is all of it:\n    it\n    broke \ufffd\n",
		},
		{
			"half a line",
			`{"id":1,"message":"x","z":"yyy`,
			"ERROR: x",
			"ERROR: x\n\nid: 1\nmessage: x\nThe line cannot be read to its end. This is all of it:\n    {\"id\":1,\"message\":\"x\",\"z\":\"yyy\n",
		},
		{
			"more than a line",
			`{"message":"x"} y`,
			"ERROR: x",
			"ERROR: x\n\nmessage: x\nThe line cannot be read to its end. This is all of it:\n    {\"message\":\"x\"} y\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			subject, body := new(report).mail([]line{newLine(zerolog.ErrorLevel, []byte(tt.line+"\n"), false)}, 0)
			if subject != tt.subject {
				t.Errorf("subject %q, want %q", subject, tt.subject)
			}
			if body != tt.body {
				t.Errorf("body\n%q, want\n%q", body, tt.body)
			}
			m := mailer.EmailMessage{Subject: subject, Body: body, FromEmail: "a@example.com", To: []string{"b@example.com"}}
			if err := m.Validate(); err != nil {
				t.Errorf("it is no mail: %v", err)
			}
		})
	}
}

func TestReport_redact(t *testing.T) {
	t.Parallel()
	secret := func(key string) bool { return strings.Contains(key, "password") || key == "error" }
	tests := []struct{ name, line, subject, want string }{
		{"field", `{"password":"hunter2","message":"x"}`, "ERROR: x", "password: [redacted]\n"},
		{"within fields", `{"message":"x","form":[{"password":"hunter2","name":"ann"}]}`, "ERROR: x", `{"name":"ann","password":"[redacted]"}`},
		{"a whole group", `{"message":"x","passwords":{"a":"hunter2"}}`, "ERROR: x", "passwords: [redacted]\n"},
		{"the subject", `{"error":"hunter2"}`, "ERROR: [redacted]", "error: [redacted]\n"},
		{"half a line", `{"message":"x","password":"hunter2`, "ERROR: x", "cannot be read to its end. It is in the log.\n"},
		{"no JSON", `password=hunter2`, "ERROR: (no message)", "It is in the log.\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := report{redact: secret}
			subject, body := r.mail([]line{newLine(zerolog.ErrorLevel, []byte(tt.line), false)}, 0)
			if subject != tt.subject || !strings.Contains(body, tt.want) || strings.Contains(body, "hunter2") {
				t.Errorf("%q\n%s", subject, body)
			}
		})
	}
}

func TestReport_long(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 300)
	lines := []line{newLine(zerolog.ErrorLevel, []byte(`{"message":"`+long+`"}`), false)}
	subject, body := new(report).mail(lines, 0)
	if n := utf8.RuneCountInString(subject); n != 200 || !strings.HasSuffix(subject, "ä...") || !strings.Contains(body, long) {
		t.Errorf("%d characters: %q\n%s", n, subject, body)
	}
	subject, _ = new(report).mail(lines, 3)
	if n := utf8.RuneCountInString(subject); n != 200 || !strings.HasSuffix(subject, "ä... (and 3 more)") {
		t.Errorf("%d characters: %q", n, subject)
	}
	l := newLine(zerolog.ErrorLevel, []byte(strings.Repeat("x", 1<<20)), false)
	if len(l.text) != maxLine {
		t.Errorf("%d bytes of a line are kept, want %d", len(l.text), maxLine)
	}
}

// Whatever a line holds, it makes a mail that can be sent.
func FuzzReport(f *testing.F) {
	for _, s := range []string{`{"message":"x"}`, `{"a":[{"b":"\n"}]}`, "\xff", `{"message":"\r\nBcc: x"`, `[1]`, `{"a":1}}`, strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		subject, body := new(report).mail([]line{newLine(zerolog.ErrorLevel, []byte(text), false)}, 1)
		m := mailer.EmailMessage{Subject: subject, Body: body, FromEmail: "a@example.com", To: []string{"b@example.com"}}
		if err := m.Validate(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if n := utf8.RuneCountInString(subject); n > maxSubject {
			t.Errorf("a subject of %d characters", n)
		}
		if len(body) > 1000+20*len(text) {
			t.Errorf("a body of %d bytes for a line of %d", len(body), len(text))
		}
	})
}
