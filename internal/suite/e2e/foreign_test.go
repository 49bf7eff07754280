package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// A stranger gives an address that the relay does not take: "454 4.7.1 Relay access denied" is
// what Postfix says where it defers a foreign domain. That is this message's failure. The mailer is
// not held, the mail of all others goes, and of the message's own recipients those that may.
func TestForeignDomain(t *testing.T) {
	s := newSiteWith(t, postfixtest.Options{Main: []string{
		"smtpd_recipient_restrictions = check_recipient_access regexp:{{/@foreign[.]example/ 454 4.7.1 Relay access denied}}, permit_mynetworks, reject",
	}})
	addr := testserver.FreeAddr(t)
	s.env = append(s.env, "EMAIL_HTTP_ADDR="+addr, "EMAIL_MAX_RETRY=1", "EMAIL_RETRY_MIN=1s", "EMAIL_RETRY_MAX=1s")
	stop := s.workerUntil(syscall.SIGTERM)
	defer stop()
	isReady := func() bool {
		is, held := ready(t, addr)
		return is && !held
	}
	s.eventually("the worker is ready", isReady)
	for i := range 5 {
		s.run("enqueue", "send", "--from", "shop@example.com", "--to", fmt.Sprintf("stranger%d@foreign.example", i), "--subject", "x", "--body", "x")
		s.run("enqueue", "send", "--from", "shop@example.com", "--to", fmt.Sprintf("customer%d@example.com", i), "--subject", "x", "--body", "x")
		if _, held := ready(t, addr); held {
			t.Fatal("a stranger's address has held the mailer")
		}
	}
	s.run("enqueue", "send", "--from", "shop@example.com", "--to", "both@foreign.example", "--to", "both@example.com", "--subject", "x", "--body", "x")
	s.eventually("six dead letters", func() bool {
		return strings.Count(s.run("enqueue", "dead", "list"), "  454 4.7.1") == 6 &&
			strings.Count(s.run("enqueue", "dead", "export"), `; gave up after 2 tries","tries":2`) == 6
	})
	if err := s.postfix.Wait(t.Context(), 6); err != nil {
		t.Fatalf("the others: %v", err)
	}
	s.eventually("the worker is ready in the end", isReady)
}

// ready reports whether the worker says that it is, and that a mailer is held. On a slow machine it may say neither for a while.
func ready(t *testing.T, addr string) (is, held bool) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, false
	}
	defer func() { _ = response.Body.Close() }()
	var state struct {
		Ready   bool   `json:"ready"`
		Mailers string `json:"mailers"`
	}
	if err := json.NewDecoder(response.Body).Decode(&state); err != nil {
		return false, false
	}
	return state.Ready, state.Mailers == "held"
}

func (s *site) eventually(what string, ok func() bool) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("never: %s", what)
		}
	}
}
