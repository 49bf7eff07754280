package presence_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/internal/presence"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Two workers of the same host name and process number, as containers have them, are two; one that says no more
// that it lives is none.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	if workers, err := presence.Read(ctx, client); err != nil || len(workers) != 0 {
		t.Fatal(workers, err)
	}
	one, two, three := presence.New(), presence.New(), presence.New()
	one.Queues, one.Mailers, one.Shards = []string{"default", "bulk"}, []string{"marketing"}, 2
	for _, w := range []presence.Worker{one, two, three} {
		if err := presence.Announce(ctx, client, w, []string{"default", "bulk"}, presence.Counts{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := client.SCard(ctx, wire.QueuesKey).Val(); n != 2 {
		t.Errorf("asynq's set has %d queues", n)
	}
	client.Del(ctx, wire.WorkerKey(two.ID)) // as when its time is over
	workers, err := presence.Read(ctx, client)
	if err != nil || len(workers) != 2 || workers[0].Host != workers[1].Host || workers[0].PID != workers[1].PID {
		t.Fatalf("%+v, %v", workers, err)
	}
	if ttl := client.TTL(ctx, wire.WorkerKey(one.ID)).Val(); ttl <= 0 || ttl > 4*presence.Every {
		t.Errorf("a worker that dies is believed for %v", ttl)
	}
	if err := presence.Sweep(ctx, client); err != nil || client.SCard(ctx, wire.WorkersKey).Val() != 2 {
		t.Errorf("%d IDs are left (%v)", client.SCard(ctx, wire.WorkersKey).Val(), err)
	}
	if err := presence.Leave(ctx, client, three, presence.Counts{}); err != nil {
		t.Fatal(err)
	}
	workers, err = presence.Read(ctx, client)
	if err != nil || len(workers) != 1 || workers[0].ID != one.ID || !workers[0].Started.Equal(one.Started) {
		t.Fatalf("%+v, %v", workers, err)
	}
	for name, want := range map[string]bool{
		"default": true, "bulk:mass~2": true, "marketing.bulk~1": true,
		"default~3": false, "other": false, "alerts.default": false,
	} {
		if got := workers[0].Serves(wire.ParseQueueName(name)); got != want {
			t.Errorf("serves %s: %v", name, got)
		}
	}
}

// What workers did is added up by day, and is there when they are gone.
func TestDays(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	one, two := presence.New(), presence.New()
	one.Version, one.Rate, one.Sent, one.Held = "v1", 12.5, 70, []string{"default"}
	for _, err := range []error{
		presence.Announce(t.Context(), client, one, nil, presence.Counts{Sent: 60, Retried: 2}),
		presence.Announce(t.Context(), client, one, nil, presence.Counts{Sent: 10}),
		presence.Announce(t.Context(), client, two, nil, presence.Counts{Sent: 5, Dead: 1}),
		presence.Leave(t.Context(), client, two, presence.Counts{Refused: 3, Sent: 1}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	days, err := presence.Days(t.Context(), client, 7, time.Now())
	today := presence.Counts{Sent: 76, Retried: 2, Dead: 1, Refused: 3}
	if err != nil || len(days) != 7 || days[6].Counts != today && days[5].Add(days[6].Counts) != today || days[0].Counts != (presence.Counts{}) {
		t.Errorf("%+v, %v", days, err)
	}
	workers, err := presence.Read(t.Context(), client)
	if err != nil || len(workers) != 1 || workers[0].Version != "v1" || workers[0].Rate != 12.5 || workers[0].Sent != 70 || workers[0].Held[0] != "default" {
		t.Errorf("%+v, %v", workers, err)
	}
}
