package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// An attachment that is stored beside the queue is in all that dead prints, and where it
// is lost dead says so.
func TestDead_bigAttachment(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_ATTACHMENT_THRESHOLD", "10kB")
	content := strings.Repeat("\x00\x9f\xfe\xff", 5000)
	path := file(t, "data.bin", content)
	id := strings.TrimSpace(enqueue(t, "", "send", "--to", "ann@example.com", "--attach", path).out)
	bury(t, server, "default")

	client := server.Client(t)
	blobs := client.Keys(t.Context(), "mailpouch:*:blob").Val()
	if len(blobs) != 1 {
		t.Fatalf("blobs %v, want one", blobs)
	}
	want := base64.StdEncoding.EncodeToString([]byte(content))
	if got := enqueue(t, "", "dead", "show", id); !strings.Contains(strings.ReplaceAll(got.out, "\r\n", ""), want) {
		t.Errorf("show has no attachment: %s", got.err)
	}
	got := enqueue(t, "", "dead", "export", id)
	var line exported
	if err := json.Unmarshal([]byte(got.out), &line); err != nil || string(line.Message.Attachments[0].Content) != content {
		t.Errorf("export has no attachment (%v): %s", err, got.err)
	}
	dir := t.TempDir()
	enqueue(t, "", "dead", "export", "--eml", dir)
	if eml, _ := os.ReadFile(filepath.Join(dir, id+".eml")); !strings.Contains(strings.ReplaceAll(string(eml), "\r\n", ""), want) {
		t.Error("the .eml has no attachment")
	}

	if err := client.Del(t.Context(), blobs[0]).Err(); err != nil {
		t.Fatal(err)
	}
	const missing = `attachment "data.bin": its content`
	if got := enqueue(t, "", "dead", "show", id); got.code != 0 || !strings.Contains(got.out, "missing: "+missing) {
		t.Errorf("show without the content: %+v", got)
	}
	if got := enqueue(t, "", "dead", "export", id); got.code != 0 || !strings.Contains(got.out, `"missing":["attachment`) {
		t.Errorf("export without the content: %+v", got)
	}
	if got := enqueue(t, "", "dead", "export", "--eml", t.TempDir()); got.code != 0 || !strings.Contains(got.err, missing) {
		t.Errorf("export --eml without the content: %+v", got)
	}
	if got := enqueue(t, "", "dead", "replay", id); got.code != 65 || !strings.Contains(got.err, missing) {
		t.Errorf("replay without the content: %+v", got)
	}
	if got := enqueue(t, "", "dead", "list"); !strings.Contains(got.out, id) {
		t.Errorf("the letter is gone: %+v", got)
	}
}

// A message over EMAIL_MAX_MESSAGE_SIZE is refused by send, and by its line by bulk.
func TestMaxMessageSize(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_MAX_MESSAGE_SIZE", "100kB")
	small, big := strings.Repeat("x\n", 1000), strings.Repeat("x\n", 60_000)
	line := func(body string) string {
		data, err := json.Marshal(map[string]any{"to": []string{"ann@example.com"}, "body": body})
		if err != nil {
			t.Fatal(err)
		}
		return string(data) + "\n"
	}
	const reason = "body: the whole message has 180."

	got := enqueue(t, big, "send", "--to", "ann@example.com", "--body-file", "-")
	if got.code != 65 || !strings.Contains(got.err, reason) || !strings.Contains(got.err, "100.0 kB of EMAIL_MAX_MESSAGE_SIZE") {
		t.Errorf("send: %+v", got)
	}
	got = enqueue(t, "", "bulk", file(t, "lines", line(small)+line(big)))
	if got.code != 65 || !strings.Contains(got.err, "line 2: invalid message: "+reason) || pending(t, server, "default") != 0 {
		t.Errorf("bulk of a file: %+v", got)
	}
	got = enqueue(t, line(big)+line(small), "bulk", "-")
	if got.code != 65 || !strings.Contains(got.err, "line 1: invalid message: "+reason) || pending(t, server, "default") != 1 {
		t.Errorf("bulk of a pipe: %+v", got)
	}
	got = enqueue(t, small, "send", "--to", "ann@example.com", "--subject", strings.Repeat("s", 110_000), "--body-file", "-")
	if got.code != 65 || !strings.Contains(got.err, "subject: the whole message has 112.") {
		t.Errorf("send with a long subject: %+v", got)
	}
	answers, err := json.Marshal(map[string]any{"to": []string{"ann@example.com"}, "reply_to": slices.Repeat([]string{"bob@example.com"}, 10_000)})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"bulk", "-"}, {"bulk", file(t, "answers", string(answers)+"\n")}} {
		if got := enqueue(t, string(answers)+"\n", args...); got.code != 65 || !strings.Contains(got.err, "line 1: invalid message: reply_to: the whole message has 190.") {
			t.Errorf("%v with many addresses for answers: %+v", args, got)
		}
	}
	if got := enqueue(t, small, "send", "--to", "ann@example.com", "--body-file", "-"); got.code != 0 {
		t.Errorf("send of a small one: %+v", got)
	}
}
