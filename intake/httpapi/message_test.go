package httpapi

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/tasks"
)

const (
	ownJSON  = `{"from_email":"shop@example.com","to":["ann@example.net"],"subject":"Hello","body":"It works."}`
	finished = "From: Shop <shop@example.com>\r\nTo: ann@example.net\r\nBcc: eve@example.net\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-A: b\r\n\r\nIt works.\r\n"
)

func (h *house) message(kind, parameters, body string) answer {
	h.t.Helper()
	return h.do(request{method: http.MethodPost, path: "/messages" + parameters, body: body, header: map[string]string{"Content-Type": kind}})
}

// Our own JSON, and a finished message, are handed over as they are.
func TestMessage(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	if a := h.message(typeJSON, "", ownJSON); a.status != http.StatusOK || h.subject(a.id()) != "Hello" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	a := h.message(typeMessage, "", finished)
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	_, m, err := h.queue.Message(t.Context(), a.id())
	if err != nil || string(m.Raw) != finished || m.FromEmail != "shop@example.com" || !slices.Equal(m.To, []string{"ann@example.net", "eve@example.net"}) {
		t.Errorf("%+v, %v, want its bytes and the envelope of its header", m, err)
	}
	if s := h.do(request{method: http.MethodGet, path: "/emails/" + a.id()}); s.text("subject") != "Grüße" || s.text("from") != "shop@example.com" {
		t.Errorf("%s", s.raw)
	}
	// The query's envelope counts, not the header's.
	q := url.Values{"from": {"bounces@example.com"}, "to": {"bob@example.net", "joe@example.net"}}
	a = h.message(typeMessage+"; charset=utf-8", "?"+q.Encode(), finished)
	if _, m, err = h.queue.Message(t.Context(), a.id()); err != nil || m.FromEmail != "bounces@example.com" || !slices.Equal(m.To, q["to"]) || string(m.Raw) != finished {
		t.Errorf("%+v, %v, want the envelope of the query", m, err)
	}
}

// What the query chooses is so, if the key lets its client choose.
func TestMessage_options(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, func(k *intake.Key) { k.Choices = intake.Choices() })
	q := url.Values{"queue": {"bulk"}, "mailer": {"marketing"}, "mailing": {"july"}, "tag": {"a", "b:c"}, "process_in": {"90m"},
		"deadline": {time.Now().Add(24 * time.Hour).Format(time.RFC3339)}, "max_retry": {"3"}, "at_most_once": {"true"}}
	a := h.message(typeJSON, "?"+q.Encode(), ownJSON)
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	s, _, err := h.queue.Message(t.Context(), a.id())
	if err != nil || s.Queue != "bulk" || s.Mailer != "marketing" || s.Mailing != "july" || s.State != tasks.StateScheduled || !slices.Equal(s.Tags, []string{"a", "b:c", "api-key:shop"}) {
		t.Errorf("%+v, %v", s, err)
	}
	tests := []struct {
		query, field, name string
		status             int
	}{
		{"?queue=critical", "queue", nameRestrictedKey, 403},
		{"?mailer=marketing", "mailer", nameRestrictedKey, 403},
		{"?mailing=july", "mailing", nameRestrictedKey, 403},
		{"?tag=api-key:shop", "tags", nameRestrictedKey, 403},
		{"?process_at=noon", "process_at", nameValidation, 422},
		{"?process_in=-1h", "process_in", nameValidation, 422},
		{"?process_in=1h&process_at=2099-01-01T00:00:00Z", "process_in", nameValidation, 422},
		{"?max_retry=many", "max_retry", nameValidation, 422},
		{"?max_retry=9223372036854775807", "max_retry", nameValidation, 422},
		{"?at_most_once=1", "at_most_once", nameValidation, 422},
		{"?deadline=2020-01-01T00:00:00Z", "deadline", nameValidation, 422},
		{"?queue=a&queue=b", "queue", nameValidation, 422},
		{"?retention=1000h", "retention", nameValidation, 422},
		{"?Queue=a", "Queue", nameValidation, 422},
		{"?to=bob@example.net", "to", nameValidation, 422}, // in JSON it is a field
		{"?tag=" + url.QueryEscape("a\nb"), "tags", nameValidation, 422},
	}
	for _, tt := range tests {
		a := h.do(request{method: http.MethodPost, path: "/messages" + tt.query, body: ownJSON, secret: h.other})
		if a.status != tt.status || a.text("field") != tt.field || a.text("name") != tt.name {
			t.Errorf("%s: %d %s, want %d, %s and the field %s", tt.query, a.status, a.raw, tt.status, tt.name, tt.field)
		}
	}
	for _, query := range []string{"?mailer=nobody", "?queue=" + url.QueryEscape("a b")} {
		if a := h.message(typeJSON, query, ownJSON); a.status != http.StatusUnprocessableEntity || !strings.Contains(query, a.text("field")) {
			t.Errorf("%s: %d %s", query, a.status, a.raw)
		}
	}
	if n := h.tasks(); n != 1 {
		t.Errorf("%d tasks, want one", n)
	}
}

func TestMessage_refused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, func(k *intake.Key) { k.From = intake.Senders{"example.com"} })
	tests := []struct {
		name, kind, query, body, field string
		status                         int
	}{
		{"no JSON", typeJSON, "", "{", "message", 422},
		{"unknown", typeJSON, "", `{"from":"a@example.com"}`, "from", 422},
		{"no sender", typeJSON, "", `{"to":["a@example.net"]}`, "from_email", 422},
		{"no recipient", typeJSON, "", `{"from_email":"a@example.com"}`, "to", 422},
		{"a sender without a domain", typeJSON, "", `{"from_email":"shop","to":["a@example.net"]}`, "from_email", 422},
		{"a recipient without a domain", typeMessage, "", "From: shop@example.com\r\nTo: a@example.net, root\r\n\r\nx", "to", 422},
		{"somebody else", typeJSON, "", strings.Replace(ownJSON, "shop@example.com", "ceo@example.org", 1), "from", 403},
		{"no message", typeMessage, "", "hello", "raw", 422},
		{"no sender in it", typeMessage, "", "To: ann@example.net\r\n\r\nx", "from_email", 422},
		{"no recipient in it", typeMessage, "", "From: shop@example.com\r\n\r\nx", "to", 422},
		{"somebody else in it", typeMessage, "?from=shop@example.com", strings.Replace(finished, "shop@example.com", "ceo@example.org", 1), "from", 403},
		{"somebody else in the envelope", typeMessage, "?from=ceo@example.org", finished, "from", 403},
		{"a recipient that is none", typeMessage, "?to=" + url.QueryEscape("a@example.net\r\nRCPT TO:<b@example.net>"), finished, "to[0]", 422},
		{"another type", "message/global", "", finished, "Content-Type", 415},
	}
	for _, tt := range tests {
		if a := h.message(tt.kind, tt.query, tt.body); a.status != tt.status || a.text("field") != tt.field {
			t.Errorf("%s: %d %s, want %d and the field %s", tt.name, a.status, a.raw, tt.status, tt.field)
		}
	}
	if n := h.tasks(); n != 0 {
		t.Errorf("%d tasks, want none", n)
	}
}

// A key makes the same request the same message here too.
func TestMessage_idempotencyKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	do := func(kind, body string) answer {
		return h.do(request{method: http.MethodPost, path: "/messages", body: body, header: map[string]string{"Content-Type": kind, headerKey: kind}})
	}
	for kind, body := range map[string]string{typeJSON: ownJSON, typeMessage: finished} {
		first, again := do(kind, body), do(kind, body)
		if first.status != http.StatusOK || !reflect.DeepEqual(first.body, again.body) {
			t.Errorf("%s and %s", first.raw, again.raw)
		}
		if other := do(kind, strings.Replace(body, "works", "fails", 1)); other.status != http.StatusConflict {
			t.Errorf("another message: %d %s", other.status, other.raw)
		}
	}
}
