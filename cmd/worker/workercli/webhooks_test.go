package workercli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/testserver"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

const (
	oldWebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	newWebhookSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// posted is an event as an endpoint got it.
type posted struct {
	kind, to  string
	byOld, by bool // signed with the old secret, and with the new one
}

// startEndpoint starts an endpoint that takes events.
func startEndpoint(t *testing.T) (url string, got <-chan posted) {
	t.Helper()
	events := make(chan posted, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var e struct {
			Type string
			Data struct{ To []string }
		}
		if err := json.Unmarshal(body, &e); err != nil || len(e.Data.To) != 1 {
			t.Errorf("%v: %s", err, body)
			return
		}
		events <- posted{e.Type, e.Data.To[0], signedWith(t, r, body, oldWebhookSecret), signedWith(t, r, body, newWebhookSecret)}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, events
}

// signedWith reports whether a post has the signature of a secret.
func signedWith(t *testing.T, r *http.Request, body []byte, secret string) bool {
	t.Helper()
	one, err := target.New("https://h.example/", []string{secret}, false)
	if err != nil {
		t.Error(err)
		return false
	}
	seconds, err := strconv.ParseInt(r.Header.Get("Webhook-Timestamp"), 10, 64)
	if err != nil {
		t.Error(err)
	}
	h := http.Header{}
	one.Sign(h, r.Header.Get("Webhook-Id"), time.Unix(seconds, 0), body)
	return slices.Contains(strings.Fields(r.Header.Get("Webhook-Signature")), h["webhook-signature"][0]) //nolint:staticcheck // as the specification writes it
}

// next waits for an event.
func next(t *testing.T, got <-chan posted) posted {
	t.Helper()
	select {
	case e := <-got:
		return e
	case <-time.After(time.Minute):
		t.Fatal("no event comes")
		return posted{}
	}
}

// A worker posts what becomes of what it has taken in and delivered, also while it ends, and signs with another secret after SIGHUP.
func TestRun_webhooks(t *testing.T) {
	t.Parallel()
	url, got := startEndpoint(t)
	keys, smtpAddr, pages := filepath.Join(t.TempDir(), "keys"), testserver.FreeAddr(t), testserver.FreeAddr(t)
	secretFile := secret(t, filepath.Join(t.TempDir(), "secret"), oldWebhookSecret)
	shop := apiKey(t, keys, "shop")
	p := startProcess(t, "", "EMAIL_SUBMISSION_ADDR="+smtpAddr, "EMAIL_API_KEYS_FILE="+keys, "EMAIL_HTTP_ADDR="+pages,
		"EMAIL_WEBHOOK_URL="+url, "EMAIL_WEBHOOK_SECRET_FILE="+secretFile, "EMAIL_WEBHOOK_ALLOW_PRIVATE=true")
	// The group of the endpoint begins with what happens from when it is there.
	client := p.server.Client(t)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if fields, _, _ := client.HScan(t.Context(), "mailpouch:events", 0, "group:webhook-*", 0).Result(); len(fields) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the endpoint has no group")
		}
	}
	want := func(byNew bool) {
		t.Helper()
		if err := handIn(smtpAddr, shop); err != nil {
			t.Fatal(err)
		}
		kinds := map[string]bool{}
		for range 2 {
			e := next(t, got)
			kinds[e.kind] = true
			if e.to != "ann@example.org" || e.byOld == byNew || e.by != byNew {
				t.Errorf("got %+v, want the new secret: %v", e, byNew)
			}
		}
		if !kinds["email.queued"] || !kinds["email.sent"] {
			t.Errorf("got %v", kinds)
		}
	}
	want(false)
	secret(t, secretFile, newWebhookSecret)
	p.signal(t, syscall.SIGHUP)
	p.until(t, "files of secrets read again")
	want(true)
	secret(t, secretFile, "whsec_x")
	p.signal(t, syscall.SIGHUP)
	if line := p.until(t, "EMAIL_WEBHOOK_SECRET_FILE"); !strings.Contains(line, "What was read before is kept") || strings.Contains(line, "whsec_x") {
		t.Error(line)
	}
	p.until(t, "files of secrets read again")
	want(true)
	endpoint := strings.TrimPrefix(url, "http://")
	for _, line := range []string{
		`mailpouch_webhook_posts_total{endpoint="` + endpoint + `",result="delivered"} 6`, `mailpouch_webhook_posts_total{endpoint="` + endpoint + `",result="given_up"} 0`,
		`mailpouch_webhook_down{endpoint="` + endpoint + `"} 0`, `mailpouch_events_unread_total{queue="default"} 0`,
	} {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // it counts when it has the answer
			if _, body := fetch(t, "http://"+pages+"/metrics"); strings.Contains(body, "\n"+line) {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("the metrics have no %s:\n%s", line, body)
			}
		}
	}
	p.ends(t)
}

func TestRun_webhooksWrong(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "", "EMAIL_WEBHOOK_URL=https://a.example/?t=1,https://a.example/?t=2", "EMAIL_WEBHOOK_SECRET="+oldWebhookSecret)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	line := p.until(t, `"level":"error"`)
	if err := p.Wait(); p.ProcessState.ExitCode() != 78 || !strings.Contains(line, "EMAIL_WEBHOOK_URL: two webhooks have the same URL") {
		t.Errorf("%v, %s", err, line)
	}
}
