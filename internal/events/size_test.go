package events

import (
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestSize measures what events of messages take in Redis: N=1000000 go test ./internal/events -run Size -v. Without N there are few. What is
// counted is what they take.
func TestSize(t *testing.T) {
	t.Parallel()
	n, _ := strconv.Atoi(os.Getenv("N"))
	if n == 0 {
		n = 6000
	}
	d := newDesk(t)
	used := func() int64 {
		for line := range strings.Lines(d.redis.Info(t.Context(), "memory").Val()) {
			if text, ok := strings.CutPrefix(line, "used_memory:"); ok {
				v, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
				return v
			}
		}
		return 0
	}
	for _, together := range []int{1, 3, 100} { // as a worker that is not busy writes them, as one that is, and as bulk mail is queued
		queue := fmt.Sprint("q", together)
		before := used()
		pipe := d.redis.Pipeline()
		for at := 0; at < n; at += together {
			var data []byte
			for i := at; i < at+together; i++ {
				m := Message{ID: rand.Text(), MessageID: "<" + rand.Text() + "@app.example.com>", Due: time.Now(), Tries: 1}
				data = Append(data, Sent, m, fmt.Sprintf("250 2.0.0 Ok: queued as %X", 0x4f1b2c3d5e+i), fmt.Sprintf("customer%d@example.com", i))
			}
			addScript.Eval(t.Context(), pipe, []string{Key(queue)}, data, plenty)
			if pipe.Len() == 200 || at+together >= n {
				if _, err := pipe.Exec(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		took := used() - before
		counted, err := d.redis.HGet(t.Context(), stateKey(queue), fieldBytes).Int64()
		if err != nil && err != redis.Nil { //nolint:errorlint // it is that
			t.Fatal(err)
		}
		t.Logf("%d events, %d together, take %d bytes, %.1f each; counted are %d", n, together, took, float64(took)/float64(n), counted)
		if each := took / int64(n); each > 250 || counted < took*7/10 || counted > took*13/10 {
			t.Errorf("%d together: an event takes %d bytes; counted are %d of %d", together, each, counted, took)
		}
	}
}
