package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
	"github.com/mailpouch/mailpouch/examples/hooks"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is what several goroutines write.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Who wants no mail gets none, all mail says where it is from, and the books have what became of each message.
func TestWorker(t *testing.T) {
	for _, d := range settings.Describe(settings.Default()) {
		t.Setenv(d.Name, "")
		_ = os.Unsetenv(d.Name)
	}
	dir := t.TempDir()
	mails, suppressed, books := filepath.Join(dir, "mails"), filepath.Join(dir, "suppressed.txt"), filepath.Join(dir, "books.jsonl")
	if err := os.WriteFile(suppressed, []byte("Bob@example.org\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"REDIS_URL": redistest.Start(t, redistest.Options{}).URL(), "EMAIL_HTTP_ADDR": "off", "EMAIL_HOSTNAME": "worker.example.com",
		"EMAIL_QUEUE_BACKEND": "filebased", "EMAIL_FILE_PATH": mails,
	} {
		t.Setenv(name, value)
	}
	app, err := mailpouch.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = app.Close() }()
	raw, err := mailer.ParseRaw([]byte("From: shop@example.com\r\nTo: ann@example.org\r\nSubject: Finished\r\n\r\nHello\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	sent, err := app.Mailer.Send(t.Context(),
		&mailer.EmailMessage{Subject: "Both", FromEmail: "shop@example.com", To: []string{"ann@example.org"}, Bcc: []string{"bob@example.org"}},
		&mailer.EmailMessage{Subject: "Bob", FromEmail: "shop@example.com", To: []string{"bob@example.org"}}, raw)
	if sent != 3 || err != nil {
		t.Fatal(sent, err)
	}

	configure, err := configured(suppressed, books)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended, log := make(chan int, 1), new(output)
	go func() { ended <- workercli.Run(ctx, backends.Builtin(), []string{"run"}, log, log, configure) }()
	entries := waitForBooks(t, books, 3, log)
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("the worker ended with %d\n%s", code, log)
	}

	actions := map[string]string{}
	for _, e := range entries {
		actions[strings.Join(e.Recipients, " ")] = e.Action + ": " + e.Reason
	}
	for to, want := range map[string]string{
		"ann@example.org bob@example.org": "sent: ", "ann@example.org": "sent: ",
		"bob@example.org": "dead letter: all recipients have asked for no more mail (policy)",
	} {
		if actions[to] != want {
			t.Errorf("to %s: %q, want %q", to, actions[to], want)
		}
	}
	files, err := filepath.Glob(filepath.Join(mails, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for text, want := range map[string]int{"X-System: shop": 2, "Subject: Both": 1, "Subject: Finished": 1, "Subject: Bob": 0} {
		if got := strings.Count(all.String(), text); got != want {
			t.Errorf("%q is there %d times, want %d:\n%s", text, got, want, all.String())
		}
	}
}

func waitForBooks(t *testing.T, name string, n int, log *output) (entries []hooks.Entry) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		entries = entries[:0]
		for line := range strings.Lines(string(text)) {
			var e hooks.Entry
			if json.Unmarshal([]byte(line), &e) == nil {
				entries = append(entries, e)
			}
		}
		if len(entries) >= n {
			return entries
		}
	}
	t.Fatalf("%d entries after a minute:\n%s", len(entries), log)
	return nil
}

func TestConfigured_problems(t *testing.T) {
	file := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{{"", file}, {file, ""}, {file + "/none", file}} {
		if _, err := configured(names[0], names[1]); err == nil {
			t.Errorf("%q are taken", names)
		}
	}
	if list, err := hooks.ReadSuppressed(strings.NewReader("A@x\n b@x \n")); err != nil || !list["a@x"] || !list["b@x"] || len(list) != 2 {
		t.Errorf("got %v, %v", list, err)
	}
}
