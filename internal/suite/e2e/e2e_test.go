// Package e2e tests the commands as their users run them: built, as processes, with a
// real Redis on one side and a real Postfix on the other.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

const mails = 2000

// commands builds both commands and returns the directory they are in.
func commands(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "../../../cmd/enqueue", "../../../cmd/worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// site is an installation: the commands, a Redis and a Postfix.
type site struct {
	t       *testing.T
	bin     string
	env     []string
	redis   *redistest.Server
	postfix *postfixtest.Server
	want    map[string]*mailer.EmailMessage // by Message-ID
}

func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteWith(t, postfixtest.Options{})
}

func newSiteWith(t *testing.T, opts postfixtest.Options) *site {
	t.Helper()
	s := &site{
		t: t, bin: commands(t),
		redis:   redistest.Start(t, redistest.Options{AppendOnly: redistest.Always}),
		postfix: postfixtest.Start(t, opts),
		want:    map[string]*mailer.EmailMessage{},
	}
	host, port, err := net.SplitHostPort(s.postfix.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "EMAIL_") {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "REDIS_URL="+s.redis.URL(), "EMAIL_HOST="+host, "EMAIL_PORT="+port, "EMAIL_HOSTNAME=app.example.com")
	return s
}

// file writes n messages for enqueue bulk and remembers them.
func (s *site) file(n int) string {
	s.t.Helper()
	var lines bytes.Buffer
	for i := range n {
		m := &mailer.EmailMessage{
			Subject:   fmt.Sprintf("Grüße no. %d", i),
			Body:      fmt.Sprintf("Hello %d\n.\n..two dots\nFrom here on\r\nit goes on.\n%s", i, strings.Repeat("x", i%mails)),
			FromEmail: "Shop <shop@example.com>",
			To:        []string{fmt.Sprintf("Customer %d <customer%d@example.com>", i, i)},
			MessageID: fmt.Sprintf("<%d@app.example.com>", i),
			Date:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Charset:   "utf-8",
		}
		if i%10 == 0 {
			m.AttachAlternative("<p>Grüße</p>", "text/html")
			m.Attach("picture.png", []byte("\x89PNG\r\n\x1a\n"+strings.Repeat("\x00\xff", i%mails)), "image/png")
		}
		line, err := json.Marshal(m)
		if err != nil {
			s.t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
		s.want[m.MessageID] = m
	}
	file := filepath.Join(s.t.TempDir(), "messages.jsonl")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

func (s *site) command(name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, name), args...)
	c.Env = s.env
	return c
}

func (s *site) run(name string, args ...string) string {
	s.t.Helper()
	c := s.command(name, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}

// worker starts a worker process. stop sends it SIGTERM and waits for its end.
func (s *site) worker() (stop func()) { return s.workerUntil(syscall.SIGTERM) }

func (s *site) workerUntil(end syscall.Signal) (stop func()) {
	s.t.Helper()
	c := s.command("worker", "run")
	var log bytes.Buffer
	c.Stderr = &log
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if err := c.Process.Signal(end); err != nil {
			s.t.Errorf("%v: %v", end, err)
		}
		if err := c.Wait(); err != nil {
			s.t.Errorf("worker: %v\n%s", err, tail(log.Bytes()))
		}
	}
}

func tail(log []byte) []byte { return log[max(0, len(log)-2000):] }

func (s *site) wait(n int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	if err := s.postfix.Wait(ctx, n); err != nil {
		s.t.Fatal(err)
	}
}

// check compares what was delivered with what was handed over, byte for byte.
func (s *site) check() {
	s.t.Helper()
	if err := s.postfix.Drain(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	got := map[string]int{}
	for _, m := range s.postfix.Messages() {
		id := messageID(m.Raw)
		got[id]++
		want, ok := s.want[id]
		if !ok {
			s.t.Errorf("message %q was never handed over", id)
			continue
		}
		var rendered bytes.Buffer
		if _, err := want.WriteTo(&rendered); err != nil {
			s.t.Fatal(err)
		}
		if !bytes.Equal(m.Raw, rendered.Bytes()) {
			s.t.Errorf("%s arrived as\n%s\nwant\n%s", id, m.Raw, rendered.Bytes())
		}
		envelope, err := want.Envelope()
		if err != nil {
			s.t.Fatal(err)
		}
		if m.From != envelope.From || m.To != envelope.To[0] {
			s.t.Errorf("%s arrived from %s to %s, want from %s to %s", id, m.From, m.To, envelope.From, envelope.To[0])
		}
	}
	lost, twice := 0, 0
	for id := range s.want {
		switch {
		case got[id] == 0:
			lost++
		case got[id] > 1:
			twice++
		}
	}
	if lost > 0 || twice > 0 {
		s.t.Errorf("%d lost and %d delivered twice of %d", lost, twice, len(s.want))
	}
}

func messageID(raw []byte) string {
	for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
		if id, ok := bytes.CutPrefix(line, []byte("Message-ID: ")); ok {
			return string(id)
		}
	}
	return ""
}

func TestPostfix(t *testing.T) {
	s := newSite(t)
	if out, want := s.run("enqueue", "bulk", s.file(mails)), fmt.Sprintf("%d queued\nmailing bulk-", mails); !strings.HasPrefix(out, want) {
		t.Errorf("enqueue bulk printed %q, want %q", out, want)
	}
	start := time.Now()
	stop := s.worker()
	s.wait(mails)
	t.Logf("%.0f mails/s from Redis through Postfix into the mailbox", mails/time.Since(start).Seconds())
	stop()
	s.check()
}

func TestPostfix_workerReplaced(t *testing.T) {
	s := newSite(t)
	const all = 3 * mails // so many that some are left, though a worker goes on until it gets its signal
	s.run("enqueue", "bulk", s.file(all))
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if err := s.postfix.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := len(s.postfix.Messages())
		stop := s.workerUntil(end)
		s.wait(before + 100) // that it has sent itself: one that has just started dies of a signal
		stop()
	}
	delivered := len(s.postfix.Messages())
	if delivered >= all {
		t.Fatalf("all %d messages were delivered before the last worker started: nothing was shown", delivered)
	}
	t.Logf("%d of %d were delivered before the last worker started", delivered, all)
	stop := s.worker()
	s.wait(all)
	stop()
	s.check()
}

// What one command enqueues from its flags arrives as it was meant.
func TestSend(t *testing.T) {
	s := newSite(t)
	attachment := filepath.Join(t.TempDir(), "bericht.txt")
	if err := os.WriteFile(attachment, []byte("Zahlen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := s.run("enqueue", "send", "--from", "shop@example.com", "--to", "Ann <ann@example.com>", "--bcc", "boss@example.com",
		"--subject", "Grüße", "--body", "Hello.", "--header", "X-Campaign: spring", "--attach", attachment)
	if len(strings.TrimSpace(id)) < 10 {
		t.Errorf("send printed %q, want the task's ID", id)
	}
	stop := s.worker()
	s.wait(2)
	stop()
	to := map[string]bool{}
	for _, m := range s.postfix.Messages() {
		to[m.To] = true
		for _, want := range []string{"X-Campaign: spring\r\n", "To: Ann <ann@example.com>\r\n", "bericht.txt", "@app.example.com>"} {
			if !bytes.Contains(m.Raw, []byte(want)) {
				t.Errorf("the message has no %q:\n%s", want, m.Raw)
			}
		}
		if bytes.Contains(m.Raw, []byte("boss@")) {
			t.Errorf("the blind copy is shown:\n%s", m.Raw)
		}
	}
	if !to["ann@example.com"] || !to["boss@example.com"] {
		t.Errorf("delivered to %v", to)
	}
}
