package pages

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// What another site sends in the name of a visitor pauses nothing, nor does anything where writing is not allowed.
func TestPauses_guard(t *testing.T) {
	t.Parallel()
	redisURL := redistest.Start(t, redistest.Options{}).URL()
	client := connect(t, redisURL)
	q := tasks.NewQueue(client, tasks.QueueConfig{Options: tasks.Options{Queue: "bulk"}})
	if _, err := q.Enqueue(t.Context(), &mailer.EmailMessage{FromEmail: "a@example.com", To: []string{"b@example.com"}}); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		write bool
		path  string
		site  string // Sec-Fetch-Site
		form  url.Values
		code  int
		want  int // pauses
	}{
		"read only":     {false, "/pauses", "same-origin", url.Values{"target": {"queue=bulk"}}, http.StatusMethodNotAllowed, 0},
		"another site":  {true, "/pauses", "cross-site", url.Values{"target": {"queue=bulk"}}, http.StatusForbidden, 0},
		"nothing":       {true, "/pauses", "same-origin", url.Values{}, http.StatusBadRequest, 0},
		"unknown queue": {true, "/pauses", "same-origin", url.Values{"target": {"queue=bluk"}}, http.StatusNotFound, 0},
		"own":           {true, "/pauses", "same-origin", url.Values{"target": {"queue=bulk"}, "reason": {"a\nb"}}, http.StatusSeeOther, 1},
		"resume by another": {
			true, "/pauses/resume", "cross-site", url.Values{"target": {"queue=bulk"}}, http.StatusForbidden, 1,
		},
		"resume": {true, "/pauses/resume", "same-origin", url.Values{"target": {"queue=bulk"}}, http.StatusSeeOther, 0},
	}
	for _, name := range []string{"read only", "another site", "nothing", "unknown queue", "own", "resume by another", "resume"} {
		tt := tests[name]
		s := serve(t, Config{Redis: client, AllowWrite: tt.write})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.TrimSuffix(s.URL(), "/")+tt.path, strings.NewReader(tt.form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", tt.site)
		reply, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = reply.Body.Close()
		list, err := tasks.NewPauses(client).List(t.Context())
		if reply.StatusCode != tt.code || len(list) != tt.want || err != nil {
			t.Errorf("%s: %d and %d pauses, want %d and %d (%v)", name, reply.StatusCode, len(list), tt.code, tt.want, err)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections() //nolint:forcetypeassert // it is one
}

// A person pauses a queue and a mailing on the page, sees that on the first page, and resumes them.
func TestBrowser_pauses(t *testing.T) {
	s := newScene(t)
	s.enqueue(tasks.Options{Queue: "bulk"}, "ann%d@shop.example", "Parcel %d", 1, 1)
	server := serve(t, Config{Redis: s.client, State: s.state, Version: "v1.0.0", AllowWrite: true, Queues: map[string]int{"bulk": 1}})
	b := browsertest.Start(t)
	root := strings.TrimSuffix(server.URL(), "/")
	nothing := chromedp.WaitVisible(".title + p.empty")
	b.Do(chromedp.Navigate(root+"/pauses"), nothing,

		chromedp.SetValue(`select[name=target]`, "queue=bulk"), chromedp.SetValue(`input[name=reason]`, `<script>document.title="owned"</script>`),
		chromedp.Click(`form[action="/pauses"] button`), chromedp.WaitVisible(`form[action="/pauses/resume"]`),

		chromedp.SetValue(`input[name=mailing]`, "july"), chromedp.Click(`form[action="/pauses"] button`),
		chromedp.WaitVisible(`tr:nth-child(2) form[action="/pauses/resume"]`))
	text := browsertest.Get(b, chromedp.Text("table"))
	for _, want := range []string{"queue bulk", "mailing july", "<script>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table has no %q: %s", want, text)
		}
	}
	if title := browsertest.Get(b, chromedp.Title()); strings.Contains(title, "owned") {
		t.Error("a script of a reason runs")
	}
	b.Do(chromedp.EmulateViewport(360, 740))
	if wide := browsertest.Get(b, chromedp.Evaluate[int]("document.documentElement.scrollWidth")); wide > 360 {
		t.Errorf("on a phone the page is %d px wide", wide)
	}
	shot(b, t, "pauses")
	b.Do(chromedp.Navigate(root + "/"))
	says(b, "The mailing july is paused")
	text = browsertest.Get(b, chromedp.Evaluate[string]("document.getElementById('notices').innerText")) // which is made anew each second
	if !strings.Contains(text, "The queue bulk is paused") || !strings.Contains(text, "The mailing july is paused") {
		t.Errorf("the first page does not say what is paused: %s", text)
	}
	b.Do(chromedp.Navigate(root+"/pauses"), chromedp.Click(`button[aria-label="Resume queue bulk"]`),
		chromedp.WaitVisible(`tr:only-child button[aria-label="Resume mailing july"]`), chromedp.Click(`button[aria-label="Resume mailing july"]`), // the page anew
		nothing)
	if list, err := tasks.NewPauses(s.client).List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("List = %+v, %v", list, err)
	}
}
