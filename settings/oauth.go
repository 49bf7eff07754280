package settings

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/hostname"
)

// The providers.
const (
	oauthMicrosoft = "microsoft"
	oauthGoogle    = "google"
	oauthCustom    = "custom"
)

// CheckOAuth says what is wrong with the settings of a login with a token, as Load does for a program that delivers itself. The
// error, if not nil, is a Problems.
func (s Settings) CheckOAuth() error {
	var problems Problems
	s.checkOAuth(&problems)
	return problems.err()
}

// checkOAuth reports what is wrong with the settings of a login with a token: each by its name, and what to do.
func (s Settings) checkOAuth(p *Problems) {
	o, v := s.OAuth, s.Variable
	add := func(name, format string, args ...any) {
		if !p.has(v(name)) {
			p.add(v(name), format, args...)
		}
	}
	for _, mech := range s.SMTP.AuthMechanisms {
		if slices.Contains(tokenMechanisms(), mech) != o.On() {
			add("EMAIL_AUTH_MECHANISMS", "%s goes with %s, and the others with a password", strings.Join(tokenMechanisms(), " or "), v(oauthVariable))
			break
		}
	}
	if !o.On() || p.has(v(oauthVariable)) {
		return
	}
	for _, link := range []struct{ name, text string }{{"EMAIL_OAUTH_TOKEN_URL", o.TokenURL}, {"EMAIL_OAUTH_DEVICE_URL", o.DeviceURL}} {
		if link.text != "" && !isEndpoint(link.text) {
			add(link.name, "%q is not the URL of an endpoint: it begins with https:// (http:// only for this machine) and has no user", link.text)
		}
	}
	s.checkOAuthLogin(add)
	switch o.Provider {
	case oauthMicrosoft:
		if o.Tenant == "" && o.TokenURL == "" {
			add("EMAIL_OAUTH_TENANT", "is missing: the ID of the Microsoft directory, or one of its domains")
		}
		if strings.ContainsFunc(o.Tenant, func(r rune) bool {
			return r != '-' && r != '.' && (r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' || r > 'z')
		}) {
			add("EMAIL_OAUTH_TENANT", "%q is neither the ID of a directory nor a domain", o.Tenant)
		}
		s.needs(add, o.hasSecret() || o.RefreshTokenFile != "",
			"EMAIL_OAUTH_CLIENT_SECRET", "is missing: the application's secret, or set %s and run worker oauth login", v("EMAIL_OAUTH_REFRESH_TOKEN_FILE"))
	case oauthGoogle:
		if o.KeyFile == "" {
			s.needs(add, o.RefreshTokenFile != "",
				"EMAIL_OAUTH_KEY_FILE", "is missing: the key of a service account, or set %s and run worker oauth login", v("EMAIL_OAUTH_REFRESH_TOKEN_FILE"))
			s.needs(add, o.hasSecret(), "EMAIL_OAUTH_CLIENT_SECRET", "is missing: Google gives one to each application")
		}
	case oauthCustom:
		s.needs(add, o.TokenURL != "", "EMAIL_OAUTH_TOKEN_URL", "is missing: only those of microsoft and google are known")
		s.needs(add, o.hasSecret() || o.RefreshTokenFile != "",
			"EMAIL_OAUTH_CLIENT_SECRET", "is missing: the application's secret, or set %s", v("EMAIL_OAUTH_REFRESH_TOKEN_FILE"))
	}
	if o.Provider != oauthMicrosoft && o.Tenant != "" {
		add("EMAIL_OAUTH_TENANT", "is Microsoft's, and %s is %s", v(oauthVariable), o.Provider)
	}
	switch {
	case o.KeyFile == "":
		s.needs(add, o.ClientID != "", "EMAIL_OAUTH_CLIENT_ID", "is missing: the ID of the application that is registered with the provider")
	case o.Provider != oauthGoogle:
		add("EMAIL_OAUTH_KEY_FILE", "is Google's, and %s is %s", v(oauthVariable), o.Provider)
	case o.RefreshTokenFile != "":
		add("EMAIL_OAUTH_KEY_FILE", "excludes %s", v("EMAIL_OAUTH_REFRESH_TOKEN_FILE"))
	}
}

// needs reports a setting that is missing.
func (s Settings) needs(add func(name, format string, args ...any), there bool, name, format string, args ...any) {
	if !there {
		add(name, format, args...)
	}
}

// checkOAuthLogin checks the settings of the server with which a token is used.
func (s Settings) checkOAuthLogin(add func(name, format string, args ...any)) {
	c, v := s.SMTP, s.Variable
	s.needs(add, c.User != "", "EMAIL_HOST_USER", "is missing: the mailbox that the token is for")
	if c.hasPassword() {
		add("EMAIL_HOST_PASSWORD", "excludes %s: a login has the one or the other", v(oauthVariable))
	}
	if !c.UseTLS && !c.UseSSL && slices.ContainsFunc(c.Hosts, hostname.IsRemote) {
		add("EMAIL_USE_TLS", "a token goes to another machine over TLS only: %s", s.howTLS())
	}
	usual := map[string]string{oauthMicrosoft: "smtp.office365.com", oauthGoogle: "smtp.gmail.com"}[s.OAuth.Provider]
	if usual != "" && !s.sets(v("EMAIL_HOST")) && !s.hasURL() && c.Hosts.String() == "localhost" {
		add("EMAIL_HOST", "is missing: with %s it is most often %s, with EMAIL_PORT 587 and EMAIL_USE_TLS", v(oauthVariable), usual)
	}
}

// isEndpoint reports whether a secret may be sent to a URL.
func isEndpoint(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}
