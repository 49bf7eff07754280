package smtp_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/internal/testserver/postfix"
	"github.com/mailpouch/mailpouch/internal/testserver/provider"
	"github.com/mailpouch/mailpouch/mailer"
)

// TestPostfix_token: Postfix lets Dovecot ask the provider what a token is worth. A login with a good token is let in, by either
// mechanism and however long the token is; one that nobody gave is refused, with Dovecot's reason, and replaced by
// a good one in the same conversation where there is one.
func TestPostfix_token(t *testing.T) {
	p := provider.New()
	base := p.Start(t)
	server := postfix.Start(t, postfix.Options{TLS: true, Introspect: base + provider.IntrospectPath})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(provider.FirstRefresh), 0o600); err != nil {
		t.Fatal(err)
	}
	source, err := oauth.New(oauth.Config{
		Provider: oauth.Custom, ClientID: provider.ClientID, ClientSecret: provider.ClientSecret, RefreshTokenFile: file, TokenURL: base + provider.TokenPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("0123456789", 150) // as Microsoft's are
	p.Know(long)
	sent := 0
	for _, mech := range oauth.Custom.Mechanisms() {
		for name, tt := range map[string]struct {
			source smtp.TokenSource
			works  bool
		}{
			"good":          {source, true},
			"long":          {only(long), true},
			"unknown":       {only("nobody-gave-it"), false},
			"unknown, long": {only(strings.Repeat("nobody-gave-it", 100)), false},
			"replaced":      {&staleFirst{source: source}, true},
		} {
			t.Run(mech+"/"+name, func(t *testing.T) {
				b, err := smtp.New(smtp.Config{
					Addrs: []string{server.Addr()}, TLS: smtp.TLSStart, ServerName: "localhost", CAFile: server.CAFile(), Hostname: "client.example",
					Username: provider.User, TokenSource: tt.source, AuthMechanisms: []string{mech},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = b.Close() }()
				_, err = b.SendMessages(t.Context(), []*mailer.EmailMessage{{FromEmail: provider.User, To: []string{"ann@example.org"}, Subject: name}})
				switch {
				case tt.works && err != nil:
					t.Error(err)
				case tt.works:
					sent++
				case err == nil || !strings.Contains(err.Error(), "535 5.7.8") || strings.Contains(err.Error(), "nobody-gave-it") ||
					!strings.Contains(err.Error(), "("+mech+" as "+provider.User+": status "):
					t.Errorf("got %v", err)
				}
			})
		}
	}
	if err := server.Wait(t.Context(), sent); err != nil || sent != 6 {
		t.Errorf("%d sent, %v", sent, err)
	}
	for _, m := range server.Messages() {
		if !strings.Contains(m.Received, "Authenticated sender: "+provider.User) {
			t.Errorf("arrived without a login: %s", m.Received)
		}
	}
}

// only is a source of one token.
func only(token string) smtp.TokenSource {
	return smtp.TokenFunc(func(context.Context) (string, error) { return token, nil })
}

// staleFirst has a token that nobody gave, until it was refused.
type staleFirst struct {
	source  smtp.TokenSource
	refused bool
}

func (s *staleFirst) Token(ctx context.Context) (string, error) {
	if !s.refused {
		return "nobody-gave-it", nil
	}
	return s.source.Token(ctx)
}

func (s *staleFirst) Refused(string) { s.refused = true }
