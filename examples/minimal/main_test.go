package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/internal/embedded"
)

func TestContact(t *testing.T) {
	server, err := embedded.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	t.Setenv("REDIS_URL", server.URL())
	app, err := mailpouch.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	for _, tt := range []struct {
		subject string
		want    int
	}{
		{"Hello", http.StatusSeeOther},
		{"Hello\nBcc: everybody@example.com", http.StatusBadRequest},
	} {
		r := httptest.NewRequest(http.MethodPost, "/contact", strings.NewReader(url.Values{"subject": {tt.subject}, "message": {"Hi."}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		contact(app.Mailer)(w, r)
		if w.Code != tt.want {
			t.Errorf("%q: got %d, want %d", tt.subject, w.Code, tt.want)
		}
	}
	if n := app.Redis.LLen(t.Context(), "asynq:{default}:pending").Val(); n != 1 {
		t.Errorf("%d tasks wait, want 1", n)
	}
	server.Close()
	r := httptest.NewRequest(http.MethodPost, "/contact?subject=Hello", http.NoBody)
	w := httptest.NewRecorder()
	contact(app.Mailer)(w, r)
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("without Redis: got %d", w.Code)
	}
}
