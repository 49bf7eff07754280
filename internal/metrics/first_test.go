package metrics

import (
	"regexp"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/catcher"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks"
)

// The number of dead letters of each queue that is served is there before anything is in it: an alert sees the first.
func TestDeadLetters_first(t *testing.T) {
	redis := redistest.Start(t, redistest.Options{})
	server, err := catcher.Start(catcher.Config{Decide: (&moody{tried: map[string]bool{}}).decide})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	w := newWorld(t, redis, server.Addr())
	want := map[string]float64{} // a worker says that it lives before it has named its queues
	for _, queue := range []string{"default", "bulk", "default:mass", "bulk:mass", "marketing.default", "marketing.bulk:mass"} {
		want[`mailpouch_dead_letters{queue="`+queue+`"}`] = 0
	}
	_, got := w.until(t, want)
	for series := range want {
		if n, ok := got[series]; !ok || n != 0 {
			t.Errorf("%s: %v (there: %v), want 0 before the first", series, n, ok)
		}
	}
	if _, ok := got[`asynq_queue_size{queue="bulk"}`]; ok {
		t.Error("a queue in which nothing ever was has a size")
	}
	w.send(t, tasks.Options{Queue: "bulk"}, "no@example.com")
	w.wait(t, 1, 1)
	const first = `mailpouch_dead_letters{queue="bulk"}`
	if _, got = w.until(t, map[string]float64{first: 1}); got[first] != 1 {
		t.Errorf("%v dead letters, want 1", got[first])
	}
}

// A queue of any name may be made by a program: those that no worker serves are bounded, and hide none that is served.
func TestQueues_bound(t *testing.T) {
	redis := redistest.Start(t, redistest.Options{})
	server, err := catcher.Start(catcher.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	w := newWorld(t, redis, server.Addr())
	w.until(t, map[string]float64{`mailpouch_dead_letters{queue="marketing.default"}`: 0})
	client, pipe := redis.Client(t), redis.Client(t).Pipeline()
	for i := range 3 * maxQueues {
		name := wire.QueueName{Queue: "aaa", Shard: i + 1}.String()
		pipe.SAdd(t.Context(), wire.QueuesKey, name)
		if i%2 == 0 {
			pipe.Set(t.Context(), "asynq:{"+name+"}:processed", 1, 0)
		}
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := client.SCard(t.Context(), wire.QueuesKey).Val(); n < 3*maxQueues {
		t.Fatalf("%d queues", n)
	}
	_, got := scrape(t, w.metrics)
	others := 0
	for series := range got {
		if strings.HasPrefix(series, `mailpouch_dead_letters{queue="aaa~`) {
			others++
		}
	}
	if _, ok := got[`mailpouch_dead_letters{queue="marketing.default"}`]; !ok || others != maxQueues {
		t.Errorf("%d queues that nobody serves, want %d; those that are served are there: %v", others, maxQueues, ok)
	}
}

// What an alert and an autoscaler take for bulk mail is what the names of queues say.
func TestAlerts_queueNames(t *testing.T) {
	for _, tt := range []struct {
		file, expression string
		matches          func(wire.QueueName) bool
	}{
		{"alerts.yml", `mailpouch_queue_oldest_seconds\{queue!~"([^"]+)"`, func(n wire.QueueName) bool { return n.Bulk || n.Queue == "bulk" }},
		{"../deploy/kubernetes/hpa/adapter.yaml", `queue!~"([^"]+)"`, func(n wire.QueueName) bool { return n.Bulk }},
		{"../deploy/kubernetes/hpa/adapter.yaml", `queue=~"([^"]+)"`, func(n wire.QueueName) bool { return n.Bulk }},
	} {
		m := regexp.MustCompile(tt.expression).FindStringSubmatch(document(t, tt.file))
		if m == nil {
			t.Fatalf("%s has no %s", tt.file, tt.expression)
		}
		whole := regexp.MustCompile(`^(?:` + m[1] + `)$`) // as Prometheus takes it
		for _, mailer := range []string{"", "marketing", "bulk", "a-b_c"} {
			for _, queue := range []string{"default", "bulk", "bulk2", "notbulk"} {
				for _, shard := range []int{0, 1, 2, 12, 64} {
					for _, bulk := range []bool{false, true} {
						n := wire.QueueName{Mailer: mailer, Queue: queue, Shard: shard, Bulk: bulk}
						if got, want := whole.MatchString(n.String()), tt.matches(n); got != want {
							t.Errorf("%s: %s matches %s: %v, want %v", tt.file, m[1], n, got, want)
						}
					}
				}
			}
		}
	}
}
