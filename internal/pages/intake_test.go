package pages

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/mailpouch/mailpouch/intake/httpapi"
	"github.com/mailpouch/mailpouch/internal/redact"
	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
	"github.com/mailpouch/mailpouch/internal/webhook"
)

func TestState_intake(t *testing.T) {
	t.Parallel()
	s, pass := clocked()
	if ways, endpoints := s.in.all(); ways != nil || endpoints != nil {
		t.Errorf("there is none, and %+v, %+v", ways, endpoints)
	}
	hooks, api := s.Submission(), s.API()
	for range 3 {
		hooks.Opened()
	}
	hooks.Closed()
	hooks.Login(true)
	hooks.Login(false)
	for _, code := range []int{250, 250, 451, 550, 451} {
		hooks.Message(code, 1000, time.Second)
	}
	api(httpapi.Request{Status: 200})
	api(httpapi.Request{Status: 403})
	pass(time.Second)
	failing := s.now().Add(-time.Hour)
	s.Webhooks(func() []webhook.EndpointState {
		return []webhook.EndpointState{{Name: "h.example", Delivered: 7, Waiting: 2, UnderWay: 1, FailingSince: failing, LastError: "503 of <ann@example.com>\x1b"}}
	})
	ways, states := s.in.all()
	endpoints := endpointsStatus(states, redact.View{})
	if len(ways) != 2 || ways[0].Open != 2 || ways[0].Accepted != 2 || ways[0].Logins != 1 || ways[0].Refused["451"] != 2 || ways[0].Refused["550"] != 1 || ways[0].Rate == 0 ||
		ways[1].Name != "HTTP" || ways[1].Accepted != 1 || ways[1].Refused["403"] != 1 {
		t.Errorf("got %+v", ways)
	}
	if len(endpoints) != 1 || endpoints[0].Waiting != 3 || endpoints[0].Delivered != 7 || !endpoints[0].Failing.Equal(failing) || endpoints[0].Ended != nil ||
		strings.ContainsAny(endpoints[0].LastError, "\x1b") || strings.Contains(endpoints[0].LastError, "ann@") {
		t.Errorf("got %+v", endpoints)
	}
}

// What is taken in and posted is on the page, and a process that delivers nothing does not look like a worker whose relay is idle.
func TestBrowser_intake(t *testing.T) {
	s := serve(t, Config{State: NoWorker()})
	hooks := s.cfg.State.Submission()
	s.cfg.State.Webhooks(func() []webhook.EndpointState {
		return []webhook.EndpointState{{Name: "app.example.com", EndedAt: time.Now(), LastError: "<b>410</b>", LastErrorAt: time.Now()}}
	})
	b := browsertest.Start(t)
	b.Do(chromedp.Navigate(s.URL()))
	says(b, "This process, which delivers nothing")
	hooks.Message(250, 1, time.Millisecond)
	hooks.Message(452, 1, time.Millisecond)
	says(b, "Refused: 1 with 452")
	says(b, "wants no more (410)")
	says(b, "<b>410</b>")
	text := browsertest.Get(b, chromedp.Text("main"))
	if strings.Contains(text, "Its relays") || strings.Contains(text, "Nothing has failed") {
		t.Errorf("it looks like a worker:\n%s", text)
	}
}
