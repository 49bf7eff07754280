package oauth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/internal/testserver/provider"
)

// deviceConfig is one for a login by a device code.
func deviceConfig(p *provider.Provider) oauth.Config {
	cfg := asItself(p)
	cfg.DeviceURL, cfg.RefreshTokenFile = base+provider.DevicePath, "/nowhere"
	return cfg
}

func TestLoginByDevice(t *testing.T) {
	for name, tt := range map[string]struct {
		slow, pending int
		verdict       string
		took          time.Duration
		want          string // of the error
	}{
		"at once":   {0, 0, "", 2 * time.Second, ""},
		"after all": {0, 5, "", 12 * time.Second, ""},
		"slowly":    {3, 1, "", (2 + 7 + 12 + 17 + 17) * time.Second, ""}, // five seconds more each time
		"refused":   {0, 2, "access_denied", 6 * time.Second, "OAuth 2: microsoft refuses a token: access_denied"},
		"expired":   {0, 2, "expired_token", 6 * time.Second, "OAuth 2: microsoft refuses a token: expired_token"},
		"nobody":    {0, 1000, "", provider.DeviceLife * time.Second, "OAuth 2: microsoft refuses a token: expired_token: nobody has entered the code in time"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := provider.New()
				p.Device(tt.slow, tt.pending, tt.verdict)
				var shown oauth.DeviceCode
				start := time.Now()
				got, err := oauth.LoginByDevice(t.Context(), deviceConfig(p), func(c oauth.DeviceCode) { shown = c })
				if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want || (err == nil) != p.AllowsRefresh(got) {
					t.Errorf("got %q, %v", got, err)
				}
				if shown.URL != "https://login.example.com/device" || shown.Code != "ABCD-EFGH" || shown.Expires.Sub(start) != provider.DeviceLife*time.Second {
					t.Errorf("shown %+v", shown)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v: %v", took, tt.took, p.Polls())
				}
			})
		})
	}
}

// TestLoginByDevice_away: a network that is away for a while costs time.
func TestLoginByDevice_away(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		p.Device(0, 2, "")
		cfg, asked := deviceConfig(p), 0
		cfg.Client = &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			if asked++; asked == 3 || asked == 4 {
				return nil, errors.New("no route to host")
			}
			return p.Client().Transport.RoundTrip(r)
		})}
		if got, err := oauth.LoginByDevice(t.Context(), cfg, func(oauth.DeviceCode) {}); err != nil || !p.AllowsRefresh(got) {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestLoginByDevice_stopped: it ends with its context.
func TestLoginByDevice_stopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		p.Device(0, 1000, "")
		ctx, cancel := context.WithCancel(t.Context())
		_, err := oauth.LoginByDevice(ctx, deviceConfig(p), func(oauth.DeviceCode) { time.AfterFunc(5*time.Second, cancel) })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestLoginByDevice_unknownClient(t *testing.T) {
	cfg := deviceConfig(provider.New())
	cfg.ClientID = "another"
	_, err := oauth.LoginByDevice(t.Context(), cfg, func(oauth.DeviceCode) { t.Error("a code is shown") })
	var e *oauth.Error
	if !errors.As(err, &e) || !e.Refused || e.Code != "invalid_client" {
		t.Errorf("got %v", err)
	}
	cfg.Provider, cfg.DeviceURL = oauth.Custom, ""
	if _, err := oauth.LoginByDevice(t.Context(), cfg, nil); err == nil || !strings.Contains(err.Error(), "DeviceURL") {
		t.Errorf("got %v", err)
	}
}

// TestLoginByBrowser: the browser that calls with our state brings the code; any other is sent away.
func TestLoginByBrowser(t *testing.T) {
	p := provider.New()
	cfg := asItself(p)
	cfg.Provider, cfg.RefreshTokenFile = oauth.Google, "/nowhere"
	agreed := make(chan error, 1)
	got, err := oauth.LoginByBrowser(t.Context(), cfg, 0, func(address string) {
		go func() {
			if !strings.HasPrefix(address, "https://accounts.google.com/o/oauth2/v2/auth?access_type=offline&") || !strings.Contains(address, "code_challenge_method=S256") {
				t.Errorf("shown %s", address)
			}
			status, err := p.Agree(strings.Replace(address, "state=", "state=wrong-", 1))
			if status != http.StatusNotFound {
				t.Errorf("another's browser is answered %d, %v", status, err)
			}
			status, err = p.Agree(address)
			if status != http.StatusOK {
				t.Errorf("answered %d", status)
			}
			agreed <- err
		}()
	})
	if err != nil || !p.AllowsRefresh(got) {
		t.Errorf("got %q, %v", got, err)
	}
	if err := <-agreed; err != nil {
		t.Error(err)
	}
}

func TestLoginByBrowser_stopped(t *testing.T) {
	cfg := asItself(provider.New())
	cfg.Provider, cfg.RefreshTokenFile = oauth.Google, "/nowhere"
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := oauth.LoginByBrowser(ctx, cfg, 0, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
