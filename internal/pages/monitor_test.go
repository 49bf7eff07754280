package pages

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// TestMonitor: asynqmon shows who, what and how much; no body, and no address in full, not
// even where a mail server repeats it.
func TestMonitor(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.fill()
	for path, want := range map[string]string{
		"queues/default/archived_tasks":        "User unknown",
		"queues/default/retry_tasks":           "Greylisting",
		"queues/default/scheduled_tasks":       "Reminder: invoice",
		"queues/marketing.bulk/pending_tasks":  "News of the week",
		"queues/marketing.bulk/active_tasks":   `"tasks":[]`, // what a held mailer had has gone back
		"queues/critical/retry_tasks?size=1e9": "size",
		"servers":                              "marketing.bulk",
		"queues/nowhere/pending_tasks":         "",
	} {
		reply, body := get(t, s.server, "/monitor/api/"+path)
		// Now and then one is tried, to find out whether the relay is back.
		for end := time.Now().Add(time.Minute); strings.HasSuffix(path, "/active_tasks") && !strings.Contains(body, want) && time.Now().Before(end); time.Sleep(time.Millisecond) {
			reply, body = get(t, s.server, "/monitor/api/"+path)
		}
		if !strings.Contains(body, want) {
			t.Errorf("%s: no %q in %s: %.500s", path, want, reply.Status, body)
		}
		for _, never := range []string{"nobody0@", "busy0@", "ann0@", "reader0@", "parcels@", "the-secret-body"} {
			if strings.Contains(body, never) {
				t.Errorf("%s shows %q", path, never)
			}
		}
	}
}

// TestMonitor_api: what asynqmon answers is passed on with its numbers as they are, and the
// size of a page is bounded.
func TestMonitor_api(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, query, give, want, wantSize string }{
		{"masked at any depth", "", `{"a":[{"error_message":"550 <bob@example.com>"}],"error_message":"x@y"}`, `{"a":[{"error_message":"550 \u003cb***@example.com\u003e"}],"error_message":"x***@y"}`, ""},
		{"numbers", "", `{"n":12345678901234567890,"f":0.10}`, `{"f":0.10,"n":12345678901234567890}`, ""},
		{"an error that is no text", "", `{"error_message":7}`, `{"error_message":7}`, ""},
		{"no JSON", "", "no such <queue> of bob@example.com\n", "no such <queue> of b***@example.com", ""},
		{"a big page", "?size=1000000&page=2", `{}`, `{}`, "100"},
		{"a small page", "?size=20", `{}`, `{}`, "20"},
		{"a page of letters", "?size=x", `{}`, `{}`, "x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := &monitor{turns: make(chan struct{}, 1), asynqmon: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got := r.URL.Query().Get("size"); got != tt.wantSize {
					t.Errorf("size = %q, want %q", got, tt.wantSize)
				}
				w.WriteHeader(http.StatusTeapot)
				fmt.Fprint(w, tt.give)
			})}
			reply := httptest.NewRecorder()
			m.ServeHTTP(reply, httptest.NewRequest(http.MethodGet, monitorPath+"api/x"+tt.query, nil))
			if got := strings.TrimSpace(reply.Body.String()); reply.Code != http.StatusTeapot || got != tt.want {
				t.Errorf("%d: %s\nwant %s", reply.Code, got, tt.want)
			}
			if kind := reply.Header().Get("Content-Type"); strings.Contains(kind, "html") {
				t.Errorf("it is taken for %s", kind)
			}
		})
	}
}

// Who reads much waits for others who do, and no longer than he likes.
func TestMonitor_turns(t *testing.T) {
	t.Parallel()
	reading, letGo := make(chan struct{}), make(chan struct{})
	m := &monitor{turns: make(chan struct{}, 1), asynqmon: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reading <- struct{}{}
		<-letGo
	})}
	call := func(ctx context.Context) {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, monitorPath+"api/queues", nil)
		m.ServeHTTP(httptest.NewRecorder(), r)
	}
	var calls sync.WaitGroup
	calls.Go(func() { call(t.Context()) })
	<-reading
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	call(gone) // comes back though it is not its turn
	calls.Go(func() { call(t.Context()) })
	select {
	case <-reading:
		t.Error("two read at the same time")
	default:
	}
	letGo <- struct{}{}
	<-reading
	letGo <- struct{}{}
	calls.Wait()
}

// Archive all, with more than asynq keeps: all are dead letters.
func TestMonitor_archiveAll(t *testing.T) {
	t.Parallel()
	const n = 12_000
	client := connectWorker(t, redistest.Start(t, redistest.Options{}).URL())
	queue := tasks.NewQueue(client, tasks.QueueConfig{BulkSize: 1, Defaults: mailer.Defaults{Hostname: "h.example"}})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range n / 4 {
				m := &mailer.EmailMessage{Subject: "x", FromEmail: "a@x.example", To: []string{"b@x.example"}}
				if _, err := queue.Enqueue(t.Context(), m); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	s := serve(t, Config{Redis: client, AllowWrite: true})
	reply, body := do(t, s, http.MethodPost, "/monitor/api/queues/default/pending_tasks:archive_all", header("Sec-Fetch-Site", "same-origin"))
	if reply.StatusCode != http.StatusOK && reply.StatusCode != http.StatusNoContent {
		t.Fatalf("%s: %s", reply.Status, body)
	}
	letters := tasks.NewDeadLetters(client)
	ids, err := letters.IDs(t.Context(), "default")
	if err != nil || len(ids) != n {
		t.Fatalf("%d dead letters (%v), want %d", len(ids), err, n)
	}
	l, err := letters.Get("default", ids[0])
	if err != nil || l.Reason != "archived by hand" || time.Since(l.At) > time.Minute {
		t.Errorf("%+v, %v", l, err)
	}
}
