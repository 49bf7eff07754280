package pages

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
	"github.com/mailpouch/mailpouch/tasks"
)

// A message is looked up by a recipient, by its ID and by its Message-ID, also where the pages change nothing, and no address
// stands in the page's own address.
func TestBrowser_history(t *testing.T) {
	s := newScene(t)
	s.enqueue(tasks.Options{Tags: []string{"parcel"}, Mailing: "november-2026"}, "ann%d@example.com", "Your parcel no. %d", 2, 2)
	s.enqueue(tasks.Options{Queue: "bulk"}, "evil%d@example.com", "hello %d", 1, 1)
	b := browsertest.Start(t)
	page := strings.TrimSuffix(s.server.URL(), "/") + "/history"
	find := func(what string) {
		t.Helper()
		b.Do(chromedp.Navigate(page))
		b.Do(chromedp.SetValue(`input[name="q"]`, what))
		b.Press(".find button")
	}
	find("Ann1@example.com")
	says(b, "Messages to Ann1@example.com 1")
	if at := browsertest.Get(b, chromedp.Evaluate[string]("location.href")); at != page {
		t.Errorf("the page's address is %s", at)
	}
	text := browsertest.Get(b, chromedp.Text("main"))
	if !strings.Contains(text, "a***@example.com") || strings.Contains(text, "ann1@") || !strings.Contains(text, "mailing november-2026") {
		t.Errorf("the page says\n%s", text)
	}
	shot(b, t, "history")
	b.Press(".found li:nth-child(1) .what")
	says(b, "Message-ID")
	says(b, "sent")
	wide(b, t, 390)
	wide(b, t, 1280)
	shot(b, t, "message")
	messageID := browsertest.Get(b, chromedp.Evaluate[string](`[...document.querySelectorAll("dt")].find(e => e.textContent == "Message-ID").nextElementSibling.textContent`))
	find(messageID)
	says(b, messageID)
	find("evil0@example.com")
	says(b, "dead letter")
	if title := browsertest.Get(b, chromedp.Evaluate[string]("document.title")); title != "Find a message · Mailpouch" {
		t.Errorf("the title is %q", title)
	}
	find("nothing-such")
	says(b, "No such message.")
}

// Other sites cannot ask, and nobody without the password.
func TestHistory_guarded(t *testing.T) {
	t.Parallel()
	s := serve(t, Config{Password: secret("secret")})
	for _, tt := range []struct {
		name, password, origin string
		body                   string
		code                   int
		says                   string
	}{
		{"no password", "", "", "q=x", http.StatusUnauthorized, "password"},
		{"another site", "secret", "https://evil.example", "q=x", http.StatusForbidden, ""},
		{"nothing there", "secret", "", "q=x", http.StatusOK, "No such message."},
		{"no question", "secret", "", "", http.StatusOK, "Find a message"},
		{"too long", "secret", "", "q=" + strings.Repeat("x", 2000), http.StatusBadRequest, "longer than"},
		{"hostile", "secret", "", "q=" + url.QueryEscape(`<script>alert(1)</script>@x`), http.StatusOK, "&lt;script&gt;"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"history", strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if tt.password != "" {
			r.SetBasicAuth("ann", tt.password)
		}
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		resp, err := (&http.Client{Timeout: 20 * time.Second}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tt.code || !strings.Contains(string(body), tt.says) || strings.Contains(string(body), "<script>alert") {
			t.Errorf("%s: %d\n%s", tt.name, resp.StatusCode, body)
		}
	}
}
