package main

import (
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// The first relay cannot be reached, and the second one has the mail.
func TestRun(t *testing.T) {
	relay, err := catcher.Start(catcher.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	for name, value := range map[string]string{
		"EMAIL_BACKEND": "failover", "EMAIL_MEMBERS": "ses,postmark", "EMAIL_MAILERS": "ses,postmark",
		"EMAIL_SES_URL": "smtp://127.0.0.1:1", "EMAIL_POSTMARK_URL": "smtp://" + relay.Addr(),
	} {
		t.Setenv(name, value)
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"ann@example.com"}, &out); err != nil || out.String() != "1 sent\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	t.Setenv("EMAIL_POSTMARK_URL", "smtp://127.0.0.1:2")
	if err := run(t.Context(), []string{"ann@example.com"}, &out); err == nil || !strings.Contains(err.Error(), "ses: ") || !strings.Contains(err.Error(), "postmark: ") {
		t.Errorf("both are away: %v", err)
	}
}
