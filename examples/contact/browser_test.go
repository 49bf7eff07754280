package main

import (
	"context"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/inbox"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var screenshots = flag.Bool("screenshots", false, "write pictures of the pages into docs/images")

// shop is the program with all that belongs to it: a Redis, a mail server, and a worker
// once it is started.
type shop struct {
	t     *testing.T
	url   string // of the form
	redis *redistest.Server
	mail  *catcher.Server
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, redis: redistest.Start(t, redistest.Options{AppendOnly: redistest.Always})}
	var err error
	if s.mail, err = catcher.Start(catcher.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.mail.Close() })
	t.Setenv("EMAIL_BACKEND", "queue")
	t.Setenv("REDIS_URL", s.redis.URL())
	t.Setenv("ADMINS", "Ann <ann@shop.example>")
	t.Setenv("SERVER_EMAIL", "Website <www@shop.example>")
	t.Setenv("DEFAULT_FROM_EMAIL", "Shop <hello@shop.example>")
	t.Setenv("EMAIL_SUBJECT_PREFIX", "[Shop] ")
	t.Setenv("EMAIL_HOSTNAME", "www.shop.example")
	s.url = start(t)
	return s
}

// start runs the program until the test ends.
func start(t *testing.T) (formURL string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := make(lines, 100)
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"-addr", "127.0.0.1:0"}, log) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for {
		select {
		case line := <-log:
			if found := regexp.MustCompile(`url=(\S+)`).FindStringSubmatch(line); found != nil {
				return found[1]
			}
		case err := <-done:
			t.Fatalf("ended at once: %v", err)
		}
	}
}

// lines is a log that a test can wait for. What nobody reads is dropped.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// work starts a worker, until the test ends.
func (s *shop) work() {
	s.t.Helper()
	client, err := redisconn.ConnectWorker(s.redis.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	worker, err := tasks.NewWorker(client, tasks.WorkerConfig{Connect: func(string) (mailer.Backend, error) {
		return smtp.New(smtp.Config{Addrs: []string{s.mail.Addr()}, Hostname: "worker.shop.example"})
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		_ = client.Close()
	})
}

// caught waits for n mails in all and returns their decoded headers and texts, those to
// the admins first.
func (s *shop) caught(n int) []catcher.Decoded {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if err := s.mail.Wait(ctx, n); err != nil {
		s.t.Fatal(err)
	}
	var letters []catcher.Decoded
	for _, m := range s.mail.Messages() {
		letters = append(letters, catcher.Decode(m.Raw))
	}
	slices.SortStableFunc(letters, func(a, b catcher.Decoded) int {
		return strings.Compare(a.Header.Get("Reply-To"), b.Header.Get("Reply-To")) * -1
	})
	return letters
}

func (s *shop) queued() int {
	s.t.Helper()
	keys, err := s.redis.Client(s.t).Keys(s.t.Context(), "*:t:*").Result() // asynq's tasks
	if err != nil {
		s.t.Fatal(err)
	}
	return len(keys)
}

func (s *shop) picture(b *browsertest.Tab, name string, width, height int64) {
	s.t.Helper()
	if *screenshots {
		b.Screenshot(filepath.Join("..", "..", "docs", "images", name), width, height)
	}
}

const (
	question = "Opening hours in December"
	letter   = "Hello,\n\nare you open on Boxing Day? One of us needs a ramp.\n\nBest wishes\nBob"
	visitor  = "bob@example.org"
)

func fill(subject, message, from string) []chromedp.Action[chromedp.Void] {
	return []chromedp.Action[chromedp.Void]{
		chromedp.SetValue(chromedp.CSS("#subject"), subject), chromedp.SetValue(chromedp.CSS("#message"), message), chromedp.SetValue(chromedp.CSS("#from_email"), from),
	}
}

func TestBrowser(t *testing.T) {
	s := newShop(t)
	b := browsertest.Start(t)
	if code := b.Load(chromedp.Navigate(s.url)); code != http.StatusOK {
		t.Fatalf("form: %d", code)
	}
	b.Do(chromedp.SendKeys(chromedp.CSS("#subject"), question), chromedp.SendKeys(chromedp.CSS("#message"), letter), chromedp.SendKeys(chromedp.CSS("#from_email"), visitor))
	s.picture(b, "contact.png", 900, 760)
	s.picture(b, "contact-phone.png", 390, 760)
	b.Load(chromedp.Click(chromedp.CSS("button")))
	if got, want := browsertest.Get(b, chromedp.Location()), s.url+"thanks/"; got != want {
		t.Fatalf("sent to %s, want %s", got, want)
	}
	if got := browsertest.Get(b, chromedp.Text(chromedp.CSS("h1"))); got != "Thank you" {
		t.Errorf("heading = %q", got)
	}
	s.picture(b, "thanks.png", 900, 400)

	s.work()
	got := s.caught(2)
	admins, confirmation := got[0], got[1]
	want := catcher.Header{
		{Name: "From", Value: "Website <www@shop.example>"}, {Name: "To", Value: "Ann <ann@shop.example>"},
		{Name: "Reply-To", Value: visitor}, {Name: "Subject", Value: "[Shop] " + question},
	}
	for _, f := range want {
		if got := admins.Header.Get(f.Name); got != f.Value {
			t.Errorf("to the admins: %s = %q, want %q", f.Name, got, f.Value)
		}
	}
	if text := string(admins.Parts[0].Content); strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")) != letter {
		t.Errorf("to the admins:\n%s", text)
	}
	if got := confirmation.Header.Get("To"); got != visitor {
		t.Errorf("confirmation to %q", got)
	}
	if text := string(confirmation.Parts[0].Content); strings.Contains(text, "Boxing Day") || !strings.Contains(text, "has reached us") {
		t.Errorf("confirmation:\n%s", text)
	}
	s.pictureOfMail(b)
}

// pictureOfMail shows what "make web" has at its second address.
func (s *shop) pictureOfMail(b *browsertest.Tab) {
	s.t.Helper()
	page := httptest.NewServer(inbox.New(s.mail))
	defer page.Close()
	b.Do(chromedp.Navigate(page.URL + "/mail/1"))
	s.picture(b, "inbox.png", 1000, 600)
	b.Do(chromedp.Navigate("about:blank")) // ends its wait for more mail
}

func TestBrowser_emptyFields(t *testing.T) {
	s := newShop(t)
	b := browsertest.Start(t)
	b.Do(chromedp.Navigate(s.url))
	if code := b.Load(chromedp.Click(chromedp.CSS("button"))); code != http.StatusUnprocessableEntity {
		t.Errorf("answer = %d", code)
	}
	if got := browsertest.Get(b, chromedp.Text(chromedp.CSS(".notice"))); got != "Make sure all fields are entered and valid." {
		t.Errorf("notice = %q", got)
	}
	for field, fault := range map[string]string{"#subject": "#subject-fault", "#message": "#message-fault", "#from_email": "#from-fault"} {
		if browsertest.Get(b, chromedp.Text(chromedp.CSS(fault))) == "" {
			t.Errorf("%s has no text", fault)
		}
		if got := browsertest.Get(b, chromedp.Attributes(chromedp.CSS(field))); got["aria-invalid"] != "true" || !strings.Contains(got["aria-describedby"], fault[1:]) {
			t.Errorf("%s: %v", field, got)
		}
	}

	// Only what is wrong has to be entered again.
	b.Do(fill(question, letter, "bob at example.org")...)
	b.Load(chromedp.Click(chromedp.CSS("button")))
	if got := browsertest.Get(b, chromedp.Value(chromedp.CSS("#message"))); got != letter {
		t.Errorf("message = %q", got)
	}
	if n := s.queued(); n != 0 {
		t.Errorf("%d tasks are queued", n)
	}
}

// A browser strips line ends from what is typed into an input, but not from a form that a
// script has changed.
func TestBrowser_injection(t *testing.T) {
	s := newShop(t)
	b := browsertest.Start(t)
	b.Do(chromedp.Navigate(s.url))
	b.Do(fill(question, letter, visitor)...)
	code := b.Load(chromedp.Evaluate[chromedp.Void](`
		const subject = document.getElementById("subject");
		subject.type = "hidden";
		subject.value = "Hello\r\nBcc: everybody@example.com";
		document.querySelector("form").submit();
	`))
	if got := browsertest.Get(b, chromedp.Text(chromedp.CSS("body"))); code != http.StatusBadRequest || got != "Invalid header found.\n" {
		t.Errorf("answer = %d %q", code, got)
	}
	if n := s.queued(); n != 0 {
		t.Errorf("%d tasks are queued", n)
	}
}

func TestBrowser_queueAway(t *testing.T) {
	s := newShop(t)
	b := browsertest.Start(t)
	s.redis.Stop()
	b.Do(chromedp.Navigate(s.url))
	b.Do(fill(question, letter, visitor)...)
	if code := b.Load(chromedp.Click(chromedp.CSS("button"))); code != http.StatusServiceUnavailable {
		t.Errorf("answer = %d", code)
	}
	s.redis.Restart()
	b.Load(chromedp.Click(chromedp.CSS("button"))) // nothing has to be entered again
	if got := browsertest.Get(b, chromedp.Text(chromedp.CSS("h1"))); got != "Thank you" {
		t.Errorf("heading = %q", got)
	}
	if n := s.queued(); n != 2 {
		t.Errorf("%d tasks are queued, want 2", n)
	}
}

// Pressing the button twice sends one message, and one person is told once a day.
func TestRun_sendsOnce(t *testing.T) {
	s := newShop(t)
	for _, subject := range []string{"Hello", "Hello", "Something else"} {
		response, err := http.PostForm(s.url, url.Values{"subject": {subject}, "message": {letter}, "from_email": {visitor}})
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK || response.Request.URL.Path != "/contact/thanks/" {
			t.Errorf("answer = %s at %s", response.Status, response.Request.URL)
		}
	}
	if n := s.queued(); n != 3 {
		t.Errorf("%d tasks are queued, want two messages and one confirmation", n)
	}
}
