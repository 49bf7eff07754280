package workercli

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/dkimkey"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// TestRun_signed: what a worker sends is signed, with the same bytes at each try and for each part of the recipients, and its page
// and its metrics say so.
func TestRun_signed(t *testing.T) {
	var mu sync.Mutex
	var raws [][]byte
	later := true // bob is refused for now, once
	relay, err := catcher.Start(catcher.Config{Decide: func(_ context.Context, s catcher.Step) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case s.Command == "DATA":
			if raws = append(raws, bytes.Clone(s.Raw)); len(raws) == 1 {
				return errors.New("not now")
			}
		case s.Command == "RCPT" && s.To[0] == "bob@example.org" && len(raws) > 0 && later:
			later = false
			return errors.New("not now")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	server := redistest.Start(t, redistest.Options{})
	_, port, _ := net.SplitHostPort(relay.Addr())
	key, err := newKey(kindRSA)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := writeKey(path, key); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"REDIS_URL": server.URL(), "EMAIL_HOSTNAME": "app.example.com", "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": port, "EMAIL_RETRY_MIN": "1s", "EMAIL_RETRY_MAX": "1s",
		"EMAIL_HTTP_ADDR": "127.0.0.1:0", "EMAIL_DKIM_DOMAIN": "example.com", "EMAIL_DKIM_SELECTOR": "mail", "EMAIL_DKIM_KEY_FILE": path,
	} {
		t.Setenv(name, value)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	m := &mailer.EmailMessage{Subject: "Grüße", Body: "Grüße\n", FromEmail: "ann@example.com", To: []string{"carl@example.org", "bob@example.org"}}
	if _, err := tasks.NewQueue(client, tasks.QueueConfig{}).Enqueue(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	r := start(t, backends.Builtin())
	pages := r.url()
	if err := relay.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(raws) != 3 || later {
		t.Errorf("%d tries, with a part of the recipients: %t", len(raws), !later)
	}
	for _, raw := range raws {
		if !bytes.Equal(raw, raws[0]) {
			t.Errorf("another try has other bytes:\n%s\n%s", raws[0], raw)
		}
	}
	record := func(string) ([]string, error) { return []string{dkimkey.Record(key)}, nil }
	found, err := msgauth.VerifyWithOptions(bytes.NewReader(raws[0]), &msgauth.VerifyOptions{LookupTXT: record})
	if err != nil || len(found) != 1 || found[0].Err != nil || found[0].Domain != "example.com" {
		t.Errorf("%v, %v\n%s", found, err, raws[0])
	}
	if _, status := fetch(t, pages+"status.json"); !strings.Contains(status, `"signs":["mail._domainkey.example.com"]`) {
		t.Errorf("the page does not say who signs:\n%s", status)
	}
	_, metrics := fetch(t, pages+"metrics")
	for _, want := range []string{`mailpouch_dkim_keys{mailer="default"} 1`, `mailpouch_dkim_failures_total{mailer="default"} 0`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	r.end()
}
