package backends

import (
	"fmt"

	"github.com/mailpouch/mailpouch/backends/dkim"
	"github.com/mailpouch/mailpouch/internal/dkimkey"
	"github.com/mailpouch/mailpouch/internal/outgoing"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// sign returns b with DKIM before it, if the settings have keys. It is the last that changes a message.
func sign(b mailer.Backend, s settings.Settings) (mailer.Backend, error) {
	if !s.DKIM.On() {
		return b, nil
	}
	signer, err := signer(s)
	if err != nil {
		return nil, err
	}
	return outgoing.Wrap(b, signer.Sign), nil
}

// signer makes the signer of the settings. The error names the setting.
func signer(s settings.Settings) (*dkim.Signer, error) {
	config := dkim.Config{Defaults: Defaults(s)}
	for _, k := range s.DKIM.Keys() {
		private, err := dkimkey.Read(k.File)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Variable("EMAIL_DKIM_KEY_FILE"), err)
		}
		config.Keys = append(config.Keys, dkim.Key{Domain: ascii(k.Domain), Selector: k.Selector, Private: private})
	}
	return dkim.New(config)
}
