package tasks

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// abandonScript leaves waiting tasks as a worker does that dies with them in hand, and
// lets their leases run out.
const abandonScript = `
local ids = redis.call("LRANGE", KEYS[1], 0, -1)
for _, id in ipairs(ids) do
  redis.call("LPUSH", KEYS[2], id)
  redis.call("ZADD", KEYS[3], ARGV[1], id)
  redis.call("HSET", ARGV[2] .. id, "state", "active")
end
redis.call("DEL", KEYS[1])
return #ids`

func abandon(t *testing.T, client redis.UniversalClient) int {
	t.Helper()
	keys := []string{"asynq:{default}:pending", "asynq:{default}:active", "asynq:{default}:lease"}
	n, err := client.Eval(t.Context(), abandonScript, keys, time.Now().Add(-time.Minute).Unix(), "asynq:{default}:t:").Int()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Several workers start at the same time and find the tasks of one that has died. Each task
// is given to one of them.
func TestRecovery_byOne(t *testing.T) {
	t.Parallel()
	const n = 1000
	h := newHouse(t, redistest.Options{AppendOnly: redistest.Always})
	h.send(n, nil)
	if got := abandon(t, h.Client(t)); got != n {
		t.Fatalf("%d tasks abandoned, want %d", got, n)
	}
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		<-time.After(5 * time.Millisecond)
		return mailer.Result{}
	}
	for range 3 {
		h.start(h.config())
	}
	h.wait(n)
	h.empty()
	h.once(n)
}

// A lease that is over is taken over once, and one that is not is left alone. Who has a task
// in hand gives it back without that.
func TestRecovery_lease(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	e := newBroker(client, newEndings(client), nil, newIsolation(client, zerolog.Nop()))
	script := redis.NewScript(`return redis.call("HINCRBY", KEYS[1], "runs", 1)`)
	tests := []struct {
		name  string
		lease time.Duration // from now
		limit bool          // the caller has the task
		list  string
		runs  int
	}{
		{"over", -time.Minute, false, "retry", 1},
		{"over, tries used up", -time.Minute, false, "archived", 1},
		{"just over", -10 * time.Second, false, "retry", 0},
		{"given out again", 30 * time.Second, false, "retry", 0},
		{"in hand", 30 * time.Second, true, "retry", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			queue := "asynq:{" + tt.name + "}:"
			keys := []string{queue + "t:X", queue + "active", queue + "lease", queue + tt.list}
			client.ZAdd(t.Context(), keys[2], redis.Z{Score: float64(time.Now().Add(tt.lease).Unix()), Member: "X"})
			ctx := context.Background() //nolint:usetesting // as asynq has it: without a deadline
			if tt.limit {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Minute)
				defer cancel()
			}
			for range 2 {
				if err := script.Run(ctx, e, keys, "X").Err(); err != nil {
					t.Fatal(err)
				}
			}
			if got, _ := client.HGet(t.Context(), keys[0], "runs").Int(); got != tt.runs {
				t.Errorf("the task was given back %d times, want %d", got, tt.runs)
			}
		})
	}
}
