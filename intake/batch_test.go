package intake

import (
	"errors"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// A key of a request stands for one content, for longer than the keys of its messages, and for each client apart.
func TestClaim(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	shop, bank := &Key{Name: "shop"}, &Key{Name: "bank"}
	inTenDays := time.Now().Add(240 * time.Hour)
	claim := func(key *Key, content string, due time.Time) error {
		return h.submitter.Claim(t.Context(), key, "k", []byte(content), due)
	}
	for _, due := range []time.Time{inTenDays, {}} { // the longer time stays
		if err := claim(shop, "a", due); err != nil {
			t.Fatal(err)
		}
		ttl := h.redis.Client(t).TTL(t.Context(), wire.RequestKey(digest("shop", "k"))).Val()
		if days := ttl.Hours() / 24; days < 40 || days > 42 {
			t.Errorf("kept for %.1f days, want 10, 30 and the window", days)
		}
	}
	var other *mailer.IdempotencyError
	if err := claim(shop, "b", inTenDays); !errors.As(err, &other) || mailer.ClassOf(err) != mailer.Permanent {
		t.Errorf("another content: %v", err)
	}
	if err := claim(bank, "b", inTenDays); err != nil {
		t.Errorf("another client: %v", err)
	}
}

// Messages of a batch are grouped by how they are handed over, and what is wrong with one is known before any is.
func TestBatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	key := &Key{Name: "shop", From: Senders{"example.com"}, Choices: Choices()}
	tagged := mailer.Options{Tags: []string{"a"}}
	items := []Item{
		{message(), mailer.Options{}}, {message(), tagged}, {message(), mailer.Options{}}, {message(), mailer.Options{Tags: []string{"a"}}},
		{message(), mailer.Options{ProcessIn: time.Hour}}, {message(), mailer.Options{IdempotencyKey: OneOf("k", 5)}},
		{message(), mailer.Options{Using: "nobody"}}, {&mailer.EmailMessage{FromEmail: "a@example.org"}, mailer.Options{}}, {message(), mailer.Options{}},
	}
	items[8].Message.Subject = "a\nb"
	b := h.submitter.Prepare(t.Context(), key, items)
	for i, r := range b.Results() {
		if (r.Err != nil) != (i >= 6) || r.ID != "" {
			t.Errorf("%d: %+v", i, r)
		}
	}
	client := h.redis.Client(t)
	if n := len(client.Keys(t.Context(), "asynq:*:t:*").Val()); n != 0 {
		t.Errorf("%d tasks before the batch is handed over", n)
	}
	if err := b.Submit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, r := range b.Results()[:6] {
		if s, err := h.submitter.Status(t.Context(), key, r.ID); err != nil || s.State == tasks.StateUnknown {
			t.Errorf("%d: %+v, %v", i, r, err)
		}
	}
	if n := len(client.Keys(t.Context(), "asynq:*:t:*").Val()); n != 4 {
		t.Errorf("%d tasks, want two of two messages and two of one", n)
	}
}

// Who may not choose the schedule may not change it.
func TestReschedule(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	may, mayNot := &Key{Name: "shop", Choices: Choices()}, &Key{Name: "shop"}
	id, at := h.submit(may, message(), mailer.Options{}), time.Now().Add(time.Hour)
	var no *NotAllowedError
	if err := h.submitter.Reschedule(t.Context(), mayNot, id, at); !errors.As(err, &no) || no.Field != "schedule" {
		t.Errorf("%v, want that it is not allowed", err)
	}
	if err := h.submitter.Reschedule(t.Context(), may, id, at); err != nil {
		t.Error(err)
	}
	if err := h.submitter.Reschedule(t.Context(), &Key{Name: "bank", Choices: Choices()}, id, at); !errors.Is(err, ErrNotFound) {
		t.Errorf("another client: %v", err)
	}
	if s, err := h.submitter.Status(t.Context(), may, id); err != nil || s.State != tasks.StateScheduled {
		t.Errorf("%+v, %v", s, err)
	}
}
