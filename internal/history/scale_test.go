package history_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/history"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// TestScale measures what a history of N messages takes in Redis, and how long it takes to find one: N=1000000 go test
// ./internal/history -run Scale -v. Without N it is a small one.
func TestScale(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("N"))
	if n == 0 {
		n = 5000
	}
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	keeper := history.NewKeeper(client, history.Config{For: 72 * time.Hour, Size: 1 << 32}, zerolog.Nop())
	keeper.Look(ctx)
	installed, err := history.ReadInstallation(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	used := func() int64 {
		for line := range strings.Lines(client.Info(ctx, "memory").Val()) {
			if text, ok := strings.CutPrefix(line, "used_memory:"); ok {
				v, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
				return v
			}
		}
		return 0
	}
	before := used()
	now := time.Now()
	write := func(from, to int) {
		var data []byte
		for i := from; i < to; i++ {
			r := history.Record{
				State: history.Sent, ID: rand.Text(), MessageID: "<" + rand.Text() + "@app.example.com>", Due: now, At: now, Tries: 1,
				Reply: fmt.Sprintf("250 2.0.0 Ok: queued as %X", 0x4f1b2c3d5e+i),
			}
			data = r.Append(data, []string{fmt.Sprintf("customer%d@example.com", i)}, installed.Secret)
		}
		if err := installed.Write(ctx, client, "default", data); err != nil {
			t.Fatal(err)
		}
	}
	for at := 0; at < n; at += 3 { // as many as a busy worker reports at once, about
		write(at, min(at+3, n))
	}
	took := used() - before
	counted, err := client.HGet(ctx, history.Key("default"), "bytes").Int64()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages take %d bytes, %.1f each; counted are %d", n, took, float64(took)/float64(n), counted)
	if each := took / int64(n); each > 250 || counted < took*8/10 || counted > took*12/10 {
		t.Errorf("a message takes %d bytes; counted are %d of %d", each, counted, took)
	}
	for name, q := range map[string]history.Query{
		"the oldest recipient": {To: "Customer0@example.com"}, "an ID that is not there": {ID: rand.Text()}, "a Message-ID that is not there": {MessageID: "<x@y>"},
	} {
		start := time.Now()
		found, _, err := history.Search(ctx, client, []string{"default"}, q)
		t.Logf("%s: %d found in %v", name, len(found), time.Since(start).Round(time.Millisecond))
		if want := 0; err != nil || q.To != "" && len(found) != want+1 || q.To == "" && len(found) != want {
			t.Errorf("%s: %d found, %v", name, len(found), err)
		}
	}
	var slowest int64
	for _, entry := range client.SlowLogGet(ctx, 100).Val() {
		if strings.HasPrefix(strings.ToLower(entry.Args[0]), "eval") {
			slowest = max(slowest, entry.Duration.Microseconds())
		}
	}
	t.Logf("the slowest script took %d us (those over 10 ms are in the slow log)", slowest)
}

// The history keeps within its size, of one queue and of all: the oldest goes first, and how far it reaches back is said.
func TestSize(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	ctx := t.Context()
	const size = 200_000
	cfg := history.Config{For: 72 * time.Hour, Size: size}
	keeper := history.NewKeeper(client, cfg, zerolog.Nop())
	keeper.Look(ctx)
	installed, err := history.ReadInstallation(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := client.HSet(ctx, "mailpouch:history", "since", begun.Unix()).Err(); err != nil { // the records are of a while ago
		t.Fatal(err)
	}
	const n = 4000
	queues := []string{"default", "bulk", "marketing.bulk"}
	for _, queue := range queues {
		if err := client.SAdd(ctx, "asynq:queues", queue).Err(); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			at := begun.Add(time.Duration(i) * 100 * time.Millisecond)
			r := history.Record{State: history.Sent, ID: fmt.Sprintf("%s-%d", queue, i), Due: at, At: at, Reply: "250 2.0.0 Ok: queued as 4F1B2C3D5E"}
			if err := installed.Write(ctx, client, queue, r.Append(nil, []string{"ann@example.com"}, installed.Secret)); err != nil {
				t.Fatal(err)
			}
		}
		if used := client.MemoryUsage(ctx, fmt.Sprintf("%s:%d", history.Key(queue), time.Now().Unix()/3600), 0).Val(); used > size*11/10 {
			t.Errorf("%s takes %d bytes, want %d", queue, used, size)
		}
		found, window, err := history.Search(ctx, client, []string{queue}, history.Query{})
		if err != nil || len(found) == 0 || len(found) == n || found[0].ID != fmt.Sprintf("%s-%d", queue, n-1) {
			t.Fatalf("%s has %d records, %v", queue, len(found), err)
		}
		if last := found[len(found)-1]; window.Since.After(last.At) || window.Since.Before(last.At.Add(-2*time.Second)) {
			t.Errorf("%s is known since %v, its oldest record is of %v", queue, window.Since, last.At)
		}
	}
	if err := client.HDel(ctx, "mailpouch:history", "claimed").Err(); err != nil { // as half a minute later
		t.Fatal(err)
	}
	keeper.Look(ctx)
	sum := 0
	for _, queue := range queues {
		bytes, _ := client.HGet(ctx, history.Key(queue), "bytes").Int()
		sum += bytes
	}
	if sum > size || sum < size/2 {
		t.Errorf("all take %d bytes, want %d", sum, size)
	}
}
