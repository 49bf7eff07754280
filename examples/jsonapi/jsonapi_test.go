package jsonapi

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

// inactive is a recipient that the API rejects, while the others get the message.
const inactive = "inactive@example.net"

// api is a provider that takes every mail, once for each key.
type api struct {
	*httptest.Server
	connections atomic.Int64

	mu       sync.Mutex
	received []mailertest.Mail
	keys     map[string][]byte // the bodies
}

func newAPI(t *testing.T) *api {
	a := &api{keys: map[string][]byte{}}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			a.connections.Add(1)
		}
	}
	a.Start()
	t.Cleanup(a.Close)
	return a
}

func say(w http.ResponseWriter, code int, text string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": text})
}

// serve reads by the names that the API documents, and not by our types.
func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	var body struct {
		From        string
		To, Cc, Bcc []string
		Reply_to    []string
		Subject     string
		Text, HTML  string
		Headers     map[string]string
		Attachments []struct {
			Filename, Content_type, Content_id string
			Content                            []byte
		}
	}
	if r.Header.Get("Authorization") != "Bearer right" {
		say(w, http.StatusUnauthorized, "API key is invalid")
		return
	}
	if r.Method == http.MethodGet {
		return
	}
	data, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(data, &body); err != nil {
		say(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := r.Header.Get("Idempotency-Key")
	if before, ok := a.keys[key]; ok && key != "" {
		if string(before) != string(data) {
			say(w, http.StatusConflict, "the key was used for another message")
		}
		return
	}
	a.keys[key] = data
	mail := mailertest.Mail{Parts: &mailertest.Parts{
		From: body.From, To: body.To, Cc: body.Cc, ReplyTo: body.Reply_to, Subject: body.Subject, Text: body.Text, HTML: body.HTML,
		MessageID: body.Headers["Message-ID"], Headers: body.Headers,
	}}
	delete(body.Headers, "Message-ID")
	for _, f := range body.Attachments {
		mail.Parts.Attachments = append(mail.Parts.Attachments, mailer.Attachment{
			Filename: f.Filename, Content: f.Content, Mimetype: f.Content_type, ContentID: f.Content_id,
		})
	}
	var rejected []map[string]string
	for _, to := range slices.Concat(body.To, body.Cc, body.Bcc) {
		to = strings.TrimSuffix(to[strings.LastIndexByte(to, '<')+1:], ">")
		if to == inactive {
			rejected = append(rejected, map[string]string{"email": strings.ToUpper(to), "reason": "hard bounce"})
			continue
		}
		mail.Envelope.To = append(mail.Envelope.To, to)
	}
	if len(mail.Envelope.To) > 0 {
		a.received = append(a.received, mail)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"id": "17", "rejected": rejected})
}

func (a *api) mails() []mailertest.Mail {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.received
}

func newBackend(t *testing.T, url string) *Backend {
	b, err := New(Config{URL: url, Token: "right"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// The contract, sentence by sentence. There are no bytes of RFC 5322 to compare: the API has the parts.
func TestConformance(t *testing.T) {
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		a := newAPI(t)
		return mailertest.Harness{
			Backend:     newBackend(t, a.URL),
			Parts:       true,
			Received:    a.mails,
			Connections: func() int { return int(a.connections.Load()) },
			Down:        a.Close,
			Refuses:     inactive,
		}
	})
}

// What each answer means is the backend's own to test.
func TestBackend_SendMessages(t *testing.T) {
	for _, tt := range []struct {
		name   string
		code   int
		header string
		class  mailer.Class
		text   string
		after  time.Duration
	}{
		{"invalid", 422, "", mailer.Permanent, "422 no (end of data)", 0},
		{"wrong token", 401, "", mailer.Unavailable, "401 no (AUTH)", 0},
		{"wrong URL", 404, "", mailer.Unavailable, "404 no (connect)", 0},
		{"no such sender", 403, "", mailer.Unavailable, "403 no (end of data)", 0},
		{"too many", 429, "2", mailer.Unavailable, "429 no (connect)", 2 * time.Second},
		{"away", 503, "120", mailer.Unavailable, "503 no (connect)", 2 * time.Minute},
		{"under way", 409, "1", mailer.Temporary, "409 no (end of data)", time.Second},
		{"broken", 500, "", mailer.Temporary, "500 no (end of data)", 0},
		{"proxy", 502, "", mailer.Unknown, "502 no (end of data)", 0},
		{"moved", 301, "", mailer.Unavailable, "301 no (connect)", 0},
		{"cut off", 0, "", mailer.Unknown, "end of data: jsonapi: EOF", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodGet:
				case tt.code == 0:
					panic(http.ErrAbortHandler)
				default:
					if tt.header != "" {
						w.Header().Set("Retry-After", tt.header)
					}
					say(w, tt.code, "no")
				}
			}))
			t.Cleanup(server.Close)
			sent, err := newBackend(t, server.URL).SendMessages(t.Context(), []*mailer.EmailMessage{{To: []string{"ann@example.org"}}})
			failure, ok := errors.AsType[*mailer.SendError](mailer.ErrorAt(err, 0))
			if sent != 0 || !ok || failure.Class != tt.class || failure.Error() != tt.text || failure.RetryAfter != tt.after {
				t.Errorf("got %d, %+v, want 0, %s (%v, after %v)", sent, failure, tt.text, tt.class, tt.after)
			}
		})
	}
}

// What the API has no field for is refused, for good, and not left out.
func TestBackend_unfit(t *testing.T) {
	a := newAPI(t)
	b := newBackend(t, a.URL)
	for what, change := range map[string]func(m *mailer.EmailMessage){
		"the header From":                      func(m *mailer.EmailMessage) { m.Headers = map[string]string{"From": "other@example.com"} },
		"an alternative of type text/calendar": func(m *mailer.EmailMessage) { m.AttachAlternative("BEGIN:VCALENDAR", "text/calendar") },
		"a body of type text/markdown":         func(m *mailer.EmailMessage) { m.ContentSubtype = "markdown" },
		"a finished message (Raw)":             func(m *mailer.EmailMessage) { m.Raw = []byte("Subject: a\r\n\r\nb\r\n") },
	} {
		m := &mailer.EmailMessage{To: []string{"ann@example.org"}}
		change(m)
		_, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{m})
		if got := mailer.ErrorAt(err, 0); mailer.ClassOf(got) != mailer.Permanent || !strings.HasSuffix(got.Error(), "has no field for "+what) {
			t.Errorf("%s: %v (%v)", what, got, mailer.ClassOf(got))
		}
	}
	html := &mailer.EmailMessage{To: []string{"ann@example.org"}, Body: "<p>Hello</p>", ContentSubtype: "html"}
	if n, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{html}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if all := a.mails(); len(all) != 1 || all[0].Parts.HTML != "<p>Hello</p>" || all[0].Parts.Text != "" {
		t.Errorf("got %+v", all)
	}
}

// A worker tries recipients again alone, with the same message: those who have it get no second copy, and the API does
// not take it for a repetition of the first.
func TestBackend_onlyTo(t *testing.T) {
	a := newAPI(t)
	b := newBackend(t, a.URL)
	m := &mailer.EmailMessage{
		Subject: "Hello", MessageID: "<1@example.org>", To: []string{"Ann <ann@example.org>", "Bob <bob@example.org>"},
		Cc: []string{"cy@example.org"}, Bcc: []string{"hidden@example.org"},
	}
	for _, only := range [][]string{nil, {"bob@example.org"}, {"bob@example.org"}, {"hidden@example.org"}} {
		one := m
		if only != nil {
			one = m.WithRecipients(only)
		}
		if n, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{one}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	var got []string
	for _, mail := range a.mails() {
		got = append(got, strings.Join(mail.Envelope.To, " "))
	}
	want := []string{"ann@example.org bob@example.org cy@example.org hidden@example.org", "bob@example.org", "hidden@example.org"}
	if !slices.Equal(got, want) {
		t.Errorf("sent to %q, want %q", got, want)
	}
}

// What the sending side puts in front of a message goes with it, and mail that is redirected has no header that the API has no
// field for.
func TestBackend_trace(t *testing.T) {
	a := newAPI(t)
	m := &mailer.EmailMessage{Subject: "Hello", To: []string{"ann@example.org"}, Headers: map[string]string{"To": "everybody@example.org", "X-Tag": "a"}}
	m = m.Redirect("qa@example.com").WithTrace(mailer.Field{Name: "X-Original-To", Value: "ann@example.org"}, mailer.Field{Name: "X-Original-To", Value: "bob@example.org"})
	if n, err := newBackend(t, a.URL).SendMessages(t.Context(), []*mailer.EmailMessage{m}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	got := a.mails()[0]
	if h := got.Parts.Headers; h["X-Original-To"] != "ann@example.org, bob@example.org" || h["X-Tag"] != "a" || !slices.Equal(got.Envelope.To, []string{"qa@example.com"}) {
		t.Errorf("it goes to %q with %v", got.Envelope.To, h)
	}
}

// A worker that probes must not hear that all is well while its token is wrong.
func TestBackend_Open(t *testing.T) {
	a := newAPI(t)
	for token, want := range map[string]bool{"right": true, "wrong": false} {
		b, err := New(Config{URL: a.URL, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		opened, err := b.Open(t.Context())
		_ = b.Close()
		if opened != want || (err == nil) != want {
			t.Errorf("token %q: got %v, %v", token, opened, err)
		}
		if err != nil && (mailer.ClassOf(err) != mailer.Unavailable || err.Error() != "401 API key is invalid (AUTH)") {
			t.Errorf("token %q: %v (%v)", token, err, mailer.ClassOf(err))
		}
	}
}

func TestFromURL(t *testing.T) {
	for _, tt := range []struct{ url, wantURL, wantToken string }{
		{"jsonapi+https://SECRET@api.example.com", "https://api.example.com", "SECRET"},
		{"jsonapi+http://a%3Ab@127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1", "a:b"},
		{"jsonapi+http://mx", "", ""},
		{"", "", ""},
		{"jsonapi+https://SECRET:SECRET@mx", "", ""},
		{"jsonapi+https://SECRET@mx?k=SECRET", "", ""},
		{"jsonapi+https://SECRET@mx#SECRET", "", ""},
		{"jsonapi+ftp://SECRET@mx", "", ""},
	} {
		var u *url.URL
		if tt.url != "" {
			u, _ = url.Parse(tt.url)
		}
		b, err := FromURL(u, mailer.Defaults{FromEmail: "shop@example.com"})
		switch {
		case err != nil && (tt.wantURL != "" || strings.Contains(err.Error(), "SECRET")):
			t.Errorf("%s: %v", tt.url, err)
		case err == nil && (b.cfg.URL != tt.wantURL || b.cfg.Token != tt.wantToken || b.cfg.Defaults.FromEmail != "shop@example.com"):
			t.Errorf("%s: got %+v", tt.url, b.cfg)
		}
	}
}
