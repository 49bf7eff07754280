package main

import (
	"strings"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// The same command again queues nothing and prints the same ID; another message is refused.
func TestSend_idempotencyKey(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	send := func(subject string) result {
		return enqueue(t, "", "send", "--to", "ann@example.com", "--subject", subject, "--idempotency-key", "order-7")
	}
	first, again := send("a"), send("a")
	if first.code != 0 || first.out == "" || first.out != again.out || again.code != 0 {
		t.Errorf("first %+v, again %+v", first, again)
	}
	id := strings.TrimSpace(first.out)
	if other := send("b"); other.code != 65 || !strings.Contains(other.err, `"order-7" was used for another message (task `+id+")") {
		t.Errorf("another message: %+v", other)
	}
	bury(t, server, "default")
	if dead := send("a"); dead.code != 65 || !strings.Contains(dead.err, "enqueue dead replay "+id) {
		t.Errorf("dead letter: %+v", dead)
	}
	if n := pending(t, server, "default"); n != 1 {
		t.Errorf("%d tasks, want 1", n)
	}
}

func TestSend_unique(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	for range 2 {
		if got := enqueue(t, "", "send", "--to", "ann@example.com", "--unique", "1h"); got.code != 0 {
			t.Errorf("%+v", got)
		}
	}
	if n := pending(t, server, "default"); n != 1 {
		t.Errorf("%d tasks, want 1", n)
	}
}

// A file of lines with keys may be given again, and a line whose key was used is named.
func TestBulk_idempotencyKey(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	lines := `{"to": ["ann@example.com"], "options": {"idempotency_key": "1"}}
{"to": ["bob@example.com"], "options": {"idempotency_key": "2"}}
{"to": ["eve@example.com"], "options": {"unique": "1h"}}
`
	for range 2 {
		if got := enqueue(t, "", "bulk", file(t, "good", lines)); got.code != 0 || !strings.HasPrefix(got.out, "3 queued\nmailing ") {
			t.Errorf("%+v", got)
		}
	}
	got := enqueue(t, "", "bulk", file(t, "clash", strings.ReplaceAll(lines, "bob", "joe")))
	if got.code != 65 || !strings.Contains(got.err, `line 2: idempotency key "2" was used`) || !strings.Contains(got.err, "2 queued, 1 lines left out") {
		t.Errorf("%+v", got)
	}
	if n := pending(t, server, "default"); n != 3 {
		t.Errorf("%d tasks, want 3", n)
	}
}

func TestCancel(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	send := func(args ...string) string {
		return strings.TrimSpace(enqueue(t, "", append([]string{"send", "--to", "ann@example.com"}, args...)...).out)
	}
	waiting, scheduled, other, dead := send(), send("--process-in", "1h"), send("--queue", "bulk"), send("--queue", "dead")
	bury(t, server, "dead")
	for _, tt := range []struct {
		name string
		args []string
		code int
		out  string
		err  string
	}{
		{"waiting", []string{waiting}, 0, "cancelled\n", ""},
		{"again", []string{waiting}, 65, "", waiting + ": no such task"},
		{"scheduled", []string{scheduled}, 0, "cancelled\n", ""},
		{"of another queue", []string{other}, 65, "", "no such task in the queue of EMAIL_QUEUE (enqueue status says in which it is, and --queue names that)"},
		{"with its queue", []string{other, "--queue", "bulk"}, 0, "cancelled\n", ""},
		{"not there either", []string{other, "--queue", "bulk"}, 65, "", other + ": no such task\n"},
		{"dead letter", []string{dead, "--queue", "dead"}, 65, "", "too late to cancel"},
		{"no ID", nil, 64, "", "accepts 1 arg"},
		{"no queue's name", []string{other, "--queue", "a{b}"}, 64, "", "queue"},
	} {
		got := enqueue(t, "", append([]string{"cancel"}, tt.args...)...)
		if got.code != tt.code || got.out != tt.out || !strings.Contains(got.err, tt.err) {
			t.Errorf("%s: %+v, want exit code %d, %q and %q", tt.name, got, tt.code, tt.out, tt.err)
		}
	}
	for _, queue := range []string{"default", "bulk"} {
		if n := pending(t, server, queue); n != 0 {
			t.Errorf("%d tasks in %s", n, queue)
		}
	}
}

func TestCancel_redisDown(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1/0")
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	if got := enqueue(t, "", "cancel", "X"); got.code != 69 {
		t.Errorf("%+v, want exit code 69", got)
	}
}

func TestOptions_key(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"empty", []string{"--idempotency-key", ""}, "idempotency_key: is empty"},
		{"control character", []string{"--idempotency-key", "a\nb"}, "idempotency_key"},
		{"both", []string{"--idempotency-key", "a", "--unique", "1h"}, "exclude each other"},
		{"no duration", []string{"--unique", "soon"}, "unique"},
	} {
		got := enqueue(t, "", append([]string{"send", "--to", "ann@example.com"}, tt.args...)...)
		if got.code != 64 || !strings.Contains(got.err, tt.want) {
			t.Errorf("%s: %+v, want exit code 64 and %q", tt.name, got, tt.want)
		}
	}
}

func TestHelp_cancel(t *testing.T) {
	got := enqueue(t, "", "cancel", "--help")
	if got.code != 0 || !strings.Contains(got.out, "Examples:") || !strings.Contains(got.out, "65 says") {
		t.Errorf("%+v", got)
	}
}

func TestReschedule(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	id := strings.TrimSpace(enqueue(t, "", "send", "--to", "ann@example.com", "--queue", "bulk", "--process-in", "1h").out)
	tests := []struct {
		name string
		args []string
		code int
		want string // of both outputs
	}{
		{"later", []string{id, "48h", "--queue", "bulk"}, 0, "rescheduled"},
		{"at a time", []string{id, "2099-12-24T18:00:00Z", "--queue", "bulk"}, 0, "rescheduled"},
		{"another queue", []string{id, "48h"}, 65, "--queue names that"},
		{"no time", []string{id, "tomorrow"}, 64, "neither a time"},
		{"before now", []string{id, "-1h"}, 64, ""},
		{"no ID", []string{"48h"}, 64, "accepts 2 arg"},
		{"no queue's name", []string{id, "48h", "--queue", "a b"}, 64, "cannot be the name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := enqueue(t, "", append([]string{"reschedule"}, tt.args...)...)
			if got.code != tt.code || !strings.Contains(got.out+got.err, tt.want) {
				t.Errorf("%+v, want %d and %q", got, tt.code, tt.want)
			}
		})
	}
	if got := enqueue(t, "", "status", id); !strings.Contains(got.out, "2099-12-24") {
		t.Errorf("%+v", got)
	}
}
