package backends

import (
	"net"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/mailpouch/mailpouch/backends/console"
	"github.com/mailpouch/mailpouch/backends/dummy"
	"github.com/mailpouch/mailpouch/backends/filebased"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// This file is where settings become configurations: which variable ends in which
// field.

// Defaults is what a message gets that its author left out.
func Defaults(s settings.Settings) mailer.Defaults {
	return mailer.Defaults{
		FromEmail: s.Message.DefaultFrom,
		Charset:   s.Message.Charset,
		Hostname:  ascii(s.Message.Hostname),
		LocalTime: s.Message.LocalTime,
	}
}

func smtpConfig(s settings.Settings) smtp.Config {
	c := s.SMTP
	config := smtp.Config{
		Hostname:          ascii(s.Message.Hostname),
		Username:          c.User,
		Password:          c.Password.Reveal(),
		AuthMechanisms:    c.AuthMechanisms,
		TemporaryReplies:  c.TemporaryReplies,
		AllowInsecureAuth: c.AllowInsecureAuth,
		ServerName:        ascii(c.ServerName),
		CAFile:            c.CAFile,
		CertFile:          c.CertFile,
		KeyFile:           c.KeyFile,
		ConnectTimeout:    time.Duration(c.Timeout),
		CommandTimeout:    time.Duration(c.Timeout),
		DataTimeout:       c.DataTimeout,
		IdleTimeout:       c.IdleTimeout,
		MaxMessages:       c.MaxMessages,
		MaxBytes:          int64(c.MaxBytes),
		MaxAge:            c.MaxAge,
		Pipelining:        smtp.Mode(c.Pipelining),
		Chunking:          smtp.Mode(c.Chunking),
		Defaults:          Defaults(s),
	}
	for _, host := range c.Hosts {
		config.Addrs = append(config.Addrs, net.JoinHostPort(ascii(host), strconv.Itoa(c.Port)))
	}
	switch {
	case c.UseSSL:
		config.TLS = smtp.TLSImplicit
	case c.UseTLS:
		config.TLS = smtp.TLSStart
	}
	return config
}

// oauthConfig is for settings with OAuth.On.
func oauthConfig(s settings.Settings) oauth.Config {
	o := s.OAuth
	return oauth.Config{
		Provider:         oauth.Provider(o.Provider),
		Tenant:           o.Tenant,
		ClientID:         o.ClientID,
		ClientSecret:     o.ClientSecret.Reveal(),
		RefreshTokenFile: o.RefreshTokenFile,
		KeyFile:          o.KeyFile,
		User:             s.SMTP.User,
		TokenURL:         o.TokenURL,
		DeviceURL:        o.DeviceURL,
		Scope:            o.Scope,
	}
}

func consoleConfig(s settings.Settings) console.Config {
	return console.Config{Defaults: Defaults(s)}
}

func filebasedConfig(s settings.Settings) filebased.Config {
	return filebased.Config{Dir: s.Delivery.FilePath, Defaults: Defaults(s)}
}

func locmemConfig(s settings.Settings, outbox *locmem.Outbox) locmem.Config {
	return locmem.Config{Outbox: outbox, Defaults: Defaults(s)}
}

func dummyConfig(s settings.Settings) dummy.Config {
	return dummy.Config{Defaults: Defaults(s)}
}

// ascii writes a host name outside ASCII in punycode (RFC 5890), and returns any other
// text as it is.
func ascii(host string) string {
	for i := range len(host) {
		if host[i] < utf8.RuneSelf {
			continue
		}
		if punycode, err := idna.Lookup.ToASCII(host); err == nil {
			return punycode
		}
	}
	return host
}
