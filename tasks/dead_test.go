package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/letters"
)

// deadHouse has n dead letters, <0@t> to <n-1@t>.
func deadHouse(t *testing.T, n int) (*house, *DeadLetters) {
	t.Helper()
	h := newHouse(t, redistest.Options{})
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: sendError(mailer.Permanent, 554, "no spam here")}
	}
	h.send(n, nil)
	d := NewDeadLetters(h.Client(t))
	stop := h.start(h.config())
	h.eventually("all dead", func() bool {
		info := h.info()
		return info.Queue != "" && info.Pending == 0 && info.Active == 0
	})
	stop()
	if ids, err := d.IDs(t.Context(), "default"); err != nil || len(ids) != n {
		t.Fatalf("%d dead letters (%v), want %d", len(ids), err, n)
	}
	if count, err := d.Count(t.Context(), "default"); err != nil || count != n {
		t.Errorf("Count = %d, %v, want %d", count, err, n)
	}
	return h, d
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	h, d := deadHouse(t, 3)
	ids, err := d.IDs(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Get("default", ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if l.Message == nil || !strings.Contains(l.Reason, "554 no spam here") || l.Tries != 1 || time.Since(l.At) > time.Minute ||
		!slices.Equal(l.Recipients, []string{l.Message.To[0]}) {
		t.Errorf("got %+v", l)
	}

	if err := d.Delete(t.Context(), "default", ids[1]); err != nil {
		t.Error(err)
	}
	if _, err := d.Get("default", ids[1]); !errors.Is(err, ErrNotDead) {
		t.Errorf("Get of a deleted letter: %v, want ErrNotDead", err)
	}
	if err := d.Delete(t.Context(), "default", ids[1]); !errors.Is(err, ErrNotDead) {
		t.Errorf("Delete of a deleted letter: %v, want ErrNotDead", err)
	}

	h.relay.answer = nil
	if _, err := d.Replay(t.Context(), "default", ids[0]); err != nil {
		t.Error(err)
	}
	if _, err := d.Replay(t.Context(), "default", ids[0]); !errors.Is(err, ErrNotDead) {
		t.Errorf("second Replay: %v, want ErrNotDead", err)
	}
	h.start(h.config())
	h.wait(1)
	if got := h.relay.all()[0]; got.id != l.Message.MessageID {
		t.Errorf("replayed %s, want %s", got.id, l.Message.MessageID)
	}
	h.eventually("one dead letter left", func() bool { return h.info().Size == 1 && h.info().Archived == 1 })
}

// A message that grew too old in the archive is tried like a new one, and goes only
// to those whom it did not reach.
func TestDeadLetters_replayOldPart(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	m := message("ann@example.com", "gone@example.com").WithDefaults(mailer.Defaults{})
	p := &wire.Payload{Meta: wire.Meta{
		DueAt: time.Now().Add(-1000 * time.Hour), Deadline: new(time.Now().Add(-900 * time.Hour)),
		Recipients: []string{"gone@example.com"}, Refused: "550 no such user",
	}, Message: m}
	if err := h.queue.client.Enqueue(t.Context(), p, "part"); err != nil {
		t.Fatal(err)
	}
	h.start(h.config())
	d := NewDeadLetters(h.Client(t))
	h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
	if _, err := d.Replay(t.Context(), "default", "part"); err != nil {
		t.Fatal(err)
	}
	h.wait(1)
	h.empty()
	if got := h.relay.all()[0]; !slices.Equal(got.to, []string{"gone@example.com"}) || got.id != m.MessageID {
		t.Errorf("replayed %s to %v", got.id, got.to)
	}
}

func TestDeadLetters_refuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	d := NewDeadLetters(h.Client(t))
	if _, err := d.Get("default", "none"); !errors.Is(err, ErrNotDead) {
		t.Errorf("Get of nothing: %v", err)
	}
	id, err := h.queue.Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Replay(t.Context(), "default", id); !errors.Is(err, ErrNotDead) {
		t.Errorf("Replay of a waiting task: %v", err)
	}
	if err := d.Delete(t.Context(), "default", id); !errors.Is(err, ErrNotDead) {
		t.Errorf("Delete of a waiting task: %v", err)
	}
	if h.info().Pending != 1 {
		t.Error("the waiting task is gone")
	}
}

// asynq keeps 10,000 archived tasks of a queue and drops the others. None is dropped.
func TestDeadLetters_12000(t *testing.T) {
	t.Parallel()
	const n = 12_000
	h, d := deadHouse(t, n)
	ids, err := d.IDs(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, id := range ids {
		l, err := d.Get("default", id)
		if err != nil {
			t.Fatal(err)
		}
		seen[l.Message.MessageID] = true
	}
	for i := range n {
		if !seen[fmt.Sprintf("<%d@t>", i)] {
			t.Fatalf("message %d is no dead letter any more", i)
		}
	}
	if archived := h.info().Archived; archived > asynqbatch.ArchiveLimit+h.config().Connections*h.config().BatchSize {
		t.Errorf("%d in asynq's archive, want about %d", archived, asynqbatch.ArchiveLimit)
	}
}

// Those that asynq would drop for their age are moved before it can.
func TestRescue_age(t *testing.T) {
	t.Parallel()
	h, d := deadHouse(t, 2)
	client := h.Client(t)
	ids, err := d.IDs(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	old := redis.Z{Score: float64(time.Now().Add(-61 * 24 * time.Hour).Unix()), Member: ids[1]}
	if err := client.ZAdd(t.Context(), archiveKey("default"), old).Err(); err != nil {
		t.Fatal(err)
	}
	if err := letters.Rescue(t.Context(), client, "default", ids[1], "any"); err != nil {
		t.Fatal(err)
	}
	moved := client.ZRange(t.Context(), wire.DeadKey("default"), 0, -1).Val()
	if !slices.Equal(moved, ids[1:]) {
		t.Errorf("moved %v, want the old one, %v", moved, ids[1:])
	}
	if again, err := d.IDs(t.Context(), "default"); err != nil || len(again) != 2 {
		t.Errorf("%v, %v: want both still there", again, err)
	}
}

// asynq is told why a message failed without addresses, for its tools show that to whoever
// reaches them. Whoever asks us is told the whole of it.
func TestStoredErrors(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	const text = "<ann@example.com>: see https://relay.example/?who=ann%40example.com"
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		switch m.MessageID {
		case "<0@t>":
			return mailer.Result{Err: sendError(mailer.Permanent, 550, text)}
		case "<1@t>":
			return mailer.Result{Err: sendError(mailer.Temporary, 450, text)}
		}
		return mailer.Result{Refused: []*mailer.SendError{
			{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: "to@example.com", Code: 550, Text: text},
		}}
	}
	h.send(3, nil)
	cfg := h.config()
	cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour
	h.start(cfg)
	h.eventually("one retry and two dead letters", func() bool { return h.info().Retry == 1 && h.info().Archived == 2 })
	inspector := asynq.NewInspectorFromRedisClient(h.Client(t))
	retried, err := inspector.ListRetryTasks("default")
	if err != nil {
		t.Fatal(err)
	}
	archived, err := inspector.ListArchivedTasks("default")
	if err != nil {
		t.Fatal(err)
	}
	d := NewDeadLetters(h.Client(t))
	for _, info := range slices.Concat(retried, archived) {
		if strings.Contains(strings.ReplaceAll(info.LastErr, "***", ""), "ann") || strings.Contains(info.LastErr, "to@") ||
			!strings.Contains(info.LastErr, "a***@example.com>: see https://relay.example/?who=a***%40example.com") {
			t.Errorf("asynq has %q", info.LastErr)
		}
		if info.State != asynq.TaskStateArchived {
			continue
		}
		if l, err := d.Summary("default", info.ID); err != nil || !strings.Contains(l.Reason, text) {
			t.Errorf("Summary = %+v, %v, want the whole reason", l, err)
		}
	}
	// A reason that is not of the last failure is none.
	if err := h.Client(t).HSet(t.Context(), asynqbatch.TaskKey("default", archived[0].ID), wire.FieldReason, "of another day").Err(); err != nil {
		t.Fatal(err)
	}
	if l, err := d.Summary("default", archived[0].ID); err != nil || l.Reason != archived[0].LastErr {
		t.Errorf("Summary = %+v, %v, want what asynq has", l, err)
	}
}

// What a panic says may be a message's.
func TestProcessTask_panic(t *testing.T) {
	t.Parallel()
	err := (&Worker{}).ProcessTask(t.Context(), nil) // it has neither a task nor a log
	if err == nil || !strings.Contains(err.Error(), "tasks: the worker panicked: ") || !costsTry(err) {
		t.Errorf("got %v", err)
	}
	const whose = "of ann@example.com"
	if got := (&storedError{errors.New(whose)}).Error(); got != "of a***@example.com" {
		t.Errorf("stored as %q", got)
	}
}

// archiveKey is the set of asynq's that has the dead letters of a queue.
func archiveKey(queue string) string { return "asynq:{" + queue + "}:archived" }
