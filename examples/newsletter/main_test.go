package main

import (
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/url"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/mailer"
)

// A recipient gets mail, leaves the list as a mail program does it, and gets no more.
func TestNewsletter(t *testing.T) {
	outbox := new(locmem.Outbox)
	m, err := mailer.New(mailer.Config{Connect: func(mailer.Connection) (mailer.Backend, error) { return locmem.New(locmem.Config{Outbox: outbox}) }})
	if err != nil {
		t.Fatal(err)
	}
	l := &list{key: []byte("k")}
	server := httptest.NewServer(l.pages())
	t.Cleanup(server.Close)
	l.url = strings.Replace(server.URL, "http:", "https:", 1)
	addresses := "ann@example.com\nbob+x@example.org\n"
	if n, err := l.send(t.Context(), m, strings.NewReader(addresses)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	first := outbox.Messages()[0]
	if first.Envelope.From != "bounces+ann=example.com@example.com" {
		t.Errorf("sender %s", first.Envelope.From)
	}
	parsed, err := mail.ReadMessage(strings.NewReader(string(first.Raw)))
	if err != nil {
		t.Fatal(err)
	}
	link := strings.Trim(parsed.Header.Get("List-Unsubscribe"), "<>")
	post := func(link string) int {
		t.Helper()
		name, value, _ := strings.Cut(parsed.Header.Get("List-Unsubscribe-Post"), "=")
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.Replace(link, "https:", "http:", 1), strings.NewReader(url.Values{name: {value}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	for _, try := range []string{strings.Replace(link, "ann%40", "bob%40", 1), link + "x"} {
		if code := post(try); code != http.StatusForbidden {
			t.Errorf("%s: %d: anybody can take others off the list", try, code)
		}
	}
	if code := post(link); code != http.StatusOK {
		t.Errorf("%s: %d", link, code)
	}
	if n, err := l.send(t.Context(), m, strings.NewReader(addresses)); n != 1 || err != nil {
		t.Errorf("%d messages after one has left, %v", n, err)
	}
}
