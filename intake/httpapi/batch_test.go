package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/mailer"
)

// emails are n of them, numbered, each with more fields if more says so.
func emails(n int, more func(i int) string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"from":"shop@example.com","to":"u%d@example.net","subject":"No. %d","text":"It works."`, i, i)
		if more != nil {
			list[i] += more(i)
		}
		list[i] += "}"
	}
	return "[" + strings.Join(list, ",") + "]"
}

func (h *house) batch(body, key, validation string) answer {
	h.t.Helper()
	header := map[string]string{}
	if key != "" {
		header[headerKey] = key
	}
	if validation != "" {
		header[headerValidation] = validation
	}
	return h.do(request{method: http.MethodPost, path: "/emails/batch", body: body, header: header})
}

// ids are the IDs of what was handed over in a batch.
func (a answer) ids() (ids []string) {
	data, _ := a.body["data"].([]any)
	for _, one := range data {
		object, _ := one.(map[string]any)
		id, _ := object["id"].(string)
		ids = append(ids, id)
	}
	return ids
}

// subject is what the message with an ID is about.
func (h *house) subject(id string) string {
	h.t.Helper()
	_, m, err := h.queue.Message(h.t.Context(), id)
	if err != nil || m == nil {
		h.t.Fatalf("%s: %v, %v", id, m, err)
	}
	return m.Subject
}

// inOrder checks that the IDs are those of the emails of a batch.
func (h *house) inOrder(ids []string, n int) {
	h.t.Helper()
	if len(ids) != n {
		h.t.Fatalf("%d IDs, want %d", len(ids), n)
	}
	for i, id := range ids {
		if got := h.subject(id); got != fmt.Sprintf("No. %d", i) {
			h.t.Errorf("the email %d is %s, about %q", i, id, got)
		}
	}
}

// Emails without a key travel together where they may, and each alone that has another time.
func TestBatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	a := h.batch(emails(100, nil), "", "")
	h.inOrder(a.ids(), 100)
	if n := h.tasks(); n != 1 || a.body["errors"] != nil {
		t.Errorf("%d tasks, want one: %.200s", n, a.raw)
	}
	a = h.batch(emails(30, func(i int) string {
		switch i % 3 {
		case 0:
			return `,"scheduled_at":"in 1 hour"`
		case 1:
			return `,"tags":[{"name":"a","value":"b"}]`
		}
		return ""
	}), "", "strict")
	h.inOrder(a.ids(), 30)
	if n := h.tasks(); n != 1+10+2 {
		t.Errorf("%d tasks, want one, 10 that are scheduled, and two", n)
	}
	scheduled := a.ids()[3]
	later := h.do(request{method: http.MethodPatch, path: "/emails/" + scheduled, body: `{"scheduled_at":"2099-12-24T18:00:00Z"}`})
	if later.status != http.StatusOK {
		t.Errorf("another time for one of a batch: %d %s", later.status, later.raw)
	}
}

// In a strict batch one email that is wrong keeps all others from being handed over; in a permissive one it is named.
func TestBatch_validation(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, func(k *intake.Key) { k.From = intake.Senders{"example.com"} })
	body := strings.NewReplacer(`"to":"u1@example.net"`, `"to":"u1@"`, `"to":"u2@example.net"`, `"template":{"id":"x"},"to":"a@example.net"`,
		`"from":"shop@example.com","to":"u3@example.net"`, `"from":"ceo@example.org","to":"u3@example.net"`, `"to":"u4@example.net"`, `"to":7`).Replace(emails(6, nil))
	for _, key := range []string{"", "k"} {
		a := h.batch(body, key, "")
		if a.status != http.StatusUnprocessableEntity || a.text("field") != "[1].to[0]" || !strings.HasPrefix(a.text("message"), "[1].to[0]: ") || h.tasks() != 0 {
			t.Errorf("strict: %d %s, and %d tasks", a.status, a.raw, h.tasks())
		}
	}
	a := h.batch(body, "k", "permissive") // which nothing was noted for
	if a.status != http.StatusOK || len(a.ids()) != 2 || h.subject(a.ids()[0]) != "No. 0" || h.subject(a.ids()[1]) != "No. 5" {
		t.Fatalf("permissive: %d %s", a.status, a.raw)
	}
	var got []string
	failures, _ := a.body["errors"].([]any)
	for _, f := range failures {
		e, _ := f.(map[string]any)
		got = append(got, fmt.Sprint(e["index"], " ", e["name"], " ", e["field"]))
	}
	want := []string{"1 validation_error [1].to[0]", "2 not_supported [2].template", "3 validation_error [3].from", "4 validation_error [4].to"}
	if !slices.Equal(got, want) {
		t.Errorf("errors %q, want %q", got, want)
	}
	if a := h.batch(emails(1, nil), "", "permissive"); a.status != http.StatusOK || !strings.Contains(a.raw, `"errors":[]`) {
		t.Errorf("nothing is wrong: %d %s", a.status, a.raw)
	}
	if a := h.batch(emails(1, nil), "", "lenient"); a.status != http.StatusUnprocessableEntity || a.text("field") != headerValidation {
		t.Errorf("another validation: %d %s", a.status, a.raw)
	}
	for _, body := range []string{"[]", emails(101, nil), "{}", "null"} {
		if a := h.batch(body, "", ""); a.status != http.StatusUnprocessableEntity || a.text("field") != "body" {
			t.Errorf("%.20s: %d %s", body, a.status, a.raw)
		}
	}
}

// cut makes a client's Redis fail after so many scripts.
type cut struct {
	left  atomic.Int64
	after bool // the script runs, and its answer is lost
}

func (c *cut) DialHook(next redis.DialHook) redis.DialHook { return next }
func (c *cut) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *cut) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), "eval") || c.left.Add(-1) >= 0 {
			return next(ctx, cmd)
		}
		if c.after {
			_ = next(ctx, cmd)
		}
		err := &net.OpError{Op: "read", Net: "tcp", Err: errors.New("cut off")}
		cmd.SetErr(err)
		return err
	}
}

// A batch with a key that was cut off is completed by the same request, with the IDs that the emails have already. Another request with that key is
// refused from the beginning on.
func TestBatch_key(t *testing.T) {
	t.Parallel()
	const n, never = 40, 1 << 40
	body := emails(n, func(i int) string { return strings.Repeat(`,"tags":[{"name":"odd"}]`, i%2) })
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprint("lost answers ", after), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, Config{}, nil)
			c := &cut{after: after}
			c.left.Store(never)
			h.client.(*redis.Client).AddHook(c)
			h.batch(emails(1, nil), "warm", "") // the scripts are known now
			before := h.tasks()
			c.left.Store(1) // the key is noted, and nothing else
			if a := h.batch(body, "k", ""); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Fatalf("%d %s, want that it may be tried again", a.status, a.raw)
			}
			c.left.Store(never)
			if a := h.batch(strings.Replace(body, "works", "fails", 1), "k", ""); a.status != http.StatusConflict || a.text("name") != nameIdempotentRequest {
				t.Fatalf("another request: %d %s", a.status, a.raw)
			}
			c.left.Store(3) // some are handed over
			half := h.batch(body, "k", "")
			if got := h.tasks() - before; half.status != http.StatusServiceUnavailable || got == 0 || got == n && !after {
				t.Errorf("%d tasks and %d, want a part of them", got, half.status)
			}
			done := map[int]string{}
			list, _ := half.body["queued"].([]any)
			for _, one := range list {
				q, _ := one.(map[string]any)
				done[int(q["index"].(float64))], _ = q["id"].(string)
			}
			c.left.Store(never)
			whole := h.batch(strings.ReplaceAll(body, `,"text"`, ` , "text"`), "k", "")
			h.inOrder(whole.ids(), n)
			for i, id := range done {
				if whole.ids()[i] != id {
					t.Errorf("the email %d was %s, and is %s", i, id, whole.ids()[i])
				}
			}
			if got := h.tasks() - before; got != n {
				t.Errorf("%d tasks, want %d; %d were known of the half one", got, n, len(done))
			}
			again := h.batch(body, "k", "permissive")
			if !slices.Equal(again.ids(), whole.ids()) {
				t.Errorf("again: %s", again.raw)
			}
		})
	}
}

// What is put off for longer than a time.Duration can say has a key like any other.
func TestBatch_farAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	body := emails(2, func(int) string { return `,"scheduled_at":"9999-12-31T23:59:59Z"` })
	first := h.batch(body, "k", "")
	h.inOrder(first.ids(), 2)
	if again := h.batch(body, "k", ""); !slices.Equal(again.ids(), first.ids()) {
		t.Errorf("%s, want %q again", again.raw, first.ids())
	}
}

// Many at the same time with one key are one.
func TestBatch_sameTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	var all sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		all.Go(func() { answers[i] = h.batch(emails(20, nil), "k", "") })
	}
	all.Wait()
	for _, a := range answers {
		if a.status != http.StatusOK || !slices.Equal(a.ids(), answers[0].ids()) {
			t.Errorf("%d %s", a.status, a.raw)
		}
	}
	if n := h.tasks(); n != 20 {
		t.Errorf("%d tasks, want 20", n)
	}
}

// A batch without a key that was queued in part says which part that is, and that the whole must not be made again.
func TestBatch_inPart(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	c := new(cut)
	c.left.Store(1 << 40)
	h.client.(*redis.Client).AddHook(c)
	body := emails(30, func(i int) string { return fmt.Sprintf(`,"scheduled_at":"in %d hours"`, 1+i) })
	h.batch(body, "", "")
	before := h.tasks()
	c.left.Store(12)
	a := h.batch(body, "", "")
	list, _ := a.body["queued"].([]any)
	if a.status != http.StatusGatewayTimeout || a.text("name") != nameMayBeQueued || a.header.Get("Retry-After") != "" || len(list) != 12 || h.tasks() != before+12 {
		t.Errorf("%d %s, and %d tasks", a.status, a.raw, h.tasks()-before)
	}
}

// Emails of a batch that have become dead letters are what they were.
func TestBatch_deadLetter(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	a := h.batch(emails(3, nil), "k", "")
	r := &relay{answer: func(m *mailer.EmailMessage) mailer.Result {
		if m.Subject == "No. 1" {
			return mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Text: "no such user"}}
		}
		return mailer.Result{Reply: "250 ok"}
	}}
	h.work(r)
	h.eventually("a dead letter", func() bool {
		return h.do(request{method: http.MethodGet, path: "/emails/" + a.ids()[1]}).text("state") == "dead letter"
	})
	if again := h.batch(emails(3, nil), "k", ""); again.status != http.StatusOK || !slices.Equal(again.ids(), a.ids()) {
		t.Errorf("%d %s", again.status, again.raw)
	}
}
