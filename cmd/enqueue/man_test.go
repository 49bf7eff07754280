package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/cli/manpage/manpagetest"
)

func TestManPages(t *testing.T) { manpagetest.Check(t, newCommand(cli.Streams{})) }

func TestMan(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	dir := filepath.Join(t.TempDir(), "man")
	got := enqueue(t, "", "man", dir)
	page, err := os.ReadFile(filepath.Join(dir, "enqueue-raw.1"))
	if got.code != 0 || !strings.HasSuffix(got.out, " pages written\n") || err != nil || !strings.Contains(string(page), `"1970-01-02"`) {
		t.Errorf("%+v, %v\n%.200s", got, err, page)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "today")
	if got := enqueue(t, "", "man", dir); got.code != 64 || !strings.Contains(got.err, "SOURCE_DATE_EPOCH") {
		t.Errorf("%+v", got)
	}
}

// Completion offers what can be used: mailers and queues by name, files only where they are read.
func TestCompletion(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1/0") // it needs none
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_QUEUES", "urgent:2,slow:1")
	t.Setenv("EMAIL_MAILERS", "marketing,alerts")
	t.Setenv("EMAIL_MARKETING_HOST", "localhost")
	t.Setenv("EMAIL_ALERTS_HOST", "localhost")
	const files, noFiles = ":0\n", ":4\n"
	tests := []struct {
		name, args, want string
	}{
		{"queues", "send --queue ", "slow\nurgent\n" + noFiles},
		{"mailers", "bulk --using ", "alerts\ndefault\nmarketing\n" + noFiles},
		{"a beginning", "test --queue u", "urgent\n" + noFiles},
		{"queue of dead", "dead list --queue ", "slow\nurgent\n" + noFiles},
		{"a time", "send --process-at ", noFiles},
		{"file of bulk", "bulk ", files},
		{"file to attach", "send --attach ", files},
		{"no second file of bulk", "bulk a.jsonl ", noFiles},
		{"no file of send", "send ", noFiles},
		{"no file of dead", "dead show ", noFiles},
		{"directory", "dead export --eml ", ":16\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := enqueue(t, "", append([]string{"__complete"}, strings.Split(tt.args, " ")...)...)
			if got.code != 0 || got.out != tt.want {
				t.Errorf("%+v, want %q", got, tt.want)
			}
		})
	}
	t.Setenv("EMAIL_QUEUES", "nonsense:x")
	if got := enqueue(t, "", "__complete", "send", "--queue", ""); got.code != 0 || got.out != noFiles {
		t.Errorf("with a setting that is wrong: %+v", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := enqueue(t, "", "completion", shell); got.code != 0 || !strings.Contains(got.out, "enqueue") {
			t.Errorf("%s: %+v", shell, got)
		}
	}
}
