package smtp

import (
	"context"
	"errors"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// Whoever decides when connections are opened is asked for each: for Open, and for those that take the place of others
// in the middle of a batch. What is refused opens none, and the messages fail as when nobody answers.
func TestBackend_ConnectVia(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "PIPELINING")
	cfg := testConfig(t, p)
	cfg.MaxMessages = 2
	b := newBackend(t, cfg)
	var asked int
	full := errors.New("no more")
	b.ConnectVia(func(_ context.Context, connect func() error) error {
		if asked++; asked > 3 {
			return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: full}
		}
		return connect()
	})
	if _, err := b.Open(t.Context()); err != nil || asked != 1 {
		t.Fatalf("Open: %v, asked %d times", err, asked)
	}
	results := sendAll(t, b, letters(8))
	for i, r := range results {
		if (r.Err != nil) != (i >= 6) || r.Err != nil && (!errors.Is(r.Err, full) || mailer.ClassOf(r.Err) != mailer.Unavailable) {
			t.Errorf("message %d: %v", i, r.Err)
		}
	}
	if p.conns != 3 || asked != 4 {
		t.Errorf("%d connections, asked %d times, want 3 and 4", p.conns, asked)
	}
}

func TestBackend_Account(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]Config{
		"": {Addrs: []string{"mx.example.com"}},
		"shop at mx.example.com:587 mx2.example.com:587": {Addrs: []string{"mx.example.com", "mx2.example.com"}, TLS: TLSStart, Username: "shop", Password: "secret"},
	} {
		if got := newBackend(t, cfg).Account(); got != want {
			t.Errorf("Account() = %q, want %q", got, want)
		}
	}
}
