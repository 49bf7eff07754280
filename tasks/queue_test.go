package tasks

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

func message(to ...string) *mailer.EmailMessage {
	return &mailer.EmailMessage{Subject: "Hello", Body: "It works.\n", FromEmail: "app@example.com", To: to}
}

// inspect returns the tasks of a state in a queue.
func inspect(t *testing.T, s *redistest.Server) *asynq.Inspector {
	t.Helper()
	return asynq.NewInspectorFromRedisClient(s.Client(t))
}

func TestQueue_SendMessages(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	q := NewQueue(server.Client(t), QueueConfig{BulkSize: 1})

	bad := message("ann@example.com")
	bad.Subject = "Hello\nBcc: everybody@example.com"
	sent, err := q.SendMessages(t.Context(), []*mailer.EmailMessage{
		message("ann@example.com"), bad, message(), message("bob@example.com"),
	})
	if sent != 2 {
		t.Errorf("sent = %d, want 2", sent)
	}
	for i, wantErr := range []bool{false, true, false, false} {
		if got := mailer.ErrorAt(err, i); (got != nil) != wantErr {
			t.Errorf("error of message %d = %v, want one: %v", i, got, wantErr)
		}
	}
	var header *mailer.BadHeaderError
	if !errors.As(err, &header) || header.Field != "subject" {
		t.Errorf("err = %v, want a BadHeaderError of the subject", err)
	}
	info, err := inspect(t, server).GetQueueInfo("default")
	if err != nil {
		t.Fatal(err)
	}
	if info.Pending != 2 {
		t.Errorf("pending = %d, want 2", info.Pending)
	}
}

// What identifies a mail is fixed when Redis takes it.
func TestQueue_fixesIdentity(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	q := NewQueue(server.Client(t), QueueConfig{BulkSize: 1, Defaults: mailer.Defaults{FromEmail: "site@example.com", Hostname: "app.example.com"}})
	m := message("ann@example.com")
	m.FromEmail = ""
	id, err := q.Enqueue(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	task, err := inspect(t, server).GetTaskInfo("default", id)
	if err != nil {
		t.Fatal(err)
	}
	p, err := wire.Decode(task.Payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := p.Message
	if got.FromEmail != "site@example.com" || !strings.HasSuffix(got.MessageID, "@app.example.com>") || got.Date.IsZero() {
		t.Errorf("queued from %q, id %q, date %v: want the default address, an id and a date", got.FromEmail, got.MessageID, got.Date)
	}
	if m.MessageID != "" || !m.Date.IsZero() || m.FromEmail != "" {
		t.Errorf("the caller's message was changed: %+v", m)
	}
	if task.MaxRetry != DefaultMaxRetry+spareRetry {
		t.Errorf("max retry = %d, want %d", task.MaxRetry, DefaultMaxRetry+spareRetry)
	}
}

func TestQueue_options(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	due := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	q := NewQueue(server.Client(t), QueueConfig{}).With(Options{
		Queue: "bulk", ProcessAt: due, MaxRetry: new(3), Deadline: due.Add(time.Hour), Retention: time.Minute,
	})
	id, err := q.Enqueue(t.Context(), message("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	task, err := inspect(t, server).GetTaskInfo("bulk", id)
	if err != nil {
		t.Fatal(err)
	}
	if task.State != asynq.TaskStateScheduled || !task.NextProcessAt.Equal(due) {
		t.Errorf("state %v at %v, want scheduled at %v", task.State, task.NextProcessAt, due)
	}
	if task.MaxRetry != 3+spareRetry || task.Retention != time.Minute {
		t.Errorf("max retry %d, retention %v", task.MaxRetry, task.Retention)
	}
	p, err := wire.Decode(task.Payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Message.Date.Equal(due) {
		t.Errorf("Date = %v, want the due time %v", p.Message.Date, due)
	}
	if !p.DueAt.Equal(due) || p.Deadline == nil || !p.Deadline.Equal(due.Add(time.Hour)) || !p.KeepResult {
		t.Errorf("payload %+v", p)
	}
}

// A Redis that is away is reported for every message, once and not once a message.
func TestQueue_redisDown(t *testing.T) {
	t.Parallel()
	client, err := Connect("redis://127.0.0.1:1/0?dial_timeout=200ms&max_retries=-1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	q := NewQueue(client, QueueConfig{})
	if opened, err := q.Open(t.Context()); opened || mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("Open = %v, %v, want false and Unavailable", opened, err)
	}
	messages := make([]*mailer.EmailMessage, 100)
	for i := range messages {
		messages[i] = message(fmt.Sprintf("u%d@example.com", i))
	}
	sent, err := q.SendMessages(t.Context(), messages)
	if sent != 0 {
		t.Errorf("sent = %d, want 0", sent)
	}
	for i := range messages {
		if mailer.ClassOf(mailer.ErrorAt(err, i)) != mailer.Unavailable {
			t.Fatalf("error of message %d = %v, want Unavailable", i, mailer.ErrorAt(err, i))
		}
	}
}

func TestQueue_Connect(t *testing.T) {
	t.Parallel()
	q := &Queue{}
	if b, err := q.Connect(mailer.Connection{}); err != nil || b != q {
		t.Errorf("Connect = %v, %v, want the queue itself", b, err)
	}
	for _, c := range []mailer.Connection{{Username: "ann"}, {Password: "hunter2"}} {
		_, err := q.Connect(c)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Connect(%+v) = %v, want an error without the password", c, err)
		}
	}
}

// A message that goes to some of its recipients alone goes to no others from the queue
// either, and one that goes to nobody is not queued.
func TestQueue_onlyTo(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	m := message("ann@example.com", "bob@example.com")
	if _, err := h.queue.SendMessages(t.Context(), []*mailer.EmailMessage{m.WithRecipients([]string{"bob@example.com"}), m}); err != nil {
		t.Fatal(err)
	}
	if id, err := h.queue.Enqueue(t.Context(), m.WithRecipients(nil)); id != "" || err != nil {
		t.Errorf("a message for nobody: %q, %v", id, err)
	}
	h.start(h.config())
	h.wait(2)
	h.empty()
	var got []string
	for _, s := range h.relay.all() {
		got = append(got, strings.Join(s.to, " "))
	}
	if slices.Sort(got); !slices.Equal(got, []string{"ann@example.com bob@example.com", "bob@example.com"}) {
		t.Errorf("sent to %q", got)
	}
}
