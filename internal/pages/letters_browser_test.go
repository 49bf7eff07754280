package pages

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/tasks"
)

// wide fails the test if the page is wider than a screen.
func wide(b *browsertest.Tab, t *testing.T, width int64) {
	t.Helper()
	b.Do(chromedp.EmulateViewport(width, 844))
	if got := browsertest.Get(b, chromedp.Evaluate[int64]("document.documentElement.scrollWidth")); got > width {
		t.Errorf("at %d px the page is %d px wide", width, got)
	}
	b.Do(chromedp.ResetViewport())
}

// Dead letters are looked at, filtered, replayed and deleted by hand.
func TestBrowser_letters(t *testing.T) {
	s := newScene(t)
	s.server = serve(t, Config{Redis: s.server.cfg.Redis, State: s.state, AllowWrite: true, Queues: map[string]int{"critical": 6, "default": 3, "bulk": 1}})
	s.enqueue(tasks.Options{Tags: []string{"parcel"}, Mailing: "november-2026"}, "nobody%d@example.com", "Your parcel no. %d is on its way", 9, 9)
	s.enqueue(tasks.Options{Queue: "bulk"}, "evil%d@example.com", "<svg onload=document.title='owned'> %d", 2, 2)
	s.enqueue(tasks.Options{}, "busy%d@example.org", "Your order %d", 3, 3)
	b := browsertest.Start(t)
	url := strings.TrimSuffix(s.server.URL(), "/")
	b.Do(chromedp.Navigate(url + "/dead"))
	says(b, "1 to 11 of 11")
	text := browsertest.Get(b, chromedp.Text("body"))
	for _, want := range []string{"550 5.1.1 …: Recipient address rejected: User unknown", "550 5.1.1 <n***@example.com>: Recipient address rejected", "#parcel", "mailing november-2026", "<script>document.title"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
	for _, never := range []string{"nobody0@", "the-secret-body"} {
		if strings.Contains(text, never) {
			t.Errorf("the page shows %q", never)
		}
	}
	if title := browsertest.Get(b, chromedp.Evaluate[string]("document.title")); title != "Dead letters · Mailpouch" {
		t.Errorf("the title is %q", title)
	}
	wide(b, t, 390)
	wide(b, t, 1280)
	shot(b, t, "dead")
	picture(b, t, "dead.png", 1280, 1000)

	b.Press(".groups li:nth-child(1) a")
	says(b, "1 to 9 of 9")
	b.Press(".letters li:nth-child(1) .what")
	says(b, "last try")
	says(b, "not delivered to n***@example.com")
	wide(b, t, 390)
	shot(b, t, "letter")

	b.Do(chromedp.Navigate(url + "/dead?queue=bulk"))
	b.Press(".letters li:nth-child(1) input")
	b.Press(`button[value="delete"]`)
	says(b, "Delete this message?")
	shot(b, t, "sure")
	b.Press(".sure button.primary")
	says(b, "1 deleted.")
	says(b, "1 to 1 of 1")

	b.Do(chromedp.Navigate(url + "/dead?tag=parcel"))
	b.Press(`input[name="all"]`)
	b.Press(`button[value="replay"]`)
	says(b, "Replay all 9 of these messages?")
	b.Press(".sure button.primary")
	says(b, "9 queued again.")
	for range 9 { // they are refused again
		select {
		case <-s.outcomes:
		case <-time.After(time.Minute):
			t.Fatal("what was replayed is not tried")
		}
	}

	b.Do(chromedp.Navigate(url + "/retries"))
	says(b, "Greylisting in action")
	says(b, "next in")
	wide(b, t, 390)
	shot(b, t, "retries")
	b.Press(".letters li:nth-child(1) input")
	b.Press(`button[value="now"]`)
	says(b, "1 tried now.")
	b.Do(chromedp.Navigate(url + "/retries"))
	b.Press(".letters li:nth-child(1) input")
	b.Press(`button[value="cancel"]`)
	b.Press(".sure button.primary")
	says(b, "1 cancelled.")

	b.Do(chromedp.Navigate(url + "/dead?since=yesterday"))
	says(b, `since: "yesterday" is no time`)
}

// A page that has much to do shows how far it is, and goes on by itself to the end, or until somebody stops it.
func TestBrowser_manyLetters(t *testing.T) {
	client := connectWorker(t, redistest.Start(t, redistest.Options{}).URL())
	s := serve(t, Config{Redis: client, AllowWrite: true, actTime: 100 * time.Millisecond})
	manyDead(t, client, 4000)
	b := browsertest.Start(t)
	b.Do(chromedp.Navigate(s.URL() + "dead"))
	says(b, "1 to 50 of 4,000")
	b.Press(`input[name="all"]`)
	b.Press(`button[value="replay"]`)
	says(b, "Replay all 4,000 of these messages?")
	scripts := func(on bool) {
		b.Do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
			_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
			return err
		}))
	}
	scripts(false) // then a person presses the button for each part
	b.Press(".sure button.primary")
	says(b, "It goes on while this page is open.")
	shot(b, t, "going")
	wide(b, t, 390)
	scripts(true)
	b.Press(".going button.primary")
	says(b, "4,000 queued again.")
	says(b, "There are no dead letters.")
	if n := client.LLen(t.Context(), "asynq:{default}:pending").Val(); n != 4000 {
		t.Errorf("%d messages wait, want 4000", n)
	}
}

// shot writes screenshots of a page, light and dark, wide and narrow, into the directory that the flag names.
func shot(b *browsertest.Tab, t *testing.T, name string) {
	t.Helper()
	if *shots == "" {
		return
	}
	for _, scheme := range []string{"light", "dark"} {
		prefer(b, scheme)
		for _, width := range []int64{1280, 390} {
			b.Do(chromedp.EmulateViewport(width, 900))
			b.Screenshot(fmt.Sprintf("%s/%s-%s-%d.png", *shots, name, scheme, width), width, 1700)
		}
	}
	prefer(b, "light")
	b.Do(chromedp.ResetViewport())
}
