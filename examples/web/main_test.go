package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs everything and returns the three addresses that it prints: of the form, of the
// caught mail and of the worker.
func start(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, w, io.Discard)
		_ = w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	var urls []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		urls = append(urls, regexp.MustCompile(`http://\S+`).FindAllString(lines.Text(), 1)...)
		if strings.Contains(lines.Text(), "Ctrl-C") {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if len(urls) != 3 {
		t.Fatalf("printed %d addresses, want 3: %q", len(urls), urls)
	}
	return urls
}

func get(t *testing.T, url string) (code int, text string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestRun(t *testing.T) {
	t.Setenv("EMAIL_HOST", "mail.example.com") // a person's own, which must get nothing
	t.Setenv("EMAIL_QUEUE_BACKEND", "smtp")
	taken, err := net.Listen("tcp", "127.0.0.1:8000")
	if err == nil { // else somebody has it already, which is as good
		defer func() { _ = taken.Close() }()
	}
	urls := start(t)
	if host := os.Getenv("EMAIL_HOST"); host != "127.0.0.1" {
		t.Errorf("EMAIL_HOST = %q", host)
	}
	response, err := http.PostForm(urls[0], url.Values{"subject": {"Hello"}, "message": {"It works."}, "from_email": {"bob@example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if got := response.Request.URL.Path; got != "/contact/thanks/" {
		t.Fatalf("the form leads to %s: %s", got, response.Status)
	}
	waitForMail(t, urls[1], "data: 2")
	if _, body := get(t, urls[1]); !strings.Contains(body, "[Shop] Hello") || !strings.Contains(body, "bob@example.org") {
		t.Errorf("caught:\n%s", body)
	}
	for _, path := range []string{"", "readyz", "monitor/"} {
		if code, _ := get(t, urls[2]+path); code != http.StatusOK {
			t.Errorf("the worker's /%s: %d", path, code)
		}
	}
}

// waitForMail reads the page's events until one comes.
func waitForMail(t *testing.T, page, event string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, page+"events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if lines.Text() == event {
			return
		}
	}
	t.Fatalf("no %q within a minute", event)
}
