package webhook

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

// BenchmarkDispatcher posts events that wait in a real Redis to a server on this machine, which takes each of them after so long.
func BenchmarkDispatcher(b *testing.B) {
	for _, bb := range []struct {
		name        string
		takes       time.Duration
		concurrency int
	}{{"at once", 0, 16}, {"20ms", 20 * time.Millisecond, 16}, {"20ms, 64 at once", 20 * time.Millisecond, 64}} {
		b.Run(bb.name, func(b *testing.B) {
			server := redistest.Start(b, redistest.Options{})
			s := newStream(b, server.Client(b))
			var got atomic.Int64
			rec := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				time.Sleep(bb.takes)
				got.Add(1)
			}))
			defer rec.Close()
			one := to(b, rec.URL)
			cfg := Config{Targets: []target.Target{one}, Redis: s.client, Concurrency: bb.concurrency}
			first := start(b, cfg)
			s.begun(one)
			first.stop()
			for i := 0; i < b.N; i += 4 {
				s.add("default", i, min(i+4, b.N))
			}
			b.ResetTimer()
			d := start(b, cfg)
			await(b, "all events", func() bool { return got.Load() >= int64(b.N) })
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			d.stop()
		})
	}
}
