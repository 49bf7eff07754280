package backends

import (
	"sync"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// Logins is what the smtp backends of a process share that log in as the same users: what is known of the mechanisms, and the
// OAuth 2 tokens. The zero value knows nothing.
type Logins struct {
	mechanisms smtp.Logins

	mu      sync.Mutex
	sources map[string]source // of tokens, by mailer
}

// source is where the tokens of a mailer come from, as it is configured now.
type source struct {
	config oauth.Config
	*oauth.Source
}

// SMTP makes the smtp backend. Those that log in to the same server share logins. trace, if not nil, is called with each line of its
// conversations, as smtp.Config.Trace says.
func SMTP(s settings.Settings, logins *Logins, trace func(line string)) (mailer.Backend, error) {
	config := smtpConfig(s)
	config.Trace, config.Logins = trace, &logins.mechanisms
	if s.OAuth.On() {
		tokens, err := logins.source(s)
		if err != nil {
			return nil, err
		}
		config.TokenSource = tokens
		if len(config.AuthMechanisms) == 0 {
			config.AuthMechanisms = tokens.Mechanisms()
		}
	}
	b, err := smtp.New(config)
	if err != nil {
		return nil, err // and no backend: a nil *smtp.Backend would be one
	}
	return b, nil
}

// source returns the source of the tokens of a mailer: the one that there is, or a new one if it is configured otherwise by now.
func (l *Logins) source(s settings.Settings) (*oauth.Source, error) {
	if err := s.CheckOAuth(); err != nil {
		return nil, err
	}
	config := oauthConfig(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.sources[s.Using]; ok && known.config == config {
		return known.Source, nil
	}
	made, err := oauth.New(config)
	if err != nil {
		return nil, err
	}
	if l.sources == nil {
		l.sources = map[string]source{}
	}
	l.sources[s.Using] = source{config, made}
	return made, nil
}

// OAuth is where the tokens of settings with OAuth.On come from, for worker oauth login.
func OAuth(s settings.Settings) (oauth.Config, error) {
	return oauthConfig(s), s.CheckOAuth()
}
