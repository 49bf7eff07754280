package tasks

import (
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/history"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// BenchmarkRecord is what the record of a message that was sent costs a worker.
func BenchmarkRecord(b *testing.B) {
	keeper := history.NewKeeper(redistest.Start(b, redistest.Options{}).Client(b), History{}.config(), zerolog.Nop())
	keeper.Look(b.Context())
	r := recorder{keeper: keeper}
	d := &delivery{message: mails(1)[0].WithDefaults(mailer.Defaults{Hostname: "app.example.com"}), noted: noted{id: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}}
	d.attempt.Now = time.Now()
	d.outcome.result.Reply = "250 2.0.0 Ok: queued as 4F1B2C3D5E"
	size := 0
	for b.Loop() {
		size = len(r.accepted(d).Record)
	}
	b.ReportAllocs()
	b.ReportMetric(float64(size), "bytes")
}
