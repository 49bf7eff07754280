package sweep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/internal/sweep"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const maxAge = 120 * time.Hour

// house is a Redis with a sweeper.
type house struct {
	t       *testing.T
	redis   *redis.Client
	client  *asynq.Client
	sweeper *sweep.Sweeper
	letters *tasks.DeadLetters

	mu    sync.Mutex
	swept map[sweep.Why]int
}

func newHouse(t *testing.T) *house {
	t.Helper()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	h := &house{t: t, redis: client, client: asynq.NewClientFromRedisClient(client), letters: tasks.NewDeadLetters(client), swept: map[sweep.Why]int{}}
	h.sweeper = sweep.New(client, h.config().Quick())
	return h
}

func (h *house) config() sweep.Config {
	return sweep.Config{
		Serves: func(queue string) bool { return queue != "theirs" },
		Expired: func(_ string, m wire.Meta, now time.Time) error {
			switch {
			case m.Deadline != nil && !now.Before(*m.Deadline):
				return errors.New("not sent before its deadline")
			case now.Sub(m.DueAt) >= maxAge:
				return errors.New("too old, said <ann@example.com>")
			}
			return nil
		},
		Horizon: time.Hour,
		Swept: func(_ string, why sweep.Why, n int) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.swept[why] += n
		},
	}
}

// payload is that of a message which is due at a time.
func (h *house) payload(due time.Time, change ...func(*wire.Payload)) []byte {
	h.t.Helper()
	m := (&mailer.EmailMessage{
		Subject: `{"version":1,"message":`, Body: strings.Repeat("text\n", 100), FromEmail: "shop@example.com", To: []string{"ann@example.com"},
		Headers: map[string]string{"version": "7", "message": "x"},
	}).WithDefaults(mailer.Defaults{Hostname: "app.example.com"})
	p := &wire.Payload{Meta: wire.Meta{DueAt: due.UTC().Truncate(time.Second)}, Message: m}
	for _, c := range change {
		c(p)
	}
	data, err := p.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

func (h *house) put(id, kind string, payload []byte, opts ...asynq.Option) {
	h.t.Helper()
	if _, err := h.client.EnqueueContext(h.t.Context(), asynq.NewTask(kind, payload), append(opts, asynq.TaskID(id))...); err != nil {
		h.t.Fatal(err)
	}
}

// wantDead wants just these dead letters of a queue.
func (h *house) wantDead(queue string, ids ...string) {
	h.t.Helper()
	got, err := h.letters.IDs(h.t.Context(), queue)
	if err != nil {
		h.t.Fatal(err)
	}
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(ids))) {
		h.t.Errorf("dead letters of %s: %.500q, want %.500q", queue, got, ids)
	}
}

// wantReason wants a dead letter with this in its reason, for us and for asynq.
func (h *house) wantReason(queue, id, reason string) {
	h.t.Helper()
	l, err := h.letters.Summary(queue, id)
	if err != nil || !strings.Contains(l.Reason, reason) || time.Since(l.At) > time.Minute {
		h.t.Errorf("%s: %+v, %v, want the reason %q", id, l, err, reason)
	}
	info, err := asynq.NewInspectorFromRedisClient(h.redis).GetTaskInfo(queue, id)
	if masked := strings.ReplaceAll(reason, "ann@", "a***@"); err != nil || !strings.Contains(info.LastErr, masked) || info.State != asynq.TaskStateArchived {
		h.t.Errorf("%s: asynq has %q, %v, %v", id, info.LastErr, info.State, err)
	}
}

func (h *house) sweep(which func(context.Context) error) {
	h.t.Helper()
	if err := which(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// What has waited until its time was up becomes a dead letter, wherever it waits; nothing else does.
func TestExpired(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now()
	old, young := h.payload(now.Add(-maxAge-time.Hour)), h.payload(now)
	late := h.payload(now, func(p *wire.Payload) { p.Deadline = new(now.Add(-time.Second).UTC()) })
	inTime := h.payload(now, func(p *wire.Payload) { p.Deadline = new(now.Add(time.Hour).UTC()) })
	h.put("old", wire.TaskType, old)
	h.put("young", wire.TaskType, young)
	h.put("late", wire.TaskType, late)
	h.put("in time", wire.TaskType, inTime)
	h.put("foreign", "their:type", old)
	h.put("newer", wire.TaskType, bytes.Replace(old, []byte(`"version":1`), []byte(`"version":4`), 1))
	h.put("broken", wire.TaskType, []byte(`{"version":1`))
	h.put("sent", wire.TaskType, old)
	h.put("cancelled", wire.TaskType, old)
	h.redis.HSet(t.Context(), "asynq:{default}:t:sent", wire.FieldSent, "{}")
	h.redis.HSet(t.Context(), "asynq:{default}:t:cancelled", wire.FieldCancelled, "1")
	h.put("for today", wire.TaskType, late, asynq.ProcessIn(time.Minute), asynq.Queue("eu.bulk"))
	h.put("for tomorrow", wire.TaskType, late, asynq.ProcessIn(24*time.Hour), asynq.Queue("eu.bulk"))
	h.put("of theirs", wire.TaskType, old, asynq.Queue("theirs"))
	h.put("again", wire.TaskType, old, asynq.Queue("retries"))
	h.put("soon again", wire.TaskType, young, asynq.Queue("retries"))
	for _, id := range []string{"again", "soon again"} {
		h.redis.LRem(t.Context(), "asynq:{retries}:pending", 1, id)
		h.redis.ZAdd(t.Context(), "asynq:{retries}:retry", redis.Z{Score: float64(now.Unix()), Member: id})
		h.redis.HSet(t.Context(), "asynq:{retries}:t:"+id, "state", "retry")
	}
	lines := func(payloads ...[]byte) []byte { return append(bytes.Join(payloads, []byte("\n")), '\n') }
	h.put("many", wire.TaskTypeBulk, lines(late, late, old), asynq.Queue("default:mass"))
	packed := func(due ...time.Time) []byte {
		var list []*wire.Payload
		for _, at := range due {
			p, err := wire.Decode(h.payload(at), nil)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, p)
		}
		data, err := new(wire.Codec).EncodeMany(list, wire.Newest)
		if err != nil || wire.Size(data) == len(data) {
			t.Fatal("not compressed", err)
		}
		return data
	}
	h.put("packed", wire.TaskTypeBulk, packed(now.Add(-maxAge-2*time.Hour), now.Add(-maxAge-time.Hour)), asynq.Queue("default:mass"))
	h.put("packed, and one is left", wire.TaskTypeBulk, packed(now.Add(-maxAge-time.Hour), now, now.Add(-maxAge-time.Hour)), asynq.Queue("default:mass"))
	h.put("one is left", wire.TaskTypeBulk, lines(late, young, old), asynq.Queue("default:mass"))

	h.sweep(h.sweeper.SweepExpired)
	h.wantDead("default", "old", "late")
	h.wantReason("default", "old", "too old, said <ann@example.com>")
	h.wantReason("default", "late", "before its deadline")
	h.wantDead("eu.bulk", "for today")
	h.wantDead("retries", "again")
	h.wantDead("default:mass", "many", "packed")
	h.wantDead("theirs")
	left := h.redis.LRange(t.Context(), "asynq:{default}:pending", 0, -1).Val()
	if want := strings.Fields("cancelled sent broken newer foreign in_time young"); strings.ReplaceAll(strings.Join(left, ","), " ", "_") != strings.Join(want, ",") {
		t.Errorf("waiting: %q, want %q", left, want)
	}
	if h.swept[sweep.Expired] != 6 {
		t.Errorf("%v were reported, want 6", h.swept)
	}
}

// A long list keeps its order, and one that lasts is read to its end.
func TestExpired_long(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const n = 3000
	old, young := h.payload(time.Now().Add(-maxAge)), h.payload(time.Now())
	var dead, left []string
	for i := range n {
		id := fmt.Sprintf("%04d", i)
		if i%7 == 3 || i > n-20 || i < 5 {
			dead = append(dead, id)
			h.put(id, wire.TaskType, old)
			continue
		}
		left = append(left, id)
		h.put(id, wire.TaskType, young)
	}
	h.sweep(h.sweeper.SweepExpired)
	h.wantDead("default", dead...)
	got := h.redis.LRange(t.Context(), "asynq:{default}:pending", 0, -1).Val()
	if slices.Reverse(got); !slices.Equal(got, left) {
		t.Errorf("%d are waiting, want %d, in their order", len(got), len(left))
	}
}

// A queue that moves is not read, and of several workers one looks at it.
func TestExpired_cost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.sweeper = sweep.New(h.redis, h.config()) // as in life
	for i := range 200 {
		h.put(fmt.Sprint(i), wire.TaskType, h.payload(time.Now()), asynq.Queue(fmt.Sprint("q", i%3)))
	}
	before := h.scripts()
	h.sweep(h.sweeper.SweepExpired)
	if n := h.scripts() - before; n > 3+1+2 { // two twice, since Redis does not know them yet
		t.Errorf("%d scripts for 3 queues that move", n)
	}
	for range 3 {
		h.sweeper = sweep.New(h.redis, h.config())
		claimed, err := h.sweeper.Claim(t.Context(), time.Minute, "q0", "q1", "q2", "q3")
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range claimed {
			h.swept[sweep.Why(q)]++
		}
	}
	if len(h.swept) != 1 || h.swept["q3"] != 1 {
		t.Errorf("claimed %v, want q3, which was not looked at yet, once", h.swept)
	}
}

// scripts is how many scripts Redis has run.
func (h *house) scripts() (n int) {
	h.t.Helper()
	for line := range strings.Lines(h.redis.Info(h.t.Context(), "commandstats").Val()) {
		var calls int
		for _, command := range []string{"eval", "evalsha"} {
			if _, err := fmt.Sscanf(line, "cmdstat_"+command+":calls=%d,", &calls); err == nil {
				n += calls
			}
		}
	}
	return n
}
