package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// is checks what is known of a message, by its ID and by its Message-ID.
func (h *house) is(id string, want MessageState, reply string, also func(Status) bool) {
	h.t.Helper()
	var s Status
	// A message of a bulk task that goes on is sent before the history has it.
	for end := time.Now().Add(30 * time.Second); s.State != want || want == StateSent && s.At.IsZero(); time.Sleep(5 * time.Millisecond) {
		var err error
		if s, err = h.queue.Status(h.t.Context(), id); err != nil {
			h.t.Fatal(err)
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s is %+v, want %s", id, s, want)
		}
	}
	if !strings.Contains(s.Reply, reply) || also != nil && !also(s) {
		h.t.Errorf("%s is %+v, want %q in its reply", id, s, reply)
	}
	if s.State.Ended() && s.MessageID != "" && !strings.Contains(s.ID, "-") { // what has come of it is found beside it
		if byMessageID, err := h.queue.Status(h.t.Context(), s.MessageID); err != nil || byMessageID.ID != s.ID || byMessageID.State != want {
			h.t.Errorf("by its Message-ID it is %+v, %v, want %+v", byMessageID, err, s)
		}
	}
}

// Every end of a message is found afterwards, whether it had a task to itself or shared one, and nothing is left in Redis
// of it but its record.
func TestStatus_everyEnd(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"a task each": 1, "a task for all": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := bulkHouse(t, QueueConfig{BulkSize: size, Options: Options{Tags: []string{"invoice"}, Mailing: "spring"}})
			put := laterOnce("<3@t>")
			h.relay.answer = func(ctx context.Context, m *mailer.EmailMessage) mailer.Result {
				refused := sendError(mailer.Permanent, 550, "no such user u@example.com")
				refused.Step, refused.Recipient = mailer.StepRcpt, "bob@example.com"
				switch m.MessageID {
				case "<1@t>", "<4@t>":
					return mailer.Result{Err: sendError(mailer.Permanent, 554, "no spam for u1@example.com")}
				case "<2@t>", "<7@t>":
					return mailer.Result{Refused: []*mailer.SendError{refused}}
				}
				if r := put(ctx, m); r.Err != nil {
					return r
				}
				return mailer.Result{}
			}
			ids := h.sendAll(8, func(i int, m *mailer.EmailMessage) {
				m.FailSilently = i == 4 || i == 7
				if i == 2 || i == 7 {
					m.To = append(m.To, "Bob <bob@example.com>")
				}
			})
			h.is(ids[0], StateWaiting, "", func(s Status) bool { return s.MessageID == "<0@t>" && s.Mailing == "spring" })
			h.is("<0@t>", StateWaiting, "", func(s Status) bool { return s.ID == ids[0] })
			h.is("nothing", StateUnknown, "", func(s Status) bool { return s.Kept == 0 && s.Since.IsZero() })
			// A worker that only says what is kept: messages can end before any has run through it.
			history.NewKeeper(h.Client(t), History{}.config(), *WorkerConfig{}.withDefaults().Logger).Look(t.Context())
			if err := h.queue.Cancel(t.Context(), ids[6]); err != nil {
				t.Fatal(err)
			}
			h.is(ids[6], StateCancelled, "", nil)

			cfg := h.config()
			cfg.Connect = func(name string) (mailer.Backend, error) {
				backend, err := h.relay.connect(name)
				l, _ := backend.(*line)
				return skipper{l}, err
			}
			h.start(cfg)
			masked := func(s Status) bool {
				return len(s.To) == 1 && s.To[0] == "u***@example.com" && s.Mailing == "spring" && len(s.Tags) == 1 && s.Queue == "default" && !s.At.IsZero()
			}
			h.is(ids[0], StateSent, "250 2.0.0 Ok: <0***@t>", func(s Status) bool { return s.Tries == 1 && masked(s) })
			h.is("", StateUnknown, "", func(s Status) bool { return len(s.Parts) == 0 })
			h.is(" ", StateUnknown, "", func(s Status) bool { return len(s.Parts) == 0 })
			h.is(ids[1], StateDead, "554 no spam for u***@example.com", func(s Status) bool { return s.Tries == 1 })
			h.is(ids[2], StateSent, "250 2.0.0 Ok", masked)
			h.eventually("the refused recipient of the third", func() bool {
				s, err := h.queue.Status(t.Context(), ids[2])
				return err == nil && len(s.Parts) == 1 && s.Parts[0].State == StateDead && s.Parts[0].To[0] == "b***@example.com" && strings.Contains(s.Parts[0].Reply, "550")
			})
			h.is(ids[3], StateSent, "250", func(s Status) bool { return s.Tries == 2 && masked(s) })
			h.is(ids[4], StateSilent, "554 no spam", masked)
			h.is(ids[5], StateSkipped, "", masked)
			h.is(ids[6], StateCancelled, "", masked)
			h.is(ids[7], StateSent, "250 2.0.0 Ok", masked)
			for _, id := range []string{"nothing", "", " "} { // what has no recipients has no ID
				h.is(id, StateUnknown, "", func(s Status) bool { return s.Kept == 72*time.Hour && !s.Since.IsZero() && len(s.Parts) == 0 })
			}

			// By recipient, in any letter case; the one who was refused silently too.
			found, err := NewLookup(h.Client(t)).History(t.Context(), Search{To: "BOB@example.com"})
			states := map[MessageState]int{}
			for _, s := range found.Messages {
				states[s.State]++
			}
			if err != nil || len(found.Messages) != 2 || states[StateSilent] != 1 || states[StateDead] != 1 {
				t.Errorf("bob has %v, %v", states, err)
			}
			if found, err := NewLookup(h.Client(t)).History(t.Context(), Search{Mailing: "spring"}); err != nil || len(found.Messages) != 10 {
				t.Errorf("the mailing has %d messages, %v, want 8, and two of those who were refused: %+v", len(found.Messages), err, found.Messages)
			}
			if found, err := NewLookup(h.Client(t)).History(t.Context(), Search{Tag: "voice"}); err != nil || len(found.Messages) != 0 {
				t.Errorf("half a tag finds %+v, %v", found.Messages, err)
			}

			// A dead letter is replayed, or deleted.
			h.relay.answer = nil
			d := NewDeadLetters(h.Client(t))
			again, err := d.Replay(t.Context(), "default", ids[1])
			if err != nil {
				t.Fatal(err)
			}
			h.is(ids[1], StateReplayed, again, nil)
			h.is(again, StateSent, "", nil)
			if err := d.Delete(t.Context(), "default", ids[2]+"-refused"); err != nil {
				t.Fatal(err)
			}
			h.is(ids[2]+"-refused", StateDeleted, "550", nil)
			if size > 1 {
				task, _, _ := strings.Cut(ids[0], ".")
				h.is(task, StateSeveral, "", func(s Status) bool { return len(s.Parts) >= 8 && s.Parts[0].ID == ids[0] })
			}
		})
	}
}

// What waits is told from what is in hand and on the wire.
func TestStatus_underWay(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	release, begun := make(chan struct{}), make(chan struct{}, 8)
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<1@t>" {
			return mailer.Result{Err: sendError(mailer.Temporary, 451, "come back")}
		}
		begun <- struct{}{}
		<-release
		return mailer.Result{}
	}
	later, err := h.queue.With(Options{ProcessIn: time.Hour}).Enqueue(t.Context(), message("a@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	h.is(later, StateScheduled, "", func(s Status) bool { return time.Until(s.Due) > 59*time.Minute })
	cfg := h.config()
	cfg.Connections, cfg.RetryMin, cfg.RetryMax = 1, time.Hour, time.Hour
	h.start(cfg)
	failing := h.enqueue("<1@t>")
	h.is(failing, StateRetry, "451 come back", func(s Status) bool { return s.Tries == 1 && time.Until(s.Due) > 59*time.Minute })
	first := h.enqueue("<2@t>")
	<-begun
	h.is(first, StateOnWire, "", nil)
	second := h.enqueue("<3@t>")
	h.is(second, StateInHand, "", nil)
	close(release)
	h.is(second, StateSent, "", nil)
}

func (h *house) enqueue(messageID string) string {
	h.t.Helper()
	m := message("a@example.com")
	m.MessageID = messageID
	id, err := h.queue.Enqueue(h.t.Context(), m)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

// What is paused is said to be, whichever way and whether a worker runs or not; what another pause covers stays so.
func TestStatus_paused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.Client(t)
	ids := map[string]string{}
	for name, size := range map[string]int{"single": 1, "mass": 100} {
		h.queue = NewQueue(client, QueueConfig{BulkSize: size, Mailers: []string{"marketing"}, Options: Options{Queue: "bulk", Using: "marketing", Mailing: "july"}})
		ids[name] = h.sendAll(2, func(_ int, m *mailer.EmailMessage) { m.MessageID = "<" + name + m.MessageID[1:] })[1]
	}
	h.queue = NewQueue(client, QueueConfig{BulkSize: 1})
	other := h.enqueue("<other@t>")
	all := func(want MessageState) {
		t.Helper()
		for name, id := range ids {
			h.is(id, want, "", nil)
			h.is("<"+name+"1@t>", want, "", func(s Status) bool { return s.ID == id })
		}
		h.is(other, StateWaiting, "", nil)
		found, err := NewLookup(client).History(t.Context(), Search{Mailing: "july"})
		if err != nil || len(found.Messages) != 4 || slices.ContainsFunc(found.Messages, func(s Status) bool { return s.State != want }) {
			t.Errorf("%+v, %v, want 4 that are %s", found.Messages, err, want)
		}
	}
	all(StateWaiting)
	for _, what := range []PauseTarget{{Mailing: "july"}, {Queue: "bulk"}, {Mailer: "marketing"}, {Queue: "bulk", Mailer: "marketing"}} {
		h.pause(what)
		all(StatePaused)
	}
	for _, what := range []PauseTarget{{Mailing: "july"}, {Queue: "bulk"}, {Mailer: "marketing"}} {
		h.resume(what)
		all(StatePaused)
	}
	h.resume(PauseTarget{Queue: "bulk", Mailer: "marketing"})
	all(StateWaiting)
}

// In a Redis that is full messages end as ever.
func TestHistory_redisIsFull(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	h.send(1, nil)
	h.start(h.config())
	h.wait(1)
	h.is("<0@t>", StateSent, "", nil)
	admin := h.Client(t)
	h.relay.answer = func(_ context.Context, _ *mailer.EmailMessage) mailer.Result {
		if err := admin.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
			t.Error(err)
		}
		return mailer.Result{}
	}
	id := h.enqueue("<full@t>")
	h.empty()
	history.Ended(t.Context(), admin, "default", "x", "", nil, history.Cancelled, "") // it is not a task that has ended, and frees nothing
	if err := admin.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	h.is(id, StateSent, "250", nil)
	h.is("x", StateUnknown, "", nil)
	h.relay.answer = nil
	h.is(h.enqueue("<after@t>"), StateSent, "", nil)
}

// With no history nothing is kept, and that is said.
func TestHistory_off(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	cfg := h.config()
	cfg.History.For = -1
	h.start(cfg)
	id := h.enqueue("<1@t>")
	h.empty()
	h.is(id, StateUnknown, "", func(s Status) bool { return s.Kept == 0 && s.Since.IsZero() })
	if keys := h.Client(t).Keys(t.Context(), "*}:history*").Val(); len(keys) != 0 {
		t.Errorf("in Redis there are %q", keys)
	}
}

// A message whose acceptance Redis was told of late has its record all the same, once: whether the lost answer was that Redis has
// done it, or that it has not.
func TestHistory_toldLate(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"a task each": 1, "a task for all": 100} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, done: %v", name, done), func(t *testing.T) {
				t.Parallel()
				h := bulkHouse(t, QueueConfig{BulkSize: size})
				ids := h.sendAll(3, nil)
				client, err := redisconn.ConnectWorker(h.URL())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = client.Close() }()
				w, err := NewWorker(client, h.config())
				if err != nil {
					t.Fatal(err)
				}
				w.ledger.records = &lostAnswers{records: w.ledger.records, done: done}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- w.Run(ctx) }()
				defer func() {
					cancel()
					if err := <-ended; err != nil {
						t.Error(err)
					}
				}()
				for _, id := range ids {
					h.is(id, StateSent, "250", nil)
				}
				h.eventually("ended tasks", func() bool { return h.size("default")+h.size("default:mass") == 0 })
				records, _, err := history.Search(t.Context(), client, []string{"default", "default:mass"}, history.Query{})
				if err != nil || len(records) != 3 {
					t.Errorf("%d records, %v, want 3: %+v", len(records), err, records)
				}
			})
		}
	}
}

// A bulk task comes back of which some messages were sent, since its worker stood still: each has its record, once and of the time
// at which it was sent, although both runs have said it.
func TestHistory_nextRun(t *testing.T) {
	t.Parallel()
	h := bulkHouse(t, QueueConfig{BulkSize: 100})
	began, stands, goOn := time.Now(), make(chan struct{}), make(chan struct{})
	var stood atomic.Bool
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if m.MessageID == "<5@t>" && !stood.Swap(true) {
			close(stands)
			<-goOn
		}
		return mailer.Result{}
	}
	client, err := redisconn.ConnectWorker(h.URL())
	if err != nil {
		t.Fatal(err)
	}
	client.AddHook(cut{func(cmds []redis.Cmder) bool { // what fetches tasks: the worker that stands is not to get this one again
		return stood.Load() && has(cmds, "evalsha", "asynq:{default:mass}:pending") && has(cmds, "evalsha", asynqbatch.PausedKey("default:mass"))
	}})
	seen := new(outcomes)
	cfg := h.config()
	cfg.Connections, cfg.Observers = 1, []Observer{seen.observer()}
	first := h.startOn(client, cfg)
	ids := h.sendAll(8, nil)
	<-stands
	h.eventually("five are through", func() bool { return seen.count(ActionSent) == 5 })
	read := func() []history.Record {
		records, _, err := history.Search(t.Context(), h.Client(t), []string{"default:mass"}, history.Query{})
		if err != nil {
			t.Fatal(err)
		}
		return records
	}
	early := len(read()) > 0
	if early && time.Since(began) < recordsWait {
		t.Error("records while the task goes on, want them together")
	}
	if s, err := h.queue.Status(t.Context(), ids[0]); err != nil || s.State != StateSent || s.Tries != 1 {
		t.Errorf("meanwhile the first is %+v, %v", s, err)
	}
	// Its ledger knows when that was, and how often it was tried. Here it is an hour ago.
	task, _, _ := wire.SplitID(ids[0])
	key, field := asynqbatch.TaskKey("default:mass", task), wire.FieldSent+".0"
	entry, err := wire.DecodeRecord(h.Client(t).HGet(t.Context(), key, field).Val())
	if at := time.Unix(entry.At, 0); err != nil || at.Before(began.Truncate(time.Second)) || at.After(time.Now()) || entry.Retried != 0 {
		t.Fatalf("the ledger has %+v, %v", entry, err)
	}
	entry.At -= 3600
	entry.Retried = 2
	data, err := entry.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Client(t).HSet(t.Context(), key, field, data).Err(); err != nil {
		t.Fatal(err)
	}
	recoverTasksOf(t, h, "default:mass")
	h.start(h.config())
	h.eventually("all records", func() bool { return len(read()) == len(ids) })
	close(goOn)
	first()
	sent := map[string]int{}
	for _, r := range read() {
		sent[r.ID]++
		if r.ID == ids[0] && !early && (r.At.Unix() != entry.At || r.Tries != 3) {
			t.Errorf("the first was sent at %v, try 3, and by its record at %v, try %d", time.Unix(entry.At, 0), r.At, r.Tries)
		}
	}
	for _, id := range ids {
		if sent[id] != 1 {
			t.Errorf("%s has %d records", id, sent[id])
		}
	}
}

// lostAnswers is a Redis whose answers to the first reports of acceptance are lost.
type lostAnswers struct {
	records
	done bool // it has done what it was told
	lost atomic.Bool
}

func (l *lostAnswers) Do(ctx context.Context, wanted []asynqbatch.Step) []asynqbatch.Answer {
	if !slices.ContainsFunc(wanted, func(s asynqbatch.Step) bool { return s.Name == stepAccepted || s.Name == stepNext }) || l.lost.Swap(true) {
		return l.records.Do(ctx, wanted)
	}
	answers := make([]asynqbatch.Answer, len(wanted))
	if l.done {
		l.records.Do(ctx, wanted)
	}
	for i := range answers {
		answers[i].Err = errors.New("the connection is gone")
	}
	return answers
}

// skipper is a relay's connection on which one message has no recipients.
type skipper struct{ *line }

func (s skipper) SendBatch(ctx context.Context, batch mailer.Batch) {
	report := batch.Report
	batch.Report = func(group []mailer.Report) {
		for i, r := range group {
			if batch.Messages[r.Index].MessageID == "<5@t>" {
				group[i].Result = mailer.Result{Skipped: true}
			}
		}
		report(group)
	}
	mailer.SendBatch(ctx, s.line, batch)
}
