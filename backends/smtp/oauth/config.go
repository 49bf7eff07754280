// Package oauth gets OAuth 2 access tokens for logins at mail servers: it knows how Microsoft and Google want
// to be asked, and any other provider that is described to it.
//
//	source, err := oauth.New(oauth.Config{
//		Provider: oauth.Microsoft, Tenant: "contoso.onmicrosoft.com", ClientID: "...", ClientSecret: "...",
//	})
//	backend, err := smtp.New(smtp.Config{
//		Addrs: []string{"smtp.office365.com"}, TLS: smtp.TLSStart,
//		Username: "shop@contoso.com", TokenSource: source, AuthMechanisms: oauth.Microsoft.Mechanisms(),
//	})
//
// A [Source] is shared by all connections that log in as the same user. One of them at a time asks for a new
// token, ahead of the old one's end, and what it is answered holds for all.
//
// It implements RFC 6749, 4.4 (client credentials) and 6 (refresh tokens), RFC 7523 (a signed assertion, for
// Google's service accounts), and for a person's consent RFC 8628 (device code) and RFC 8252, 7.3 (a browser on this machine).
package oauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"
)

// Provider is who gives the tokens.
type Provider string

// The providers.
const (
	Microsoft Provider = "microsoft" // Microsoft 365, Exchange Online, Outlook.com
	Google    Provider = "google"    // Google Workspace, Gmail
	Custom    Provider = "custom"    // any other, with a TokenURL
)

// Mechanisms are the SASL mechanisms to use with the provider's servers, in order of preference.
func (p Provider) Mechanisms() []string {
	if p == Custom {
		return []string{"OAUTHBEARER", "XOAUTH2"}
	}
	return []string{"XOAUTH2", "OAUTHBEARER"}
}

// Config says where tokens come from. It is comparable. How a token is asked for follows from what it has: with a KeyFile by an assertion
// that this key signs, with a RefreshTokenFile by the refresh token in it, else by client credentials.
type Config struct {
	Provider Provider

	// Tenant is Microsoft's name or number for the organisation, or "common" or another of its words for several directories, for
	// consent that a person gives.
	Tenant string

	// ClientID and ClientSecret are those of the application as it is registered with the provider. With a refresh token some
	// applications have no secret.
	ClientID     string
	ClientSecret string

	// RefreshTokenFile holds a refresh token, in one line. It is read at each refresh; where the provider hands out
	// another refresh token it is written again.
	RefreshTokenFile string

	// KeyFile is the JSON file with the key of a Google service account.
	KeyFile string

	// User is for whom a service account asks (domain-wide delegation).
	User string

	// TokenURL and DeviceURL are the provider's endpoints for tokens and for device codes. Default: Microsoft's and Google's;
	// those of a custom provider have none. They have to be https, or http on this machine.
	TokenURL  string
	DeviceURL string

	// Scope is what to ask for, several separated by blanks. Default: what sending mail takes at Microsoft
	// and Google, and nothing for a custom provider.
	Scope string

	// Client makes the requests. Default: http.DefaultClient.
	Client *http.Client
}

// The endpoints and scopes of Microsoft (learn.microsoft.com: Authenticate an IMAP, POP or SMTP connection using OAuth)
// and of Google (developers.google.com: OAuth 2.0 Mechanism).
const (
	microsoftURL       = "https://login.microsoftonline.com/"
	microsoftAppScope  = "https://outlook.office365.com/.default"
	microsoftUserScope = "https://outlook.office.com/SMTP.Send offline_access"
	googleTokenURL     = "https://oauth2.googleapis.com/token" //nolint:gosec // an address
	googleAuthURL      = "https://accounts.google.com/o/oauth2/v2/auth"
	googleScope        = "https://mail.google.com/"
)

// complete returns c with the provider's defaults, or says what it lacks.
func (c Config) complete() (Config, error) {
	switch c.Provider {
	case Microsoft:
		if c.TokenURL == "" && c.Tenant == "" {
			return c, errors.New("oauth: config: Tenant is missing")
		}
		base := microsoftURL + url.PathEscape(c.Tenant) + "/oauth2/v2.0/"
		if c.TokenURL == "" {
			c.TokenURL = base + "token"
		}
		if c.DeviceURL == "" {
			c.DeviceURL = base + "devicecode"
		}
		if c.Scope == "" && c.RefreshTokenFile == "" {
			c.Scope = microsoftAppScope
		} else if c.Scope == "" {
			c.Scope = microsoftUserScope
		}
	case Google:
		if c.TokenURL == "" {
			c.TokenURL = googleTokenURL
		}
		if c.Scope == "" {
			c.Scope = googleScope
		}
	case Custom:
	default:
		return c, fmt.Errorf("oauth: config: Provider: %q is none of %s, %s, %s", c.Provider, Microsoft, Google, Custom)
	}
	if c.Client == nil {
		c.Client = http.DefaultClient
	}
	return c, c.check()
}

func (c Config) check() error {
	for _, u := range []struct{ name, text string }{{"TokenURL", c.TokenURL}, {"DeviceURL", c.DeviceURL}} {
		if u.text == "" && u.name == "DeviceURL" {
			continue
		}
		if err := CheckURL(u.text); err != nil {
			return fmt.Errorf("oauth: config: %s: %w", u.name, err)
		}
	}
	switch {
	case c.KeyFile != "" && c.Provider != Google:
		return errors.New("oauth: config: a KeyFile is Google's")
	case c.KeyFile != "" && c.RefreshTokenFile != "":
		return errors.New("oauth: config: KeyFile and RefreshTokenFile exclude each other")
	case c.KeyFile == "" && c.ClientID == "":
		return errors.New("oauth: config: ClientID is missing")
	case c.KeyFile == "" && c.RefreshTokenFile == "" && (c.ClientSecret == "" || c.Provider == Google):
		return errors.New("oauth: config: there is nothing to show to the provider: neither ClientSecret nor RefreshTokenFile nor KeyFile")
	}
	return nil
}

// CheckURL says what is wrong with the URL of an endpoint: secrets and tokens go there, over TLS or within this machine.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("it has to be a URL such as https://login.example.com/oauth2/token")
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return errors.New("it has to begin with https://; http:// is for this machine alone")
	}
	return nil
}

// String describes the configuration without its secrets.
func (c Config) String() string { return string(c.Provider) + " " + c.TokenURL }

// GoString is String, so that no verb of fmt prints a secret.
func (c Config) GoString() string { return c.String() }

func (c Config) scopes() []string { return strings.Fields(c.Scope) }

// style is how a client shows its secret (RFC 6749, 2.3.1). Microsoft and Google take it in the body; of others it is found
// out.
func (c Config) style() oauth2.AuthStyle {
	if c.Provider == Custom {
		return oauth2.AuthStyleAutoDetect
	}
	return oauth2.AuthStyleInParams
}

func (c Config) client() *oauth2.Config {
	return &oauth2.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret, Scopes: c.scopes(),
		Endpoint: oauth2.Endpoint{AuthURL: googleAuthURL, TokenURL: c.TokenURL, DeviceAuthURL: c.DeviceURL, AuthStyle: c.style()},
	}
}

func (c Config) credentials() *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret, TokenURL: c.TokenURL, Scopes: c.scopes(), AuthStyle: c.style(),
	}
}

// serviceAccount reads the key file of a service account.
func (c Config) serviceAccount() (*jwt.Config, error) {
	text, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, err
	}
	var key struct {
		Type  string `json:"type"`
		Email string `json:"client_email"`
		ID    string `json:"private_key_id"`
		Key   string `json:"private_key"`
	}
	if json.Unmarshal(text, &key) != nil || key.Type != "service_account" || key.Email == "" || key.Key == "" {
		return nil, fmt.Errorf("%s is not the JSON file with the key of a service account", c.KeyFile)
	}
	return &jwt.Config{
		Email: key.Email, PrivateKey: []byte(key.Key), PrivateKeyID: key.ID, Subject: c.User, Scopes: c.scopes(), TokenURL: c.TokenURL,
	}, nil
}
