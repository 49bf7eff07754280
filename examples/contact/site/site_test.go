package site_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/examples/contact/site"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// newSite is a site whose mail ends in the outbox.
func newSite(t *testing.T) (http.Handler, *locmem.Outbox) {
	t.Helper()
	outbox := new(locmem.Outbox)
	backend, err := locmem.New(locmem.Config{Outbox: outbox})
	if err != nil {
		t.Fatal(err)
	}
	return siteWith(t, backend), outbox
}

func siteWith(t *testing.T, backend mailer.Backend) http.Handler {
	t.Helper()
	mail, err := mailer.New(mailer.Config{Connect: func(mailer.Connection) (mailer.Backend, error) { return backend, nil }})
	if err != nil {
		t.Fatal(err)
	}
	cfg := settings.Message{ServerEmail: "site@example.com", SubjectPrefix: "[Shop] ", Admins: settings.Addresses{"Ann <ann@example.com>"}}
	return site.New(mail, cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

func form(subject, message, from string) url.Values {
	return url.Values{"subject": {subject}, "message": {message}, "from_email": {from}}
}

func post(h http.Handler, v url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/contact/", strings.NewReader(v.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestSubmit(t *testing.T) {
	h, outbox := newSite(t)
	w := post(h, form("Opening hours", "Are you open\r\non Monday?", "bob@example.org"))
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/contact/thanks/" {
		t.Errorf("answer = %d to %q", w.Code, w.Header().Get("Location"))
	}
	got := outbox.Messages()
	if len(got) != 2 {
		t.Fatalf("%d mails, want 2", len(got))
	}
	admins, visitor := got[0].Message, got[1].Message
	if admins.Subject != "[Shop] Opening hours" || admins.Body != "Are you open\non Monday?" || admins.FromEmail != "site@example.com" ||
		strings.Join(admins.To, ",") != "Ann <ann@example.com>" || strings.Join(admins.ReplyTo, ",") != "bob@example.org" {
		t.Errorf("to the admins: %+v", admins)
	}
	if strings.Join(visitor.To, ",") != "bob@example.org" || visitor.Headers["Auto-Submitted"] != "auto-replied" {
		t.Errorf("to the visitor: %+v", visitor)
	}
}

// The confirmation says the same to everybody: the form sends nobody's words to others.
func TestSubmit_confirmationIsFixed(t *testing.T) {
	h, outbox := newSite(t)
	post(h, form("Opening hours", "Are you open?", "bob@example.org"))
	post(h, form("BUY NOW https://evil.example", "BUY NOW https://evil.example", "bob@example.org"))
	var texts []string
	for _, m := range outbox.Messages() {
		if m.Envelope.To[0] == "bob@example.org" {
			m.Message.MessageID, m.Message.Date = "", time.Time{}
			texts = append(texts, fmt.Sprintf("%+v", *m.Message))
		}
	}
	if len(texts) != 2 || texts[0] != texts[1] {
		t.Errorf("confirmations differ:\n%s", strings.Join(texts, "\n"))
	}
}

func TestSubmit_injection(t *testing.T) {
	tests := []struct {
		name string
		form url.Values
	}{
		{"LF in the subject", form("Hello\nBcc: everybody@example.com", "Hello.", "bob@example.org")},
		{"CRLF in the subject", form("Hello\r\n\r\nBuy now", "Hello.", "bob@example.org")},
		{"CR in the subject", form("Hello\rBcc: everybody@example.com", "Hello.", "bob@example.org")},
		{"at the end", form("Hello\n", "Hello.", "bob@example.org")},
		{"NUL", form("Hello\x00", "Hello.", "bob@example.org")},
		{"in the address", form("Hello", "Hello.", "bob@example.org\nBcc: everybody@example.com")},
		{"with nothing else", form("Hello\nBcc: everybody@example.com", "", "")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, outbox := newSite(t)
			w := post(h, tt.form)
			if w.Code != http.StatusBadRequest || strings.TrimSpace(w.Body.String()) != "Invalid header found." {
				t.Errorf("answer = %d %q", w.Code, w.Body)
			}
			if n := len(outbox.Messages()); n != 0 {
				t.Errorf("%d mails went out", n)
			}
		})
	}
}

func TestSubmit_faults(t *testing.T) {
	const subject, message, from = `id="subject-fault"`, `id="message-fault"`, `id="from-fault"`
	tests := []struct {
		name string
		form url.Values
		want []string // of the three
	}{
		{"nothing", url.Values{}, []string{subject, message, from}},
		{"blanks", form(" ", "\r\n\t ", " "), []string{subject, message, from}},
		{"no subject", form("", "Hello.", "bob@example.org"), []string{subject}},
		{"too long", form(strings.Repeat("ü", 201), strings.Repeat("ü", 10_001), "bob@example.org"), []string{subject, message}},
		{"no UTF-8", form("\xff", "\xff", "bob@example.org"), []string{subject, message}},
		{"no address", form("Hello", "Hello.", "bob"), []string{from}},
		{"a name", form("Hello", "Hello.", "Buy now <bob@example.org>"), []string{from}},
		{"a comment", form("Hello", "Hello.", "bob@example.org (buy now)"), []string{from}},
		{"quoted", form("Hello", "Hello.", `"buy now"@example.org`), []string{from}},
		{"two addresses", form("Hello", "Hello.", "bob@example.org, eve@example.org"), []string{from}},
		{"no UTF-8 in the address", form("Hello", "Hello.", "b\xffb@example.org"), []string{from}},
		{"endless address", form("Hello", "Hello.", strings.Repeat("b", 1000)+"@example.org"), []string{from}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, outbox := newSite(t)
			w := post(h, tt.form)
			if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "Make sure all fields are entered and valid.") {
				t.Errorf("answer = %d\n%s", w.Code, w.Body)
			}
			for _, fault := range []string{subject, message, from} {
				want := strings.Contains(strings.Join(tt.want, " "), fault)
				if strings.Contains(w.Body.String(), fault) != want {
					t.Errorf("%s: shown = %v, want %v", fault, !want, want)
				}
			}
			if n := len(outbox.Messages()); n != 0 {
				t.Errorf("%d mails went out", n)
			}
		})
	}
}

func TestSubmit_accepts(t *testing.T) {
	tests := []struct {
		name string
		form url.Values
	}{
		{"longest", form(strings.Repeat("ü", 200), strings.Repeat("漢", 10_000), "bob@example.org")},
		{"blanks around the address", form("Hello", "Hello.", " bob+shop@example.org ")},
		{"international", form("Grüße", "Schön.", "jürgen@bücher.example")},
		{"looks like HTML", form("<b>", "</textarea><script>", "o'neil@example.org")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, outbox := newSite(t)
			if w := post(h, tt.form); w.Code != http.StatusSeeOther || len(outbox.Messages()) != 2 {
				t.Errorf("answer = %d, %d mails\n%s", w.Code, len(outbox.Messages()), w.Body)
			}
		})
	}
}

// What was entered is shown again, as text.
func TestSubmit_keepsTheEntry(t *testing.T) {
	h, _ := newSite(t)
	w := post(h, form(`A "quote" & <b>`, "\nfirst\r\n</textarea><script>alert(1)</script>", "no address"))
	for _, want := range []string{
		`value="A &#34;quote&#34; &amp; &lt;b&gt;"`,
		"\n\nfirst\n&lt;/textarea&gt;&lt;script&gt;alert(1)", // HTML drops one line end at the start
		`value="no address"`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in\n%s", want, w.Body)
		}
	}
}

// broken is a backend that fails for some of the messages.
type broken struct{ errs mailer.SendErrors }

func (broken) Open(context.Context) (bool, error) { return true, nil }
func (broken) Close() error                       { return nil }
func (b broken) SendMessages(context.Context, []*mailer.EmailMessage) (int, error) {
	return 0, b.errs
}

func TestSubmit_away(t *testing.T) {
	away := &mailer.SendError{Class: mailer.Unavailable, Err: errors.New("connection refused")}
	w := post(siteWith(t, broken{mailer.SendErrors{away, away}}), form("Hello", "My long letter.", "bob@example.org"))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("answer = %d %v", w.Code, w.Header())
	}
	for _, want := range []string{"try again", "My long letter.", `value="bob@example.org"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in\n%s", want, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), "refused") {
		t.Errorf("the page shows our error:\n%s", w.Body)
	}
	// The admins have the message: a confirmation that fails is not the visitor's concern.
	w = post(siteWith(t, broken{mailer.SendErrors{nil, away}}), form("Hello", "Hello.", "bob@example.org"))
	if w.Code != http.StatusSeeOther {
		t.Errorf("without the confirmation: %d", w.Code)
	}
}

func TestSubmit_refused(t *testing.T) {
	h, outbox := newSite(t)
	request := func(change func(*http.Request)) int {
		r := httptest.NewRequest(http.MethodPost, "http://shop.example/contact/", strings.NewReader(form("Hello", "Hello.", "bob@example.org").Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	tests := []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"another site's form", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		{"an old browser's", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, http.StatusForbidden},
		{"endless", func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader("message=" + strings.Repeat("x", 300<<10)))
		}, http.StatusBadRequest},
		{"broken encoding", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("message=%zz")) }, http.StatusBadRequest},
		{"in the address of the page", func(r *http.Request) {
			r.URL.RawQuery, r.Body = form("Hello", "Hello.", "bob@example.org").Encode(), http.NoBody
		}, http.StatusUnprocessableEntity},
		{"our own form", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }, http.StatusSeeOther},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(outbox.Messages())
			if got := request(tt.change); got != tt.want {
				t.Errorf("answer = %d, want %d", got, tt.want)
			}
			if sent := len(outbox.Messages()) > before; sent != (tt.want == http.StatusSeeOther) {
				t.Errorf("sent = %v", sent)
			}
		})
	}
}

func TestPages(t *testing.T) {
	h, _ := newSite(t)
	tests := []struct {
		path string
		code int
		want string
	}{
		{"/contact/", http.StatusOK, "<form"},
		{"/contact/thanks/", http.StatusOK, "Thank you"},
		{"/healthz", http.StatusOK, "ok\n"},
		{"/", http.StatusSeeOther, "/contact/"},
		{"/contact/other", http.StatusNotFound, ""},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			w := get(h, tt.path)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("answer = %d\n%s", w.Code, w.Body)
			}
			if !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "default-src 'none'") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers = %v", w.Header())
			}
		})
	}
}
