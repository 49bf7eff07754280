package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/cli"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// What was kept while a file was checked is not read again.
func TestSpool(t *testing.T) {
	t.Parallel()
	s := spool{most: maxSpooled}
	for n := range 3 {
		s.add(chunk{lines: []numbered{{n: 2*n + 1}, {n: 2*n + 2}}, prepared: []prepared{}})
	}
	next := s.before(newChunker(brokenReader{t}, 2, nil))
	for n := range 3 {
		if c, err := next(); err != nil || c.index != n || c.lines[1].n != 2*n+2 {
			t.Errorf("chunk %d: %+v, %v", n, c, err)
		}
	}
	if _, err := next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

type brokenReader struct{ t *testing.T }

func (b brokenReader) Read([]byte) (int, error) {
	b.t.Error("the file is read again")
	return 0, io.EOF
}

// However much of a file is kept while it is checked, each of its lines is queued once, and their IDs come in its order.
func TestBulk_spooled(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	const n = 5000
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "{\"subject\": \"%d\", \"to\": [\"ann@example.com\"]}\n", i)
		if i%500 == 0 {
			in.WriteString("\n")
		}
	}
	path := file(t, "lines", in.String())
	for _, resume := range []string{"", "july"} {
		for _, spooled := range []int{1, 500_000, maxSpooled} {
			t.Run(fmt.Sprintf("resume %q, %d bytes", resume, spooled), func(t *testing.T) {
				client := server.Client(t)
				client.FlushAll(t.Context())
				var out, errs bytes.Buffer
				ids := filepath.Join(t.TempDir(), "ids")
				b := bulk{app: &app{std: cli.Streams{Out: &out, Err: &errs}}, concurrency: 8, spooled: spooled, ids: ids, resume: resume}
				if err := b.run(t.Context(), path); err != nil {
					t.Fatal(err, errs.String())
				}
				data, err := os.ReadFile(ids)
				if err != nil {
					t.Fatal(err)
				}
				lines := strings.Fields(string(data))
				slices.Sort(lines)
				if got := len(slices.Compact(lines)); got != n || pending(t, server, "default") != n || !strings.HasPrefix(out.String(), "5000 queued\n") {
					t.Errorf("%d IDs, %d messages, %s", got, pending(t, server, "default"), out.String())
				}
				if b.resume == "" {
					return
				}
				b = bulk{app: &app{std: cli.Streams{Out: &out, Err: &errs}}, concurrency: 8, spooled: spooled, resume: resume}
				if err := b.run(t.Context(), path); err != nil || pending(t, server, "default") != n {
					t.Errorf("again: %v, %d messages", err, pending(t, server, "default"))
				}
			})
		}
	}
}

// BenchmarkBulk queues a file of mails of 2 kB, many to a task and one.
func BenchmarkBulk(b *testing.B) {
	const n = 40_000
	server := redistest.Start(b, redistest.Options{})
	b.Setenv("REDIS_URL", server.URL())
	b.Setenv("EMAIL_HOSTNAME", "app.example.com")
	var in strings.Builder
	body := strings.Repeat("Your order has left us, and will be with you within three days.\\n", 30)
	for i := range n {
		fmt.Fprintf(&in, `{"subject": "Your order", "body": "Dear customer %d,\n\n%s", "from_email": "shop@example.com", "to": ["c%d@example.com"]}`+"\n", i, body, i)
	}
	path := filepath.Join(b.TempDir(), "mails.jsonl")
	if err := os.WriteFile(path, []byte(in.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, size := range []string{"100", "1"} {
		b.Run(size+" to a task", func(b *testing.B) {
			b.Setenv("EMAIL_MASS_SIZE", size)
			client := server.Client(b)
			for b.Loop() {
				command := bulk{app: &app{std: cli.Streams{Out: io.Discard, Err: os.Stderr}}, concurrency: 32}
				if err := command.run(b.Context(), path); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				client.FlushAll(b.Context())
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "mails/s")
		})
	}
}
