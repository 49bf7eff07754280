package intake

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// house is a Redis with a queue, and a Submitter for it.
type house struct {
	t         *testing.T
	redis     *redistest.Server
	submitter *Submitter
}

func newHouse(t *testing.T, opts redistest.Options) *house {
	t.Helper()
	server := redistest.Start(t, opts)
	client, err := tasks.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &house{t, server, New(client, tasks.NewQueue(client, tasks.QueueConfig{Mailers: []string{"marketing", "alerts"}}), new(Keys))}
}

func message() *mailer.EmailMessage {
	return &mailer.EmailMessage{Subject: "Hello", Body: "It works.", FromEmail: "shop@example.com", To: []string{"ann@example.net"}}
}

// submit hands a message in that has to be accepted.
func (h *house) submit(key *Key, m *mailer.EmailMessage, o mailer.Options) (id string) {
	h.t.Helper()
	id, err := h.submitter.Submit(h.t.Context(), key, m, o)
	if err != nil || id == "" {
		h.t.Fatalf("ID %q, %v", id, err)
	}
	return id
}

func TestSubmit(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	key := &Key{Name: "shop", From: Senders{"example.com"}, Mailer: "marketing", Queue: "bulk", Choices: Choices()}
	status := func(id string) tasks.Status {
		t.Helper()
		s, err := h.submitter.Status(t.Context(), key, id)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := status(h.submit(key, message(), mailer.Options{})); s.Queue != "bulk" || s.Mailer != "marketing" || !slices.Equal(s.Tags, []string{"api-key:shop"}) {
		t.Errorf("%+v, want what the key says", s)
	}
	chosen := mailer.Options{Queue: "critical", Using: "alerts", Tags: []string{"order"}, Mailing: "spring", ProcessIn: time.Hour}
	s := status(h.submit(key, message(), chosen))
	if s.Queue != "critical" || s.Mailer != "alerts" || s.Mailing != "spring" || s.State != tasks.StateScheduled || !slices.Equal(s.Tags, []string{"order", "api-key:shop"}) {
		t.Errorf("%+v, want what was chosen", s)
	}
	if !slices.Equal(chosen.Tags, []string{"order"}) {
		t.Error("the client's options were changed")
	}
}

// What a key does not let its client do is refused by name, and nothing is queued.
func TestSubmit_notAllowed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	key := &Key{Name: "shop", From: Senders{"example.com"}}
	from := func(address string) *mailer.EmailMessage {
		m := message()
		m.FromEmail = address
		return m
	}
	header := message()
	header.Headers = map[string]string{"From": "ceo@example.org"}
	raw := &mailer.EmailMessage{FromEmail: "a@example.com", To: []string{"b@example.net"}, Raw: []byte("From: a@example.com\r\nFrom: b@example.org\r\n\r\nx")}
	null := func(header string) *mailer.EmailMessage {
		return &mailer.EmailMessage{To: []string{"b@example.net"}, Headers: map[string]string{"Return-Path": "<>"}, Raw: []byte(header + "Subject: x\r\n\r\nx")}
	}
	tests := []struct {
		name    string
		key     *Key
		m       *mailer.EmailMessage
		options mailer.Options
		field   string
	}{
		{"sender", key, from("a@example.org"), mailer.Options{}, "from"},
		{"a field", key, header, mailer.Options{}, "from"},
		{"no sender", key, null(""), mailer.Options{}, "from"},
		{"no sender but in the envelope", key, &mailer.EmailMessage{To: []string{"b@example.net"}, VERP: "bounces@example.com"}, mailer.Options{}, "from"},
		{"null sender, from another one", key, null("From: b@example.org\r\n"), mailer.Options{}, "from"},
		{"a second field", key, raw, mailer.Options{}, "from"},
		{"queue", key, message(), mailer.Options{Queue: "critical"}, "queue"},
		{"mailer", key, message(), mailer.Options{Using: "alerts"}, "mailer"},
		{"mailing", key, message(), mailer.Options{Mailing: "spring"}, "mailing"},
		{"tags", key, message(), mailer.Options{Tags: []string{"a"}}, "tags"},
		{"schedule", key, message(), mailer.Options{ProcessIn: time.Hour}, "schedule"},
		{"schedule at", key, message(), mailer.Options{ProcessAt: time.Now()}, "schedule"},
		{"another key's tag", &Key{Name: "shop", Choices: Choices()}, message(), mailer.Options{Tags: []string{"api-key:bank"}}, "tags"},
		{"a key's tag without a key", nil, message(), mailer.Options{Tags: []string{"api-key:bank"}}, "tags"},
	}
	for _, tt := range tests {
		var no *NotAllowedError
		if id, err := h.submitter.Submit(t.Context(), tt.key, tt.m, tt.options); !errors.As(err, &no) || no.Field != tt.field || id != "" {
			t.Errorf("%s: %q, %v, want that %s is not allowed", tt.name, id, err, tt.field)
		}
	}
	for _, from := range []string{"From: ceo@example.org:;\r\n", "From: (ceo@example.org)\r\n"} {
		if id, err := h.submitter.Submit(t.Context(), key, null(from), mailer.Options{}); !mailer.IsBadInput(err) || id != "" {
			t.Errorf("%q: %q, %v, want that it is nobody", from, id, err)
		}
	}
	if n := h.redis.Client(t).DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("Redis has %d keys, want none", n)
	}
	h.submit(key, null("From: a@example.com\r\n"), mailer.Options{}) // a report, which nobody is to answer
}

// The same idempotency key of two clients is two.
func TestSubmit_idempotencyKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	shop, bank := &Key{Name: "shop"}, &Key{Name: "bank"}
	for _, word := range []string{"order-7", strings.Repeat("a", 255)} {
		o := mailer.Options{IdempotencyKey: word}
		first := h.submit(shop, message(), o)
		if again := h.submit(shop, message(), o); again != first {
			t.Errorf("%s, want %s again", again, first)
		}
		if other := h.submit(bank, message(), o); other == first {
			t.Error("two clients share an idempotency key")
		}
		if other := h.submit(nil, message(), o); other == first {
			t.Error("a client without a key shares that of one with")
		}
		changed := message()
		changed.Body = "It does not."
		var conflict *mailer.IdempotencyError
		if _, err := h.submitter.Submit(t.Context(), shop, changed, o); !errors.As(err, &conflict) {
			t.Errorf("%v, want an IdempotencyError", err)
		}
	}
}

// A client sees and cancels what it has handed in, and nothing else.
func TestOwn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	shop, bank := &Key{Name: "shop", Queue: "bulk", Mailer: "marketing"}, &Key{Name: "bank"}
	id := h.submit(shop, message(), mailer.Options{})
	for name, do := range map[string]func(*Key, string) error{
		"status": func(k *Key, id string) error { _, err := h.submitter.Status(t.Context(), k, id); return err },
		"cancel": func(k *Key, id string) error { return h.submitter.Cancel(t.Context(), k, id) },
	} {
		if err := do(bank, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s by another client: %v", name, err)
		}
		if err := do(shop, "nothing"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
	if err := h.submitter.Cancel(t.Context(), shop, id); err != nil {
		t.Fatal(err)
	}
	if s, err := h.submitter.Status(t.Context(), shop, id); err == nil && s.State != tasks.StateCancelled {
		t.Errorf("%+v, want that it is cancelled", s)
	}
	// Who knows how IDs are made of keys can guess them. Whether they are there is not looked for.
	long := &Key{Name: strings.Repeat("a-b", 16)}
	ids := map[*Key]string{shop: "", bank: "", long: ""}
	for key := range ids {
		ids[key] = h.submit(key, message(), mailer.Options{IdempotencyKey: "order-7"})
		if _, err := h.submitter.Status(t.Context(), key, ids[key]); err != nil {
			t.Errorf("%s of %s: %v", ids[key], key.Name, err)
		}
	}
	h.redis.Stop()
	for key := range ids {
		for of, id := range ids {
			if _, err := h.submitter.Status(t.Context(), key, id); errors.Is(err, ErrNotFound) != (key != of) {
				t.Errorf("%s, asked for by %s: %v", id, key.Name, err)
			}
		}
		if _, err := h.submitter.Status(t.Context(), key, "unique-aaaaaaaaaaaaaaaaaaaaaaaa"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", key.Name, err)
		}
	}
}

// The rate of a key is one for all processes. What is too much waits a little, and is then refused with when to come again.
func TestSubmit_rate(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	key := &Key{Name: "shop"}
	if err := key.Rate.UnmarshalText([]byte("2/d")); err != nil {
		t.Fatal(err)
	}
	h.submit(key, message(), mailer.Options{})
	other := New(h.submitter.redis, h.submitter.queue, new(Keys))
	if _, err := other.Submit(t.Context(), key, message(), mailer.Options{}); err != nil {
		t.Fatal(err)
	}
	var over *RateError
	if _, err := h.submitter.Submit(t.Context(), key, message(), mailer.Options{}); !errors.As(err, &over) || over.RetryAfter < time.Second || over.Rate != "2/d" {
		t.Errorf("%v, want a RateError", err)
	}
	h.submit(&Key{Name: "bank", Rate: key.Rate}, message(), mailer.Options{}) // has its own
	key = &Key{Name: "shop"}
	_ = key.Rate.UnmarshalText([]byte("3/d")) // the operator has raised it
	h.submit(key, message(), mailer.Options{})
}

func TestSubmit_redisFull(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	client := h.redis.Client(t)
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := h.submitter.Submit(t.Context(), &Key{Name: "shop"}, message(), mailer.Options{})
	if !IsFull(err) || mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("%v of class %v, want that Redis is full", err, mailer.ClassOf(err))
	}
	if IsFull(nil) || IsFull(errors.New("OOM")) {
		t.Error("another error is that Redis is full")
	}
	limited := &Key{Name: "shop"}
	_ = limited.Rate.UnmarshalText([]byte("100/s"))
	if _, err := h.submitter.Submit(t.Context(), limited, message(), mailer.Options{}); !IsFull(err) || mailer.ClassOf(err) != mailer.Unavailable {
		t.Errorf("%v of class %v, want that Redis is full", err, mailer.ClassOf(err))
	}
}
