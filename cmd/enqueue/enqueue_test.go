package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/cli"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// result is what a user sees of a command.
type result struct {
	code     int
	out, err string
}

// enqueue runs the command in a clean environment.
func enqueue(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := cli.Run(t.Context(), newCommand, args, cli.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs})
	return result{code, out.String(), errs.String()}
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pending counts the messages that wait in a queue, alone or in tasks of many.
func pending(t *testing.T, s *redistest.Server, queue string) int {
	t.Helper()
	inspector := asynq.NewInspectorFromRedisClient(s.Client(t))
	n := 0
	if info, err := inspector.GetQueueInfo(queue); err == nil {
		n = info.Size
	}
	mass, err := inspector.ListPendingTasks(queue+":mass", asynq.PageSize(10_000))
	if err != nil {
		return n
	}
	for _, task := range mass {
		n += wire.Count(task.Payload)
	}
	return n
}

// Whatever is wrong, there is one clear line, the right exit code, and nothing queued.
func TestBadInput(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	good := `{"to": ["ann@example.com"]}`

	tests := []struct {
		name  string
		args  []string
		stdin string
		code  int
		want  []string // each in a line of its own on stderr
	}{
		{"no command", nil, "", 64, nil},
		{"unknown command", []string{"snd"}, "", 64, []string{`unknown command "snd"`}},
		{"unknown flag", []string{"send", "--tow", "x"}, "", 64, []string{"unknown flag: --tow"}},
		{"nobody", []string{"send", "--subject", "x"}, "", 64, []string{"nobody to send to"}},
		{"address with a newline", []string{"send", "--to", "ann@example.com\nBcc: all@example.com"}, "", 65, []string{"to[0]"}},
		{"no address", []string{"send", "--to", "ann at example.com"}, "", 65, []string{"to[0]"}},
		{"subject with a newline", []string{"send", "--to", "a@example.com", "--subject", "x\r\ny"}, "", 65, []string{"subject"}},
		{"header without colon", []string{"send", "--to", "a@example.com", "--header", "X-A"}, "", 64, []string{"--header"}},
		{"unreadable attachment", []string{"send", "--to", "a@example.com", "--attach", "/nowhere/a.pdf"}, "", 66, []string{"/nowhere/a.pdf"}},
		{"unreadable body", []string{"send", "--to", "a@example.com", "--body-file", "/nowhere/a.txt"}, "", 66, []string{"/nowhere/a.txt"}},
		{"two bodies", []string{"send", "--to", "a@example.com", "--body", "x", "--body-file", "-"}, "", 64, []string{"body-file"}},
		{"bad time", []string{"send", "--to", "a@example.com", "--process-at", "tomorrow"}, "", 64, []string{"process_at"}},
		{"bad duration", []string{"send", "--to", "a@example.com", "--process-in", "soon"}, "", 64, []string{"process_in"}},
		{"bad number", []string{"send", "--to", "a@example.com", "--max-retry", "many"}, "", 64, []string{"many"}},
		{"deadline over", []string{"send", "--to", "a@example.com", "--deadline", "2001-01-01T00:00:00Z"}, "", 64, []string{"deadline"}},
		{"render of nothing", []string{"render", "-"}, "", 65, []string{"not a message"}},
		{"render of a list", []string{"render", "-"}, "[1]", 65, []string{"not a message"}},
		{"render of an unknown field", []string{"render", "-"}, `{"colour": "red"}`, 65, []string{"colour"}},
		{"render of no file", []string{"render", "/nowhere"}, "", 66, []string{"/nowhere"}},
		{"test of nobody", []string{"test"}, "", 64, []string{"give an address"}},
		{"a blank in a queue's name", []string{"send", "--to", "ann@example.com", "--queue", "with blank"}, "", 64, []string{`"with blank" cannot be the name of a queue: use letters`}},
		{"test of no admins", []string{"test", "--admins"}, "", 78, []string{"ADMINS"}},
		{"bulk of no file", []string{"bulk", "/nowhere"}, "", 66, []string{"/nowhere"}},
		{"bulk file with bad lines",
			[]string{"bulk", file(t, "b", good+"\nnonsense\n\n"+`{"to": []}`+"\n"+`{"to": ["x\ny"]}`+"\n"+`{"to": ["a@example.com"], "options": {"priority": 1}}`+"\n"+good)},
			"", 65, []string{"line 2: not a message", "line 4: to: nobody", "line 5: bad header: to[0]", "line 6: options", "nothing was queued"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := enqueue(t, tt.stdin, tt.args...)
			if got.code != tt.code {
				t.Errorf("exit code %d, want %d (%s)", got.code, tt.code, got.err)
			}
			if got.out != "" {
				t.Errorf("standard output has %q", got.out)
			}
			lines := strings.Split(strings.TrimSpace(got.err), "\n")
			if tt.want != nil && len(lines) != len(tt.want) {
				t.Errorf("%d lines on stderr, want %d:\n%s", len(lines), len(tt.want), got.err)
			}
			for i, want := range tt.want {
				if i < len(lines) && !strings.Contains(lines[i], want) {
					t.Errorf("line %d is %q, want %q in it", i+1, lines[i], want)
				}
			}
			if n := pending(t, server, "default"); n != 0 {
				t.Errorf("%d tasks queued", n)
			}
		})
	}
}

// A pipe cannot be read twice: the good lines are queued, the bad ones named.
func TestBulk_pipe(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	in := `{"to": ["ann@example.com"]}` + "\nnonsense\n" + `{"to": ["bob@example.com"], "options": {"queue": "bulk", "at_most_once": true}}` + "\n"
	got := enqueue(t, in, "bulk", "-")
	if got.code != 65 || !strings.Contains(got.err, "line 2:") || !strings.Contains(got.err, "2 queued, 1 lines left out") {
		t.Errorf("exit code %d, %q", got.code, got.err)
	}
	if d, b := pending(t, server, "default"), pending(t, server, "bulk"); d != 1 || b != 1 {
		t.Errorf("%d and %d queued, want 1 and 1", d, b)
	}
}

func TestBulk_file(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	lines := strings.Repeat(`{"to": ["ann@example.com"], "subject": "x"}`+"\n", 50)
	got := enqueue(t, "", "bulk", file(t, "good", lines), "--queue", "bulk")
	if got.code != 0 || !strings.HasPrefix(got.out, "50 queued\nmailing ") || got.err != "" {
		t.Errorf("%+v", got)
	}
	if n := pending(t, server, "bulk"); n != 50 {
		t.Errorf("%d queued, want 50", n)
	}
}

// When Redis goes away the command says so, in one line, and how far it came.
func TestRedisDown(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1/0")
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	for _, args := range [][]string{
		{"send", "--to", "ann@example.com"},
		{"test", "ann@example.com"},
		{"bulk", file(t, "m", `{"to": ["ann@example.com"]}`)},
	} {
		got := enqueue(t, "", args...)
		if got.code != 69 || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, "connection refused") {
			t.Errorf("%v: exit code %d, %q", args, got.code, got.err)
		}
	}
}

func TestRender(t *testing.T) {
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1/0") // render needs none
	in := `{"subject": "Hello", "body": "It works.", "to": ["Ann <ann@bücher.example>", "ann@bücher.example"],
		"bcc": ["boss@example.com"], "message_id": "<1@example.com>", "date": "2026-01-02T03:04:05Z"}`
	got := enqueue(t, in, "render", "-")
	want := "From: webmaster@localhost\r\nTo: Ann <ann@xn--bcher-kva.example>, ann@xn--bcher-kva.example\r\nSubject: Hello\r\n" +
		"Date: Fri, 02 Jan 2026 03:04:05 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nIt works.\r\n"
	if got.code != 0 || unfold(got.out) != unfold(want) {
		t.Errorf("exit code %d\n%s\nwant\n%s%s", got.code, got.out, want, got.err)
	}
	got = enqueue(t, in, "render", "--recipients", "-")
	if want := "ann@xn--bcher-kva.example\nboss@example.com\n"; got.code != 0 || got.out != want {
		t.Errorf("recipients: exit code %d, %q, want %q", got.code, got.out, want)
	}
}

func unfold(s string) string { return strings.ReplaceAll(s, "\r\n ", " ") }

func TestTest(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("ADMINS", "Ann <ann@example.com>")
	t.Setenv("MANAGERS", "max@example.com")
	got := enqueue(t, "", "test", "bob@example.com", "eve@example.com", "--admins", "--managers")
	if got.code != 0 || got.out != "3 queued\n" {
		t.Errorf("%+v", got)
	}
	if n := pending(t, server, "default"); n != 3 {
		t.Errorf("%d queued, want 3", n)
	}
}

// Help teaches by example and its examples are commands that exist.
func TestHelp(t *testing.T) {
	for _, command := range []string{"", "send", "bulk", "render", "test"} {
		args := []string{"--help"}
		if command != "" {
			args = []string{command, "--help"}
		}
		got := enqueue(t, "", args...)
		if got.code != 0 || !strings.Contains(got.out, "Examples:") || !strings.Contains(got.out, "enqueue "+command) {
			t.Errorf("%v: exit code %d\n%s", args, got.code, got.out)
		}
	}
}

// A setting with a queue's name that no worker can take from is named.
func TestEnqueue_queueOfTheSettings(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_QUEUE", "eu.bulk")
	got := enqueue(t, "", "send", "--to", "ann@example.com")
	if got.code != 78 || !strings.Contains(got.err, `EMAIL_QUEUE: "eu.bulk" is not a queue's name; use letters of the English alphabet, digits, - and _`) {
		t.Errorf("%+v, want exit code 78 and the setting", got)
	}
}
