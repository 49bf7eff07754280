package harness

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	cause := errors.New("cause")
	tests := []struct {
		name    string
		measure func(b *Bench, done *[]string)
		done    []string
		err     string
	}{
		{"well", func(*Bench, *[]string) {}, []string{"second", "first"}, ""},
		{"fatal", func(b *Bench, done *[]string) { b.Fatal("no", "Redis"); *done = append(*done, "went on") }, []string{"second", "first"}, "case: no Redis"},
		{"fatalf", func(b *Bench, _ *[]string) { b.Fatalf("step: %w", cause) }, []string{"second", "first"}, "case: step: cause"},
		{"check", func(b *Bench, _ *[]string) { b.Check(nil); b.Check(cause) }, []string{"second", "first"}, "case: cause"},
		{"error goes on", func(b *Bench, done *[]string) { b.Errorf("%d missing", 2); *done = append(*done, "went on") }, []string{"went on", "second", "first"}, "case: 2 missing"},
		{"skip", func(b *Bench, _ *[]string) { b.Skipf("install %s", "it") }, []string{"second", "first"}, "skipped: install it"},
		{"log of a failure", func(b *Bench, _ *[]string) { b.Error("first"); b.Error("second"); b.Logf("log: %s", "why") }, []string{"second", "first"}, "case: first\nlog: why"},
		{"log of a success", func(b *Bench, _ *[]string) { b.Logf("log: %s", "why") }, []string{"second", "first"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var done []string
			err := Run(t.Context(), "case", Programs{}, func(b *Bench) {
				b.Cleanup(func() { done = append(done, "first") })
				b.Cleanup(func() { done = append(done, "second") })
				tt.measure(b, &done)
			})
			if !slices.Equal(done, tt.done) {
				t.Errorf("done: %v, want %v", done, tt.done)
			}
			if got := fmt.Sprint(err); err != nil && got != tt.err || err == nil && tt.err != "" {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestBench_TempDir(t *testing.T) {
	var dir string
	err := Run(t.Context(), "case", Programs{}, func(b *Bench) {
		dir = b.TempDir()
		b.Check(os.WriteFile(dir+"/file", nil, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}
