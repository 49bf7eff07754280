package interop

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/mailpouch/mailpouch/internal/events"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/webhook"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Two secrets, the newer one first.
const (
	webhookSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	oldSecret     = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

// TestStandardWebhooks has Go's library of Standard Webhooks verify what is posted of events in a real Redis: with the new
// secret and with the old one. With another secret it refuses, and what is old too.
func TestStandardWebhooks(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	const otherSecret = "whsec_" + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	verifiers := map[string]*standardwebhooks.Webhook{}
	for _, secret := range []string{webhookSecret, oldSecret, otherSecret} {
		verifiers[secret] = verifier(t, secret)
	}
	type said struct{ byNew, byOld, byOther error }
	var mu sync.Mutex
	all := map[string]said{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		verify := func(secret string) error { return verifiers[secret].Verify(body, r.Header) }
		mu.Lock()
		defer mu.Unlock()
		all[r.Header.Get(standardwebhooks.HeaderWebhookID)] = said{verify(webhookSecret), verify(oldSecret), verify(otherSecret)}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	one, err := target.New(server.URL, []string{webhookSecret, oldSecret}, true)
	if err != nil {
		t.Fatal(err)
	}
	client.SAdd(t.Context(), wire.QueuesKey, "default")
	d, err := webhook.New(webhook.Config{Targets: []target.Target{one}, Redis: client, AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	within(t, "the group", func() bool { return client.HLen(t.Context(), "mailpouch:events").Val() == 2 })
	var data []byte
	const n = 10
	for i := range n {
		data = events.Append(data, events.Sent, events.Message{ID: string(rune('a' + i)), Tags: []string{"ä"}}, "250 Ok <ä>", "ann@example.com")
	}
	script := redis.NewScript(events.Lua + `eventsAdd(KEYS[1], ARGV[1], ARGV[2]) return 1`)
	if err := script.Run(t.Context(), client, []string{events.Key("default")}, data, 1<<20).Err(); err != nil {
		t.Fatal(err)
	}
	within(t, "all events", func() bool { return d.State()[0].Delivered == n })
	mu.Lock()
	defer mu.Unlock()
	if len(all) != n {
		t.Errorf("%d events", len(all))
	}
	for id, s := range all {
		if s.byNew != nil || s.byOld != nil || s.byOther == nil {
			t.Errorf("%s: %v, %v; with another secret %v", id, s.byNew, s.byOld, s.byOther)
		}
	}
}

// TestStandardWebhooks_time: a post is good for five minutes.
func TestStandardWebhooks_time(t *testing.T) {
	one, err := target.New("https://example.com/", []string{oldSecret}, false)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("{}")
	for _, tt := range []struct {
		ago  time.Duration
		want string
	}{{0, ""}, {4 * time.Minute, ""}, {6 * time.Minute, "unable to verify payload, err: message timestamp too old"}, {-6 * time.Minute, "unable to verify payload, err: message timestamp too new"}} {
		posted := http.Header{}
		one.Sign(posted, "evt_1", time.Now().Add(-tt.ago), body)
		arrived := http.Header{} // whose names Go's servers write in their own way
		for name, values := range posted {
			arrived[http.CanonicalHeaderKey(name)] = values
		}
		got := ""
		if err := verifier(t, oldSecret).Verify(body, arrived); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%v ago: %q, want %q", tt.ago, got, tt.want)
		}
	}
}

func verifier(t *testing.T, secret string) *standardwebhooks.Webhook {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
