package queuetest

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// The queue in memory and the one in Redis, with its worker, are taken through the same story. Whatever can be seen of a
// message has to be the same: what the hand-over says, what each try comes to, what becomes a dead letter and why, and when
// it is too late to cancel.

// handler is what a program has of a queue.
type handler interface {
	Enqueue(ctx context.Context, m *mailer.EmailMessage) (id string, err error)
	Cancel(ctx context.Context, id string) error
	Reschedule(ctx context.Context, id string, at time.Time) error
	SendBatch(ctx context.Context, b mailer.Batch)
}

// subject is a queue under test.
type subject struct {
	with  func(mailer.Options) handler
	run   func() (outcomes []string) // until all that is due has ended
	left  func() []string            // what is in the queue then
	relay *scripted

	// What people do.
	pause  func(Target) error
	resume func(Target) (bool, error)
	cancel func(mailing string) (CancelledMailing, error)
	replay func(queue, id string) (string, error)
	delete func(queue, id string) error
	isDead func(error) bool // the error says that there is no such dead letter
}

// config is what both have.
type config struct {
	retryMin, retryMax time.Duration
	size               int // messages of a task
}

// scripted is a relay whose answers depend on the message and on how often it was tried.
type scripted struct {
	mu    sync.Mutex
	tries map[string]int
	got   []string // Message-IDs and recipients of what was accepted
}

func (s *scripted) Open(context.Context) (bool, error) { return false, nil }
func (s *scripted) Close() error                       { return nil }
func (s *scripted) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, s, messages)
}

func (s *scripted) SendBatch(ctx context.Context, b mailer.Batch) {
	mailer.Deliver(ctx, s, b, mailer.Defaults{}, s.put)
}

func (s *scripted) put(m *mailer.EmailMessage, to mailer.Envelope) mailer.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := m.MessageID + " " + strings.Join(to.To, " ")
	s.tries[id]++
	refuse := func(class mailer.Class, code int, text string) mailer.Result {
		return mailer.Result{Err: &mailer.SendError{Class: class, Step: mailer.StepEnd, Code: code, Text: text}}
	}
	refused := func(class mailer.Class, code int, who string) *mailer.SendError {
		return &mailer.SendError{Class: class, Step: mailer.StepRcpt, Code: code, Text: "no", Recipient: who}
	}
	result := mailer.Result{Reply: "250 ok"}
	switch what, _, _ := strings.Cut(strings.Trim(m.MessageID, "<>"), "@"); {
	case what == "later" && s.tries[id] < 3, what == "always", what == "silent":
		return refuse(mailer.Temporary, 450, "later")
	case what == "never", what == "key-never":
		return refuse(mailer.Permanent, 554, "no spam here")
	case what == "doubt" && s.tries[id] == 1, what == "once":
		return refuse(mailer.Unknown, 0, "cut off")
	case what == "plain-error" && s.tries[id] == 1:
		return mailer.Result{Err: errors.New("disk full")}
	case what == "some" && len(to.To) == 3:
		result.Refused = []*mailer.SendError{refused(mailer.Permanent, 550, "bob@example.org"), refused(mailer.Temporary, 452, "cy@example.org")}
	case what == "silent-some":
		result.Refused = []*mailer.SendError{refused(mailer.Permanent, 550, "bob@example.org")}
	}
	s.got = append(s.got, id)
	return result
}

// inMemory is the queue of this package.
func inMemory(t *testing.T, c config) *subject {
	t.Helper()
	s := &subject{relay: &scripted{tries: map[string]int{}}}
	q := New(Config{
		RetryMin: c.retryMin, RetryMax: c.retryMax, Mailers: []string{"marketing"}, BulkSize: c.size,
		Connect: func(string) (mailer.Backend, error) { return s.relay, nil },
	})
	s.with = func(o mailer.Options) handler { return q.With(o) }
	s.pause = func(what Target) error { return q.Pause(t.Context(), what) }
	s.resume = func(what Target) (bool, error) { return q.Resume(t.Context(), what) }
	s.cancel = func(name string) (CancelledMailing, error) { return q.CancelMailing(t.Context(), name) }
	s.replay = func(queue, id string) (string, error) { return q.Replay(t.Context(), queue, id) }
	s.delete = func(queue, id string) error { return q.Delete(t.Context(), queue, id) }
	s.isDead = func(err error) bool { return !errors.Is(err, ErrNotDead) }
	s.run = func() (all []string) {
		now := time.Now()
		for again := true; again; now = now.Add(c.retryMax) {
			outcomes, err := q.RunDue(t.Context(), now)
			if err != nil {
				t.Fatal(err)
			}
			again = len(outcomes) > 0
			for _, o := range outcomes {
				all = append(all, line(string(o.Action), o.Message.MessageID, o.TaskID, o.Mailer, o.Try, o.Reply, o.Refused, o.Err))
			}
		}
		return all
	}
	s.left = func() (all []string) {
		for _, task := range q.Tasks() {
			to, reason := task.Recipients, task.Reason
			if len(to) == 0 {
				to = task.Message.To
			}
			if task.State != Dead {
				reason = ""
			}
			all = append(all, fmt.Sprintf("%s %s of %s to %s: %s %s", task.State, task.ID, task.Message.MessageID, to, reason, task.Message.Date.Format(time.RFC3339)))
		}
		return all
	}
	return s
}

// inRedis is the real one.
func inRedis(t *testing.T, c config) *subject {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	client := server.Client(t)
	s := &subject{relay: &scripted{tries: map[string]int{}}}
	queue := tasks.NewQueue(client, tasks.QueueConfig{Mailers: []string{"marketing"}, BulkSize: c.size})
	s.with = func(o mailer.Options) handler { return queue.With(o) }
	pauses, dead := tasks.NewPauses(client), tasks.NewDeadLetters(client)
	s.pause = func(what Target) error {
		_, err := pauses.Pause(t.Context(), tasks.Pause{Target: tasks.PauseTarget(what)})
		return err
	}
	s.resume = func(what Target) (bool, error) { return pauses.Resume(t.Context(), tasks.PauseTarget(what)) }
	s.cancel = func(name string) (CancelledMailing, error) {
		c, err := queue.CancelMailing(t.Context(), name)
		return CancelledMailing(c), err
	}
	s.replay = func(queue, id string) (string, error) { return dead.Replay(t.Context(), queue, id) }
	s.delete = func(queue, id string) error { return dead.Delete(t.Context(), queue, id) }
	s.isDead = func(err error) bool { return !errors.Is(err, tasks.ErrNotDead) }
	inspector := asynq.NewInspectorFromRedisClient(client)
	s.run = func() []string {
		var mu sync.Mutex
		var all []string
		worker, err := tasks.NewWorker(client, tasks.WorkerConfig{
			Connect:     func(string) (mailer.Backend, error) { return s.relay, nil },
			Connections: 1, Mailers: map[string]int{"marketing": 1}, Queues: map[string]int{"default": 1, "bulk": 1}, RetryMin: c.retryMin, RetryMax: c.retryMax,
			Observers: []tasks.Observer{{Outcome: func(o tasks.Outcome) {
				if o.Action == tasks.ActionCancelled { // where it shares a task the worker leaves it out, and says so
					return
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, line(string(o.Action), o.MessageID, o.TaskID, o.Mailer, o.Try, o.Reply, o.Refused, o.Err))
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(ctx) }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for !settled(t, client) {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatal("the worker does not come to an end")
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return all
	}
	s.left = func() (all []string) {
		for _, queue := range queuesOf(t, inspector) {
			for state, list := range map[State]func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
				Waiting: inspector.ListScheduledTasks, Dead: inspector.ListArchivedTasks, Sent: inspector.ListCompletedTasks,
			} {
				infos, err := list(queue, asynq.PageSize(1000))
				if err != nil {
					t.Fatal(err)
				}
				for _, info := range infos {
					p, err := wire.Decode(info.Payload, nil)
					if err != nil { // the mark of a cancelled task
						continue
					}
					to, reason := p.Recipients, ""
					if len(to) == 0 {
						to = p.Message.To
					}
					if state == Dead {
						l, err := tasks.NewDeadLetters(client).Summary(queue, info.ID)
						if err != nil {
							t.Fatal(err)
						}
						reason = l.Reason
					}
					all = append(all, fmt.Sprintf("%s %s of %s to %s: %s %s", state, info.ID, p.Message.MessageID, to, reason, p.Message.Date.Format(time.RFC3339)))
				}
			}
		}
		return all
	}
	return s
}

// line is what is compared of an outcome.
func line(action, messageID, taskID, mailer string, try int, reply string, refused []*mailer.SendError, err error) string {
	return fmt.Sprintf("%s %s as %s by %q, try %d: %q %v %v", action, messageID, taskID, mailer, try, reply, refused, err)
}

func queuesOf(t *testing.T, inspector *asynq.Inspector) []string {
	t.Helper()
	queues, err := inspector.Queues()
	if err != nil {
		t.Fatal(err)
	}
	return queues
}

// settled reports whether nothing is left to do soon. It looks at all queues at once: a message that leaves one for another would
// else be seen in neither.
func settled(t *testing.T, client redis.UniversalClient) bool {
	t.Helper()
	n, err := client.Eval(t.Context(), `
local n = 0
for _, name in ipairs(redis.call("SMEMBERS", "asynq:queues")) do
  local queue = "asynq:{" .. name .. "}:"
  if redis.call("EXISTS", queue .. "paused") == 0 then
    n = n + redis.call("LLEN", queue .. "pending")
  end
  n = n + redis.call("LLEN", queue .. "active") + redis.call("ZCARD", queue .. "retry") + redis.call("ZCOUNT", queue .. "scheduled", "-inf", ARGV[1])
end
return n`, nil, time.Now().Add(10*time.Minute).Unix()).Int()
	if err != nil {
		t.Fatal(err)
	}
	return n == 0
}

// play is the story. It returns what was seen.
func play(t *testing.T, s *subject) []string {
	t.Helper()
	var seen []string
	say := func(format string, args ...any) { seen = append(seen, fmt.Sprintf(format, args...)) }
	mail := func(name string, to ...string) *mailer.EmailMessage {
		if to == nil {
			to = []string{"ann@example.org"}
		}
		return &mailer.EmailMessage{
			Subject: name, FromEmail: "shop@example.com", To: to, MessageID: "<" + name + "@t>", Date: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		}
	}
	names := map[string]string{} // of IDs that are random
	put := func(m *mailer.EmailMessage, o mailer.Options) string {
		id, err := s.with(o).Enqueue(t.Context(), m)
		if shown := id; shown != "" && !strings.Contains(shown, "-") {
			names[id] = "{" + strings.Trim(m.MessageID, "<>") + "}"
		}
		say("hand over %s with %+v: %s, %v (%s)", m.Subject, plain(o), id, err, mailer.ClassOf(err))
		return id
	}
	cancel := func(id string, o mailer.Options) {
		err := s.with(o).Cancel(t.Context(), id)
		say("cancel %s: too late %v, no task %v, ok %v", id, errors.Is(err, mailer.ErrTooLate), errors.Is(err, mailer.ErrNoTask), err == nil)
	}
	reschedule := func(id string, at time.Time, o mailer.Options) {
		err := s.with(o).Reschedule(t.Context(), id, at)
		say("reschedule %s: too late %v, no task %v, class %v, ok %v", id, errors.Is(err, mailer.ErrTooLate), errors.Is(err, mailer.ErrNoTask), mailer.ClassOf(err), err == nil)
	}
	none, bulk := mailer.Options{}, mailer.Options{Queue: "bulk"}
	kept := mailer.Options{Retention: time.Hour}

	put(mail("ok"), none)
	put(mail("later"), bulk)
	dead := put(mail("never"), none)
	put(mail("some", "ann@example.org", "bob@example.org", "cy@example.org"), none)
	silent, silentSome := mail("silent"), mail("silent-some", "ann@example.org", "bob@example.org")
	silent.FailSilently, silentSome.FailSilently = true, true
	put(silent, none)
	put(silentSome, none)
	put(mail("doubt"), none)
	put(mail("plain-error"), none)
	put(mail("once"), mailer.Options{AtMostOnce: true})
	put(mail("always"), mailer.Options{MaxRetry: new(2)})
	put(mail("by-marketing"), mailer.Options{Using: "marketing", Tags: []string{"a"}, Mailing: "spring"})
	put(mail("no-such-mailer"), mailer.Options{Using: "nobody"})
	put(mail("bad-option"), mailer.Options{Tags: []string{"a\n"}})
	put(&mailer.EmailMessage{Subject: "nobody"}, none)
	put(&mailer.EmailMessage{Subject: "bad\nheader", To: []string{"ann@example.org"}}, none)
	sent := put(mail("kept"), kept)
	undated := mail("undated")
	undated.Date = time.Time{}
	put(undated, mailer.Options{ProcessAt: time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC)})

	waits := put(mail("waits"), mailer.Options{ProcessIn: time.Hour})
	cancel(waits, bulk) // it is in another queue
	cancel(waits, none)
	cancel(waits, none)
	cancel("NOSUCHTASK", none)

	at := time.Date(2041, 1, 2, 3, 4, 5, 0, time.UTC)
	undated = mail("rescheduled")
	undated.Date = time.Time{}
	reschedule(put(undated, none), at, none)
	reschedule(put(mail("dated"), bulk), at, bulk)
	reschedule(put(mail("now"), mailer.Options{ProcessIn: time.Hour}), time.Time{}, none)
	reschedule(put(mail("until"), mailer.Options{ProcessIn: time.Hour, Deadline: at.Add(-time.Hour)}), at, none)
	reschedule(waits, at, none)

	key := mailer.Options{IdempotencyKey: "order 17"}
	first := put(mail("key"), key)
	put(mail("key"), key)
	put(mail("key"), mailer.Options{IdempotencyKey: "order 17", Queue: "bulk"})
	put(mail("key"), mailer.Options{IdempotencyKey: "order 17", Using: "marketing"})
	put(mail("key-other"), key)
	cancelled := mailer.Options{IdempotencyKey: "order 18"}
	cancel(put(mail("key-cancelled"), cancelled), cancelled)
	cancel(put(mail("key-cancelled"), cancelled), cancelled)
	put(mail("key-cancelled"), cancelled)
	never := mailer.Options{IdempotencyKey: "order 19"}
	put(mail("key-never"), never)
	unique := mailer.Options{Unique: time.Hour}
	put(mail("unique"), unique)
	put(mail("unique"), unique)
	put(mail("unique"), mailer.Options{Unique: 2 * time.Hour})
	put(mail("key"), mailer.Options{IdempotencyKey: "a", Unique: time.Hour})

	named := func(text string) string {
		for id, name := range names {
			text = strings.ReplaceAll(text, id, name)
		}
		return text
	}
	sayAll := func(what string, list []string) { // in any order
		for i := range list {
			list[i] = what + ": " + named(list[i])
		}
		slices.Sort(list)
		seen = append(seen, list...)
	}
	sayAll("outcome", s.run())
	sayAll("arrived", s.relay.got)
	sayAll("left", s.left())

	cancel(sent, kept)
	reschedule(sent, at, kept)
	reschedule(dead, at, none)
	cancel(dead, none)
	cancel(first, key)
	put(mail("key"), key)
	put(mail("key-other"), key)
	put(mail("key-never"), never)
	put(mail("unique"), unique)

	for i := range seen {
		seen[i] = named(seen[i])
	}
	return seen
}

// plain is options as text that is the same each time.
func plain(o mailer.Options) string {
	retries := -1
	if o.MaxRetry != nil {
		retries = *o.MaxRetry
	}
	o.MaxRetry = nil
	return fmt.Sprintf("%+v, %d tries", o, retries)
}

func TestQueue_asInRedis(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		config
		play func(t *testing.T, s *subject) []string
	}{
		{"all", config{time.Millisecond, 2 * time.Millisecond, 1}, play},
		{"many in a task", config{time.Millisecond, 2 * time.Millisecond, 3}, playMany},
		{"many in a task, as many as usual", config{time.Millisecond, 2 * time.Millisecond, 0}, playMany},
		{"a task each", config{time.Millisecond, 2 * time.Millisecond, 1}, playMany},
		{"deadline before the next try", config{2 * time.Hour, 2 * time.Hour, 1}, playDeadline},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			memory, redis := tt.play(t, inMemory(t, tt.config)), tt.play(t, inRedis(t, tt.config))
			for i := range max(len(memory), len(redis)) {
				var a, b string
				if i < len(memory) {
					a = memory[i]
				}
				if i < len(redis) {
					b = redis[i]
				}
				if a != b {
					t.Errorf("line %d\nin memory %s\nin Redis  %s", i, a, b)
				}
			}
			if len(memory) < 4 {
				t.Errorf("nothing was seen: %q", memory)
			}
		})
	}
}

// playDeadline has a message that is put off beyond its deadline, and one that is put off.
func playDeadline(t *testing.T, s *subject) []string {
	t.Helper()
	m := &mailer.EmailMessage{Subject: "a", FromEmail: "shop@example.com", To: []string{"ann@example.org"}, MessageID: "<always@t>"}
	deadline := time.Now().Add(time.Hour)
	id, err := s.with(mailer.Options{Deadline: deadline}).Enqueue(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	seen := append(s.run(), s.left()...)
	seen = append(seen, strings.Join(s.relay.got, " "), fmt.Sprint(len(s.relay.tries)))
	text := strings.ReplaceAll(strings.Join(seen, "\n"), id, "{id}")
	if !strings.Contains(text, "not sent before its deadline") {
		t.Errorf("it has not expired:\n%s", text)
	}
	text = strings.ReplaceAll(text, deadline.UTC().Format(time.RFC3339), "{deadline}")
	lines := strings.Split(text, "\n")
	for i := range lines {
		if at := strings.LastIndex(lines[i], " 20"); at >= 0 {
			lines[i] = lines[i][:at] // its date
		}
	}
	return lines
}

// playMany hands messages over together, and does to them what people do.
func playMany(t *testing.T, s *subject) []string {
	t.Helper()
	var seen []string
	names := map[string]string{}
	say := func(format string, args ...any) { seen = append(seen, fmt.Sprintf(format, args...)) }
	together := func(o mailer.Options, list ...string) []string {
		messages, ids := make([]*mailer.EmailMessage, len(list)), make([]string, len(list))
		for i, name := range list {
			to := []string{"ann@example.org"}
			if name == "some" {
				to = append(to, "bob@example.org", "cy@example.org")
			}
			messages[i] = &mailer.EmailMessage{
				Subject: name, FromEmail: "shop@example.com", To: to, MessageID: "<" + name + "@t>", Date: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
			}
			if name == "nobody" {
				messages[i].To = nil
			}
		}
		results := make([]mailer.Result, len(list)) // which are reported in any order
		s.with(mailer.Options{}).SendBatch(t.Context(), mailer.Batch{Messages: messages, Options: o, Report: func(group []mailer.Report) {
			for _, r := range group {
				results[r.Index] = r.Result
			}
		}})
		for i, r := range results {
			ids[i] = r.TaskID
			task, _, _ := strings.Cut(r.TaskID, ".")
			if _, ok := names[task]; !ok && task != "" && !strings.Contains(task, "-") {
				names[task] = "{" + list[i] + "}"
			}
			say("hand over %s: %s, %v %v", list[i], r.TaskID, r.Skipped, r.Err)
		}
		return ids
	}
	named := func(text string) string {
		for id, name := range names {
			text = strings.ReplaceAll(text, id, name)
		}
		return text
	}
	runs := func(what string) {
		list := s.run()
		s.relay.mu.Lock()
		for _, id := range s.relay.got {
			list = append(list, "arrived "+id)
		}
		s.relay.got = nil
		s.relay.mu.Unlock()
		for i := range list {
			list[i] = what + ": " + named(list[i])
		}
		slices.Sort(list)
		seen = append(seen, list...)
	}
	cancel := func(id string, o mailer.Options) {
		err := s.with(o).Cancel(t.Context(), id)
		say("cancel %s: too late %v, no task %v, ok %v", id, errors.Is(err, mailer.ErrTooLate), errors.Is(err, mailer.ErrNoTask), err == nil)
	}
	july, bulk := mailer.Options{Mailing: "july"}, mailer.Options{Queue: "bulk", Using: "marketing"}
	keyed := mailer.Options{IdempotencyKey: "order 20"}

	// Some are refused, put off, taken back or for nobody.
	ids := together(mailer.Options{}, "one", "later", "never", "some", "nobody", "two", "taken")
	cancel(ids[6], mailer.Options{})
	cancel(ids[6]+"7", mailer.Options{})
	say("in a task of many: %v", errors.Is(s.with(mailer.Options{}).Reschedule(t.Context(), ids[0], time.Now()), mailer.ErrInBulk))
	runs("first")
	cancel(ids[0], mailer.Options{})

	// A mailing is paused: in all queues, for all mailers, and other mail goes on.
	together(july, "j1", "j2", "j3", "j4")
	julyBulk := bulk
	julyBulk.Mailing = "july"
	together(julyBulk, "j5", "j6")
	together(bulk, "b1", "b2")
	say("pause: %v", s.pause(Target{Mailing: "july"}))
	runs("july is paused")
	again, err := s.resume(Target{Mailing: "august"})
	say("resume another: %v, %v", again, err)
	again, err = s.resume(Target{Mailing: "july"})
	say("resume: %v, %v", again, err)
	runs("july goes on")

	// A queue of a mailer, and then all of the mailer.
	for _, what := range []Target{{Queue: "bulk", Mailer: "marketing"}, {Mailer: "marketing"}, {Queue: "bulk"}} {
		together(bulk, "b3", "b4")
		together(mailer.Options{}, "d1", "d2")
		say("pause %v: %v", what, s.pause(what))
		runs("it is paused")
		again, err = s.resume(what)
		say("resume %v: %v, %v", what, again, err)
		again, err = s.resume(what)
		say("once more: %v, %v", again, err)
		runs("it goes on")
	}
	for _, bad := range []Target{{}, {Queue: "a b"}, {Mailing: "x", Queue: "bulk"}} {
		say("pause %v: refused %v", bad, s.pause(bad) != nil)
	}

	// A mailing is cancelled while it is paused, and no other mail is.
	together(july, "c1", "never", "c2")
	together(mailer.Options{Mailing: "july", ProcessIn: time.Hour}, "c3", "c4")
	together(mailer.Options{Mailing: "august"}, "a1", "a2")
	say("pause: %v", s.pause(Target{Mailing: "july"}))
	runs("before it is cancelled")
	c, err := s.cancel("july")
	say("cancelled: %+v, %v", c, err)
	_, err = s.resume(Target{Mailing: "july"})
	say("resume: %v", err)
	runs("after")
	c, err = s.cancel("july")
	say("cancelled again: %+v, %v", c, err)
	_, err = s.cancel("a b")
	say("a bad name: refused %v", err != nil)

	// Dead letters are queued again, and deleted.
	dead := together(mailer.Options{}, "never")[0]
	key := together(keyed, "key-never")[0]
	runs("two more die")
	for _, id := range []string{dead, key, ids[2], ids[0]} {
		next, err := s.replay("default", id)
		say("replay %s: %s, dead letter %v, %v", id, next, s.isDead(err), err == nil)
		next, err = s.replay("default", id)
		say("and again: %s, dead letter %v", next, s.isDead(err))
	}
	together(keyed, "key-never") // it is there, and waits
	cancel(key, keyed)
	together(keyed, "key-never") // with a new ID
	runs("replayed")
	say("delete: %v, another queue's: dead letter %v", s.delete("default", dead+"-again"), s.isDead(s.delete("bulk", ids[2]+"-again")))
	say("and again: dead letter %v", s.isDead(s.delete("default", dead+"-again")))
	left := s.left()
	for i := range left {
		left[i] = "left: " + named(left[i])
	}
	slices.Sort(left)
	seen = append(seen, left...)
	for i := range seen {
		seen[i] = generation.ReplaceAllString(named(seen[i]), "-{time}-again")
	}
	return seen
}

// generation is the time in the ID of a message with a key that was replayed.
var generation = regexp.MustCompile(`-[0-9a-z]{9,}-again`)
