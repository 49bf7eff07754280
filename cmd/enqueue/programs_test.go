package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// machine is one where /usr/sbin/sendmail is a link to enqueue.
type machine struct {
	t        *testing.T
	redis    *redistest.Server
	home     string
	sendmail string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, redis: redistest.Start(t, redistest.Options{}), home: t.TempDir()}
	m.sendmail = filepath.Join(m.home, "sendmail")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, m.sendmail); err != nil {
		t.Fatal(err)
	}
	return m
}

// run runs a program that sends mail, in an environment of its own.
func (m *machine) run(stdin, name string, args ...string) {
	m.t.Helper()
	c := exec.CommandContext(m.t.Context(), name, args...)
	c.Dir, c.Stdin = m.home, strings.NewReader(stdin)
	c.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + m.home, "LANG=C.UTF-8", "GIT_CONFIG_NOSYSTEM=1", "MAILRC=" + filepath.Join(m.home, "mailrc"),
		"REDIS_URL=" + m.redis.URL(), "EMAIL_HOSTNAME=app.example.com",
	}
	if out, err := c.CombinedOutput(); err != nil {
		m.t.Fatalf("%s: %v\n%s", c, err, out)
	}
}

// sent returns the one message that was queued.
func (m *machine) sent() received {
	m.t.Helper()
	all := takeQueued(m.t, m.redis, "default")
	if len(all) != 1 {
		m.t.Fatalf("%d messages queued, want 1: %q", len(all), all)
	}
	return all[0]
}

func (m *machine) file(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.home, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// program wants a program that the test is about.
func program(t *testing.T, name, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missing(t, name, pkg)
	}
}

func missing(t *testing.T, name, pkg string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed: apt-get install %s", name, pkg)
	}
	t.Skipf("%s is not installed: apt-get install %s", name, pkg)
}

func (r received) check(t *testing.T, from, to string, contains ...string) {
	t.Helper()
	slices.Sort(r.to)
	if r.from != from || strings.Join(r.to, " ") != to {
		t.Errorf("from %q to %q, want %q to %q", r.from, r.to, from, to)
	}
	for _, want := range contains {
		if !strings.Contains(r.data, want) {
			t.Errorf("no %q in\n%s", want, r.data)
		}
	}
}

func TestPython(t *testing.T) {
	program(t, "python3", "python3")
	m := newMachine(t)
	script := `
import email.message, email.policy, subprocess, sys
m = email.message.EmailMessage(policy=email.policy.SMTP)
m["From"], m["To"], m["Bcc"], m["Subject"] = "Ann <ann@example.com>", "Jörg <joerg@example.com>", "hidden@example.com", "Grüße"
m["Date"], m["Message-ID"] = "Fri, 02 Jan 2026 03:04:05 +0000", "<1@example.com>"
m.set_content("Grüße\n.\nFrom here\n", cte="8bit")
m.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream", filename="a.bin")
open("message.eml", "wb").write(m.as_bytes())
subprocess.run([sys.argv[1], "-t", "-oi"], input=m.as_bytes(), check=True)
`
	m.run("", "python3", "-c", script, m.sendmail)
	want, err := os.ReadFile(filepath.Join(m.home, "message.eml"))
	if err != nil {
		t.Fatal(err)
	}
	got := m.sent()
	got.check(t, runningUser(t)+"@app.example.com", "hidden@example.com joerg@example.com", "\r\n.\r\nFrom here\r\n", "Grüße\r\n")
	if whole := strings.Replace(string(want), "Bcc: hidden@example.com\r\n", "", 1); got.data != whole {
		t.Errorf("got\n%q, want\n%q", got.data, whole)
	}
}

func TestGitSendEmail(t *testing.T) {
	program(t, "git", "git")
	if out, err := exec.CommandContext(t.Context(), "git", "send-email", "--dump-aliases").CombinedOutput(); err != nil {
		missing(t, "git send-email", "git-email libmailtools-perl: "+string(out))
	}
	m := newMachine(t)
	const patch = `From 1111111111111111111111111111111111111111 Mon Sep 17 00:00:00 2001
From: =?UTF-8?q?J=C3=B6rg?= <joerg@example.com>
Date: Fri, 2 Jan 2026 03:04:05 +0000
Subject: [PATCH] Say it nicely
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit

Grüße, with a line of a dot:

.
---
diff --git a/a b/a
--- a/a
+++ b/a
@@ -1 +1 @@
-Hello
+Grüße
-- 
2.39.5
`
	m.file(".gitconfig", "[user]\nname = Ann\nemail = ann@example.com\n")
	m.run("", "git", "send-email", "--quiet", "--confirm=never", "--suppress-cc=all", "--sendmail-cmd="+m.sendmail, "--from=Ann <ann@example.com>",
		"--envelope-sender=bounces@example.com", "--to=list@example.com", "--cc=Bob <bob@example.com>", "--bcc=eve@example.com", m.file("0001.patch", patch))
	_, body, _ := strings.Cut(patch, "\n\n")
	got := m.sent()
	got.check(t, "bounces@example.com", "bob@example.com eve@example.com list@example.com", "Subject: [PATCH] Say it nicely\r\n", "From: Ann <ann@example.com>\r\n",
		crlf(body), "Content-Transfer-Encoding: 8bit\r\n")
	if strings.Contains(got.data, "eve@") {
		t.Errorf("Bcc is in the message:\n%s", got.data)
	}
}

func TestPHP(t *testing.T) {
	program(t, "php", "php-cli")
	m := newMachine(t)
	code := `exit(mail("ann@example.com, Bob <bob@example.com>", "Hello", "Text\n.\nmore",
		["From" => "Shop <shop@example.com>", "Bcc" => "hidden@example.com", "X-Campaign" => "spring"], "-fbounces@example.com") ? 0 : 1);`
	m.run("", "php", "-n", "-d", "sendmail_path="+m.sendmail+" -t -i", "-r", code)
	got := m.sent()
	got.check(t, "bounces@example.com", "ann@example.com bob@example.com hidden@example.com",
		"Subject: Hello\r\n", "To: ann@example.com, Bob <bob@example.com>\r\n", "X-Campaign: spring\r\n", "\r\n\r\nText\r\n.\r\nmore")
	if strings.Contains(got.data, "hidden@") {
		t.Errorf("Bcc is in the message:\n%s", got.data)
	}
}

func TestMailx(t *testing.T) {
	program(t, "bsd-mailx", "bsd-mailx")
	m := newMachine(t)
	m.file("mailrc", "set sendmail="+m.sendmail+"\n")
	m.run("Text\n", "bsd-mailx", "-s", "Hello", "-c", "bob@example.com", "-b", "hidden@example.com", "ann@example.com", "root")
	got := m.sent()
	got.check(t, runningUser(t)+"@app.example.com", "ann@example.com bob@example.com hidden@example.com root@app.example.com",
		"Subject: Hello\r\n", "Cc: bob@example.com\r\n", "\r\n\r\nText\r\n")
	if strings.Contains(got.data, "hidden@") {
		t.Errorf("Bcc is in the message:\n%s", got.data)
	}
}
