package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

const soon = `{"scheduled_at":"2099-12-24T18:00:00Z"}`

// A client sees, cancels and reschedules its own mail alone. Of that of another one it is told what it is told of mail that is not there.
func TestOwn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	foreign, err := h.queue.Enqueue(t.Context(), &mailer.EmailMessage{FromEmail: "a@example.com", To: []string{"b@example.net"}, Body: "x"}) // of no client
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{
		h.send(hello), h.send(hello, headerKey, "k"), h.send(strings.TrimSuffix(hello, "}") + `,"scheduled_at":"in 1 hour"}`),
		h.batch(emails(2, nil), "", "").ids()[1], h.batch(emails(2, nil), "k", "").ids()[1],
	}
	asks := []request{
		{method: http.MethodGet, path: "/emails/ID"},
		{method: http.MethodPost, path: "/emails/ID/cancel"},
		{method: http.MethodPatch, path: "/emails/ID", body: soon},
	}
	var nothing string
	for _, id := range append([]string{"NOBODY"}, ids...) {
		for _, ask := range asks {
			ask.secret, ask.path = h.other, strings.ReplaceAll(ask.path, "ID", id)
			a := h.do(ask)
			if nothing == "" {
				nothing = a.raw
			}
			if a.status != http.StatusNotFound || a.raw != nothing {
				t.Errorf("%s %s: %d %s", ask.method, ask.path, a.status, a.raw)
			}
		}
	}
	for _, ask := range asks {
		ask.path = strings.ReplaceAll(ask.path, "ID", foreign)
		if a := h.do(ask); a.status != http.StatusNotFound {
			t.Errorf("%s of no client: %d %s", ask.method, a.status, a.raw)
		}
	}
	for i, id := range ids {
		if a := h.do(request{method: http.MethodGet, path: "/emails/" + id}); a.status != http.StatusOK || a.id() != id {
			t.Errorf("its own: %d %s", a.status, a.raw)
		}
		later := h.do(request{method: http.MethodPatch, path: "/emails/" + id, body: soon})
		if inBulk := i == 3; inBulk && (later.status != http.StatusConflict || later.text("name") != nameTooLate) || !inBulk && later.status != http.StatusOK {
			t.Errorf("another time: %d %s", later.status, later.raw)
		}
		if a := h.do(request{method: http.MethodPost, path: "/emails/" + id + "/cancel"}); a.status != http.StatusOK || a.text("object") != "email" || a.id() != id {
			t.Errorf("cancelled: %d %s", a.status, a.raw)
		}
	}
}

// What Resend's SDKs send for another time is understood, and what is wrong is named.
func TestUpdate(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	id := h.send(hello)
	tests := []struct {
		name, body string
		status     int
		field      string
	}{
		{"a time", `{"scheduled_at":"2099-12-24T18:00:00Z"}`, 200, ""},
		{"with its ID", `{"id":"` + id + `","scheduled_at":"in 2 hours"}`, 200, ""},
		{"with another ID", `{"id":"x","scheduled_at":"in 2 hours"}`, 422, "id"},
		{"no time", `{}`, 422, "scheduled_at"},
		{"a time in words", `{"scheduled_at":"noon"}`, 422, "scheduled_at"},
		{"unknown", `{"scheduled_at":"in 2 hours","subject":"x"}`, 422, "subject"},
		{"no JSON", ``, 400, "body"},
	}
	for _, tt := range tests {
		a := h.do(request{method: http.MethodPatch, path: "/emails/" + id, body: tt.body})
		if a.status != tt.status || a.text("field") != tt.field {
			t.Errorf("%s: %d %s", tt.name, a.status, a.raw)
		}
	}
	a := h.do(request{method: http.MethodGet, path: "/emails/" + id})
	at, err := time.Parse(time.RFC3339, a.text("scheduled_at"))
	if in := time.Until(at); err != nil || in < 110*time.Minute || in > 2*time.Hour || a.text("last_event") != "scheduled" {
		t.Errorf("%s", a.raw)
	}
}

// What became of an email is said in Resend's words and in ours, also when only the history knows it.
func TestRetrieve(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	body := func(to string) string { return strings.ReplaceAll(hello, "ann@", to+"@") }
	ids := map[string]string{}
	for _, name := range []string{"sent", "refused", "later", "kept"} {
		ids[name] = h.send(body(name), map[string][]string{"kept": {headerKey, "k"}}[name]...)
	}
	inAnHour := func(to string) string { return strings.TrimSuffix(body(to), "}") + `,"scheduled_at":"in 1 hour"}` }
	ids["cancelled"], ids["taken"] = h.send(inAnHour("cancelled"), headerKey, "k2"), h.send(inAnHour("taken"))
	ids["bulk"] = h.batch(emails(2, nil), "", "").ids()[1]
	r := &relay{answer: func(m *mailer.EmailMessage) mailer.Result {
		switch to := m.To[0]; {
		case strings.HasPrefix(to, "refused"):
			return mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Text: "no such user"}}
		case strings.HasPrefix(to, "later"):
			return mailer.Result{Err: &mailer.SendError{Class: mailer.Temporary, Step: mailer.StepRcpt, Code: 451, Text: "greylisted"}}
		}
		return mailer.Result{Reply: "250 2.0.0 Ok: queued as 4F0"}
	}}
	h.work(r)
	tests := []struct{ name, event, state, reply, to, subject string }{
		{"sent", "sent", "sent", "250 2.0.0 Ok: queued as 4F0", "***@example.net", ""},
		{"bulk", "sent", "sent", "250 2.0.0 Ok: queued as 4F0", "***@example.net", ""},
		{"kept", "sent", "sent", "250 2.0.0 Ok: queued as 4F0", "kept@example.net", "Hello"},
		{"refused", "failed", "dead letter", "550 no such user (RCPT)", "refused@example.net", "Hello"},
		{"later", "delivery_delayed", "retry", "451 greylisted (RCPT)", "later@example.net", "Hello"},
		{"cancelled", "canceled", "cancelled", "", "***@example.net", ""},
		{"taken", "canceled", "cancelled", "", "***@example.net", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.state == "cancelled" { // the workers have said by now that a history is kept
				h.do(request{method: http.MethodPost, path: "/emails/" + ids[tt.name] + "/cancel"})
			}
			var a answer
			h.eventually(tt.state, func() bool {
				a = h.do(request{method: http.MethodGet, path: "/emails/" + ids[tt.name]})
				return a.text("state") == tt.state && (a.body["ended_at"] != nil) == (tt.state != "retry")
			})
			to, _ := a.body["to"].([]any)
			if a.text("last_event") != tt.event || a.text("reply") != tt.reply || len(to) != 1 || a.text("subject") != tt.subject {
				t.Errorf("%s", a.raw)
			}
			if got, _ := to[0].(string); got != tt.to && (!strings.HasPrefix(tt.to, "***") || !strings.Contains(got, "***")) {
				t.Errorf("to %q, want %q", got, tt.to)
			}
		})
	}
	for _, name := range []string{"sent", "kept", "refused", "later", "bulk"} {
		want := http.StatusConflict
		if name == "sent" || name == "bulk" { // there is nothing left of it but the history
			want = http.StatusNotFound
		}
		if a := h.do(request{method: http.MethodPatch, path: "/emails/" + ids[name], body: soon}); a.status != want {
			t.Errorf("%s: another time: %d %s, want %d", name, a.status, a.raw, want)
		}
	}
}

// An ID that cannot be one is looked for nowhere: a Message-ID would be, for a long time.
func TestRetrieve_noID(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	h.send(hello)
	m := h.only("default")
	for _, id := range []string{strings.Trim(m.MessageID, "<>"), "%2A", "a%2Fb", "..%2F..", strings.Repeat("a", 301), "a%20b"} {
		if a := h.do(request{method: http.MethodGet, path: "/emails/" + id}); a.status != http.StatusNotFound || a.text("name") != nameNotFound {
			t.Errorf("%s: %d %s", id, a.status, a.raw)
		}
	}
}

// While a worker has an email it is too late for another time, and on the wire it is too late to cancel it.
func TestCancel_tooLate(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	id := h.send(hello)
	reached, free := make(chan struct{}), make(chan struct{})
	h.work(&relay{answer: func(*mailer.EmailMessage) mailer.Result {
		close(reached)
		<-free
		return mailer.Result{Reply: "250 ok"}
	}})
	defer close(free)
	<-reached
	for _, ask := range []request{{method: http.MethodPost, path: "/emails/" + id + "/cancel"}, {method: http.MethodPatch, path: "/emails/" + id, body: soon}} {
		if a := h.do(ask); a.status != http.StatusConflict || a.text("name") != nameTooLate {
			t.Errorf("%s: %d %s", ask.method, a.status, a.raw)
		}
	}
}

// A worker delivers what was handed in, and sends it at the time that it got later.
func TestWholePath(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	id := h.send(strings.TrimSuffix(hello, "}") + `,"scheduled_at":"in 1 hour"}`)
	r := new(relay)
	h.work(r)
	if a := h.do(request{method: http.MethodPatch, path: "/emails/" + id, body: `{"scheduled_at":"in 0 sec"}`}); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	h.eventually("it is sent", func() bool { return r.count() == 1 })
}
