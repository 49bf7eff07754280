package tasks

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/blobstore"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// brochure is n octets that no two seeds have in common.
func brochure(seed byte, n int) []byte {
	content := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content)
	return content
}

// with attaches a content to the messages of house.send.
func with(contents ...[]byte) func(*mailer.EmailMessage) {
	return func(m *mailer.EmailMessage) {
		for _, c := range contents {
			m.Attach("brochure.pdf", c, "application/pdf")
		}
	}
}

// blobState is what Redis has of a content.
type blobState struct {
	there bool
	refs  int64
	ttl   time.Duration // -1: for ever
}

func (h *house) blob(content []byte) blobState {
	h.t.Helper()
	c, hash := h.Client(h.t), blobstore.Hash(content)
	defer func() { _ = c.Close() }()
	there, err := c.Exists(h.t.Context(), blobKey(hash)).Result()
	if err != nil {
		h.t.Fatal(err)
	}
	return blobState{
		there == 1, c.ZCard(h.t.Context(), refsKey(hash)).Val(), c.TTL(h.t.Context(), blobKey(hash)).Val(),
	}
}

func (h *house) wantBlob(content []byte, refs int64) {
	h.t.Helper()
	got := h.blob(content)
	if !got.there || got.refs != refs || (refs > 0) != (got.ttl == -1) {
		h.t.Errorf("the blob is %+v, want it with %d references, and expiring if there are none", got, refs)
	}
}

// references waits until a content has so many. A worker that ends drops those that are left within a second, or not at all.
func (h *house) references(content []byte, refs int64) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%d references", refs), func() bool { return h.blob(content).refs == refs })
}

// sweep drops the references whose tasks are gone, however young they are.
func (h *house) sweep() error {
	return blobstore.New(h.Client(h.t), 0, zerolog.Nop()).Sweep(h.t.Context(), time.Now())
}

// The keys of a blob and its references.
func blobKey(hash string) string { return "mailpouch:{" + hash + "}:blob" }
func refsKey(hash string) string { return "mailpouch:{" + hash + "}:refs" }

// The same file for many is stored once, fetched once by each worker, arrives unharmed,
// and goes when the last one has it.
func TestBlobs_oneForAll(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{AppendOnly: redistest.Always})
	content := brochure(1, 1<<20)
	count := &tally{}
	h.queue = NewQueue(count.watch(h.Client(t)), QueueConfig{BulkSize: 1})
	h.send(200, with(content))
	h.wantBlob(content, 200)
	if n := count.big.Load(); n != 1 {
		t.Errorf("the content was sent to Redis %d times", n)
	}
	if n := count.largest.Load(); n > 4000 {
		t.Errorf("a payload has %d octets", n)
	}
	h.Restart()

	client, err := redisconn.ConnectWorker(h.URL())
	if err != nil {
		t.Fatal(err)
	}
	got := &reader{want: content, ids: map[string]int{}}
	cfg := h.config()
	cfg.Connect, cfg.Connections = func(string) (mailer.Backend, error) { return got, nil }, 1
	stop := h.startOn(count.watch(client.(*redis.Client)), cfg)
	h.empty()
	h.references(content, 0)
	stop()
	if n := count.of("get"); n != 1 {
		t.Errorf("the worker fetched the blob %d times, want once", n)
	}
	if len(got.ids) != 200 || got.wrong > 0 {
		t.Errorf("%d messages, %d with another attachment", len(got.ids), got.wrong)
	}
	h.wantBlob(content, 0)
}

// reader is a backend that looks at attachments and renders nothing, which would take
// long for big ones.
type reader struct {
	want  []byte
	ids   map[string]int
	wrong int
}

func (*reader) Open(context.Context) (bool, error) { return false, nil }
func (*reader) Close() error                       { return nil }

func (r *reader) SendMessages(_ context.Context, messages []*mailer.EmailMessage) (int, error) {
	for _, m := range messages {
		r.ids[m.MessageID]++
		if !bytes.Equal(m.Attachments[0].Content, r.want) {
			r.wrong++
		}
	}
	return len(messages), nil
}

// Small attachments ride, two equal ones are one blob, and a threshold below zero
// keeps everything in the payload.
func TestBlobs_threshold(t *testing.T) {
	t.Parallel()
	big, small := brochure(1, 1001), brochure(2, 1000)
	tests := []struct {
		name      string
		threshold int
		want      int // blobs
	}{{"over it", 1000, 1}, {"not over it", 1001, 0}, {"never", -1, 0}, {"default", 0, 0}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			h.queue = NewQueue(h.Client(t), QueueConfig{BulkSize: 1, AttachmentThreshold: tt.threshold})
			h.send(1, with(big, small, big))
			blobs := h.Client(t).Keys(t.Context(), "mailpouch:*:blob").Val()
			if len(blobs) != tt.want {
				t.Errorf("blobs %v, want %d", blobs, tt.want)
			}
			h.start(h.config())
			h.wait(1)
			h.empty()
			body := h.relay.all()[0].data
			if n := bytes.Count(body, encoded(big)); n != 2 || !bytes.Contains(body, encoded(small)) {
				t.Errorf("the big attachment arrived %d times, want 2, beside the small one", n)
			}
		})
	}
}

// A dead letter keeps its blob; a replay takes it over, and deletion frees it.
func TestBlobs_deadLetter(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	content := brochure(1, 100_000)
	h.relay.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		return mailer.Result{Err: sendError(mailer.Permanent, 554, "no")}
	}
	h.send(2, with(content))
	stop := h.start(h.config())
	h.eventually("two dead letters", func() bool { return h.info().Archived == 2 })
	stop()
	h.wantBlob(content, 2)

	d := NewDeadLetters(h.Client(t))
	ids, err := d.IDs(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Get("default", ids[0])
	if err != nil || !bytes.Equal(l.Message.Attachments[0].Content, content) || len(l.Missing) > 0 {
		t.Errorf("Get: %v, missing %v; want the whole message", err, l.Missing)
	}
	if s, err := d.Summary("default", ids[0]); err != nil || len(s.Message.Attachments[0].Content) != 0 {
		t.Errorf("Summary: %v, or with the attachment", err)
	}
	if err := d.Delete(t.Context(), "default", ids[1]); err != nil {
		t.Fatal(err)
	}
	h.wantBlob(content, 1)
	if _, err := d.Replay(t.Context(), "default", ids[0]); err != nil {
		t.Fatal(err)
	}
	h.wantBlob(content, 1)
	h.relay.answer = nil
	stop = h.start(h.config())
	h.wait(1)
	h.empty()
	h.references(content, 0)
	stop()
	h.wantBlob(content, 0)
}

// Recipients that are tried again alone get the attachment too, and a hand-over of
// the same content keeps a blob that was about to expire.
func TestBlobs_remainder(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	content := brochure(1, 100_000)
	h.relay.answer = func(_ context.Context, m *mailer.EmailMessage) mailer.Result {
		if envelope, err := m.Envelope(); err != nil || len(envelope.To) == 1 {
			return mailer.Result{Err: err}
		}
		return mailer.Result{Refused: []*mailer.SendError{
			{Class: mailer.Temporary, Step: mailer.StepRcpt, Recipient: "grey@example.com", Code: 450},
			{Class: mailer.Permanent, Step: mailer.StepRcpt, Recipient: "gone@example.com", Code: 550},
		}}
	}
	h.send(1, func(m *mailer.EmailMessage) {
		m.To = []string{"ann@example.com", "grey@example.com", "gone@example.com"}
		with(content)(m)
	})
	stop := h.start(h.config())
	h.wait(2)
	h.eventually("the dead letter alone", func() bool { return h.info().Archived == 1 && h.info().Size == 1 })
	h.references(content, 1)
	stop()
	h.wantBlob(content, 1)
	for _, r := range h.relay.all() {
		if !bytes.Contains(r.data, encoded(content)) {
			t.Errorf("%v got no attachment", r.to)
		}
	}
	d := NewDeadLetters(h.Client(t))
	ids, err := d.IDs(t.Context(), "default")
	if err != nil || len(ids) != 1 {
		t.Fatalf("dead letters %v, %v", ids, err)
	}
	if err := d.Delete(t.Context(), "default", ids[0]); err != nil {
		t.Fatal(err)
	}
	h.wantBlob(content, 0)
	h.send(1, with(content))
	h.wantBlob(content, 1)
}

// A blob that is lost or damaged makes its messages dead letters that say so.
func TestBlobs_lost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(c *redis.Client, key string) error
		want  string
	}{
		{"missing", func(c *redis.Client, key string) error { return c.Del(context.Background(), key).Err() }, "not in Redis any more"},
		{"damaged", func(c *redis.Client, key string) error { return c.SetRange(context.Background(), key, 5000, "x").Err() }, "damaged in Redis"},
		{"cut off", func(c *redis.Client, key string) error { return c.Set(context.Background(), key, "x", 0).Err() }, "damaged in Redis"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, redistest.Options{})
			content := bytes.Repeat([]byte("a line\n"), 20_000)
			h.send(1, with(content))
			if err := tt.spoil(h.Client(t), blobKey(blobstore.Hash(content))); err != nil {
				t.Fatal(err)
			}
			h.start(h.config())
			h.eventually("a dead letter", func() bool { return h.info().Archived == 1 })
			letter := h.archived()[0]
			if !strings.Contains(letter.LastErr, `"brochure.pdf"`) || !strings.Contains(letter.LastErr, tt.want) {
				t.Errorf("reason = %q, want the attachment and %q in it", letter.LastErr, tt.want)
			}
			h.once(0)

			d := NewDeadLetters(h.Client(t))
			l, err := d.Get("default", letter.ID)
			if err != nil || len(l.Missing) != 1 || !strings.Contains(l.Missing[0], tt.want) {
				t.Errorf("Get = %v, missing %q, want %q", err, l.Missing, tt.want)
			}
			if tt.name == "damaged" {
				return // its length is right
			}
			if _, err := d.Replay(t.Context(), "default", letter.ID); mailer.ClassOf(err) != mailer.Permanent {
				t.Errorf("Replay without the content: %v", err)
			}
			// Who hands the same content over mends it.
			h.send(1, with(content))
			if _, err := d.Replay(t.Context(), "default", letter.ID); err != nil {
				t.Error(err)
			}
			h.wait(2)
		})
	}
}

// A task that goes on to its mailer's queue takes its blobs along.
func TestBlobs_forwarded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	there, lost := brochure(1, 100_000), brochure(2, 100_000)
	h.queue = h.queue.With(Options{Using: "marketing"})
	h.send(1, with(there))
	h.send(1, with(lost))
	if err := h.Client(t).Del(t.Context(), blobKey(blobstore.Hash(lost))).Err(); err != nil {
		t.Fatal(err)
	}
	cfg := h.config()
	cfg.Mailers = map[string]int{"marketing": 1}
	stop := h.start(cfg)
	h.wait(1)
	h.eventually("a dead letter alone", func() bool { return h.info().Archived == 1 && h.info().Size == 1 })
	if letter := h.archived()[0]; !strings.Contains(letter.LastErr, "not in Redis any more") {
		t.Errorf("reason = %q", letter.LastErr)
	}
	if !bytes.Contains(h.relay.all()[0].data, encoded(there)) {
		t.Error("the attachment did not arrive")
	}
	h.eventually("the mailer's queue is empty", func() bool { return h.size("marketing.default") == 0 })
	h.references(there, 0)
	stop()
	h.wantBlob(there, 0)
}

// When the task is not taken the reference stays until the sweep: the answer alone may
// have been lost.
func TestBlobs_enqueueFails(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	taken, refused := brochure(1, 100_000), brochure(2, 100_000)
	broken := &tally{refuse: func(cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" { // asynq's
			return &net.OpError{Op: "read", Err: errors.New("connection reset")}
		}
		return nil
	}}
	h.send(1, with(taken))
	q := NewQueue(broken.watch(h.Client(t)), QueueConfig{})
	m := message("ann@example.com")
	with(taken, refused)(m)
	if _, err := q.Enqueue(t.Context(), m); mailer.ClassOf(err) != mailer.Unknown {
		t.Fatalf("Enqueue: %v, want that it may have been queued", err)
	}
	h.wantBlob(taken, 2)
	h.wantBlob(refused, 1)
	if err := h.sweep(); err != nil {
		t.Fatal(err)
	}
	h.wantBlob(taken, 1)
	h.wantBlob(refused, 0)
}

// A kept task that has ended needs no blobs, nor does one that was handed over twice.
func TestBlobs_retention(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	content := brochure(1, 100_000)
	h.queue = h.queue.With(Options{IdempotencyKey: "order 1", Retention: time.Hour})
	h.send(1, with(content))
	stop := h.start(h.config())
	h.wait(1)
	h.eventually("a completed task", func() bool { return h.info().Completed == 1 })
	h.references(content, 0)
	stop()
	h.wantBlob(content, 0)

	list, err := inspect(t, h.Server).ListCompletedTasks("default")
	if err != nil || len(list) != 1 {
		t.Fatalf("completed tasks %v, %v", list, err)
	}
	p, err := wire.Decode(list[0].Payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.queue.client.Put(t.Context(), p, list[0].ID); !errors.Is(err, asynq.ErrTaskIDConflict) {
		t.Fatalf("the same task again: %v", err)
	}
	h.wantBlob(content, 1)
	if err := h.sweep(); err != nil {
		t.Fatal(err)
	}
	h.wantBlob(content, 0)
}

// encoded is a content as it stands in a mail: base64, 76 characters a line.
func encoded(content []byte) []byte {
	var out []byte
	text := base64.StdEncoding.EncodeToString(content)
	for len(text) > 76 {
		out = append(out, text[:76]+"\r\n"...)
		text = text[76:]
	}
	return append(out, text...)
}

func pending(t *testing.T, s *redistest.Server, queue string) []*asynq.TaskInfo {
	t.Helper()
	list, err := inspect(t, s).ListPendingTasks(queue)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
