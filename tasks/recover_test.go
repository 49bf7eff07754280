package tasks

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

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
