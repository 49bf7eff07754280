package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/internal/testserver/provider"
)

var _ smtp.TokenSource = (*oauth.Source)(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const base = "https://login.example.com"

// asItself is a configuration for client credentials.
func asItself(p *provider.Provider) oauth.Config {
	return oauth.Config{
		Provider: oauth.Microsoft, ClientID: provider.ClientID, ClientSecret: provider.ClientSecret, TokenURL: base + provider.TokenPath, Client: p.Client(),
	}
}

// forUser is one for a refresh token, which is in a file.
func forUser(t *testing.T, p *provider.Provider) oauth.Config {
	t.Helper()
	cfg := asItself(p)
	cfg.RefreshTokenFile = filepath.Join(t.TempDir(), "token")
	write(t, cfg.RefreshTokenFile, provider.FirstRefresh+"\n")
	return cfg
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func newSource(t *testing.T, cfg oauth.Config) *oauth.Source {
	t.Helper()
	s, err := oauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func token(t *testing.T, s *oauth.Source) string {
	t.Helper()
	text, err := s.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// events are what a source has told of.
type events struct {
	mu  sync.Mutex
	all []oauth.Event
}

func (e *events) note(event oauth.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func TestSource_grants(t *testing.T) {
	for name, tt := range map[string]struct {
		set  func(t *testing.T, p *provider.Provider, cfg *oauth.Config)
		want url.Values
	}{
		"microsoft, as itself": {func(*testing.T, *provider.Provider, *oauth.Config) {}, url.Values{"grant_type": {"client_credentials"}, "scope": {"https://outlook.office365.com/.default"}}},
		"microsoft, for a user": {func(t *testing.T, p *provider.Provider, cfg *oauth.Config) {
			*cfg = forUser(t, p)
		}, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {provider.FirstRefresh}}},
		"a public application": {func(t *testing.T, p *provider.Provider, cfg *oauth.Config) {
			*cfg = forUser(t, p)
			p.Public, cfg.ClientSecret = true, ""
		}, url.Values{"grant_type": {"refresh_token"}}},
		"google, a service account": {func(t *testing.T, p *provider.Provider, cfg *oauth.Config) {
			path := filepath.Join(t.TempDir(), "key.json")
			write(t, path, string(p.ServiceAccount(t)))
			*cfg = oauth.Config{Provider: oauth.Google, KeyFile: path, User: provider.User, TokenURL: cfg.TokenURL, Client: cfg.Client}
		}, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}}},
		"google, for a user": {func(t *testing.T, p *provider.Provider, cfg *oauth.Config) {
			*cfg = forUser(t, p)
			cfg.Provider = oauth.Google
		}, url.Values{"grant_type": {"refresh_token"}}},
		"custom": {func(_ *testing.T, _ *provider.Provider, cfg *oauth.Config) {
			cfg.Provider, cfg.Scope = oauth.Custom, "mail.send more"
		}, url.Values{"grant_type": {"client_credentials"}, "scope": {"mail.send more"}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := provider.New()
			cfg := asItself(p)
			tt.set(t, p, &cfg)
			s := newSource(t, cfg)
			if got := token(t, s); !p.Good(got) {
				t.Errorf("got %q", got)
			}
			forms := p.Forms()
			for field, want := range tt.want {
				if got := forms[0].Get(field); len(forms) != 1 || got != want[0] {
					t.Errorf("%s is %q, want %q, in %d requests", field, got, want[0], len(forms))
				}
			}
		})
	}
}

// TestSource_ahead: a token is used until it is near its end, and replaced ahead of it. It serves on while the
// endpoint is away.
func TestSource_ahead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		away := false
		p.Fail = func(url.Values) (int, string) {
			if away {
				return http.StatusServiceUnavailable, "<html>down</html>"
			}
			return 0, ""
		}
		s := newSource(t, asItself(p))
		var told events
		s.Watch(told.note)
		start := time.Now()
		first := token(t, s)
		time.Sleep(54 * time.Minute)
		if token(t, s) != first || len(p.Forms()) != 1 {
			t.Errorf("it was replaced long before its end: %d requests", len(p.Forms()))
		}
		away = true
		time.Sleep(2 * time.Minute)
		for range 10 {
			if got := token(t, s); got != first {
				t.Errorf("got %q, want the old one, which is still good", got)
			}
		}
		if n := len(p.Forms()); n != 2 {
			t.Errorf("%d requests, want one for the attempt ahead", n)
		}
		time.Sleep(5 * time.Minute)
		if got, err := s.Token(t.Context()); err == nil || strings.Contains(err.Error(), first) {
			t.Errorf("got %q, %v, after its end", got, err)
		}
		away = false
		time.Sleep(time.Minute)
		second := token(t, s)
		if second == first || !p.Good(second) {
			t.Errorf("got %q", second)
		}
		if first, last := told.all[0], told.all[len(told.all)-1]; !first.Expires.Equal(start.Add(time.Hour)) || last.Err != nil || told.all[1].Err == nil || told.all[1].Err.Refused {
			t.Errorf("told of %+v", told.all)
		}
	})
}

// TestSource_oneAtATime: of many connections one asks.
func TestSource_oneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		var mu sync.Mutex
		now, most := 0, 0
		cfg := asItself(p)
		cfg.Client = &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return p.Client().Transport.RoundTrip(r)
		})}
		s := newSource(t, cfg)
		var wg sync.WaitGroup
		got := make([]string, 50)
		for i := range got {
			wg.Go(func() { got[i], _ = s.Token(t.Context()) })
		}
		// One that does not want to wait is let go.
		hurried, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := s.Token(hurried); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		wg.Wait()
		for _, g := range got {
			if g != got[0] || g == "" {
				t.Errorf("got %q and %q", g, got[0])
			}
		}
		if len(p.Forms()) != 1 || most != 1 {
			t.Errorf("%d requests, %d at once", len(p.Forms()), most)
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestSource_impatient: who asks for all others may go away; the next one asks then, and nothing counts as a failure.
func TestSource_impatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		cfg, asked := asItself(p), 0
		cfg.Client = &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			if asked++; asked == 1 {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return p.Client().Transport.RoundTrip(r)
		})}
		s := newSource(t, cfg)
		var told events
		s.Watch(told.note)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Token(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if token(t, s) == "" || len(told.all) != 1 {
			t.Errorf("told of %v", told.all)
		}
	})
}

// TestSource_refused: a refusal holds, with growing pauses, until somebody changes what was refused. It costs no further requests, and no
// secret is in its words.
func TestSource_refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		cfg := forUser(t, p)
		p.RevokeRefresh()
		s := newSource(t, cfg)
		var told events
		s.Watch(told.note)
		var err error
		ask := func() {
			t.Helper()
			var got string
			if got, err = s.Token(t.Context()); err == nil {
				t.Errorf("got %q", got)
			}
		}
		ask()
		for range 50 {
			ask()
			time.Sleep(time.Second)
		}
		if n := len(p.Forms()); n != 1 {
			t.Errorf("%d requests within the first pause", n)
		}
		var refused *oauth.Error
		want := "OAuth 2: microsoft refuses a token: invalid_grant: AADSTS700082: The refresh token '(hidden)' has expired due to inactivity. " +
			"(the refresh token was not used for too long: somebody has to agree again: worker oauth login)"
		if !errors.As(err, &refused) || !refused.Refused || err.Error() != want || told.all[0].Err != refused {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		for range 24 * 60 { // a day, with a probe each minute
			time.Sleep(time.Minute)
			ask()
		}
		if n := len(p.Forms()); n < 24*4-10 || n > 24*4+10 {
			t.Errorf("%d requests in a day", n)
		}
		p.Allow("another-refresh-token")
		write(t, cfg.RefreshTokenFile, "another-refresh-token") // as worker oauth login does
		if !p.Good(token(t, s)) {
			t.Error("a new refresh token is not tried at once")
		}
	})
}

// TestSource_errors: what a provider may say, and what is made of it.
func TestSource_errors(t *testing.T) {
	for name, tt := range map[string]struct {
		status  int
		body    string
		refused bool
		want    string
	}{
		"wrong secret": {
			401, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret ` + provider.ClientSecret + ` provided.\r\nTrace ID: 77"}`, true,
			"OAuth 2: microsoft refuses a token: invalid_client: AADSTS7000215: Invalid client secret (hidden) provided. (EMAIL_OAUTH_CLIENT_SECRET has to be the secret's value, not its ID)",
		},
		"no description":  {400, `{"error":"invalid_scope"}`, true, "OAuth 2: microsoft refuses a token: invalid_scope (see EMAIL_OAUTH_SCOPE)"},
		"busy":            {429, `{"error":"invalid_request"}`, false, "OAuth 2: the token endpoint of microsoft does not answer as it should: invalid_request"},
		"not now":         {400, `{"error":"temporarily_unavailable"}`, false, "OAuth 2: the token endpoint of microsoft does not answer as it should: temporarily_unavailable"},
		"broken":          {500, `{"error":"server_error"}`, false, "OAuth 2: the token endpoint of microsoft does not answer as it should: server_error"},
		"a proxy's page":  {403, `<html>go away`, false, "OAuth 2: the token endpoint of microsoft does not answer as it should: HTTP status 403 Forbidden"},
		"nothing":         {200, ``, false, "OAuth 2: the token endpoint of microsoft does not answer as it should: "},
		"no token":        {200, `{"token_type":"Bearer"}`, false, "OAuth 2: the token endpoint of microsoft does not answer as it should: server response missing access_token"},
		"not a token":     {200, `{"access_token":"a\u0001b","token_type":"Bearer"}`, false, "OAuth 2: the token endpoint of microsoft does not answer as it should: what it has given is no access token"},
		"a redirection":   {307, ``, false, "OAuth 2: the token endpoint of microsoft does not answer as it should: HTTP status 307 Temporary Redirect"},
		"controls":        {400, `{"error":"invalid_grant","error_description":"a\u0007b\r\nc` + strings.Repeat("d", 1000) + `"}`, true, "OAuth 2: microsoft refuses a token: invalid_grant: a b cddd"},
		"not a known one": {400, `{"error":"x_new"}`, true, "OAuth 2: microsoft refuses a token: x_new"},
	} {
		t.Run(name, func(t *testing.T) {
			p := provider.New()
			p.Fail = func(url.Values) (int, string) { return tt.status, tt.body }
			_, err := newSource(t, asItself(p)).Token(t.Context())
			var e *oauth.Error
			if !errors.As(err, &e) || e.Refused != tt.refused || !strings.HasPrefix(err.Error(), tt.want) || len(err.Error()) > 500 {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if strings.Contains(err.Error(), provider.ClientSecret) {
				t.Errorf("the secret is in %v", err)
			}
		})
	}
}

// TestSource_away: an endpoint that does not answer is asked again after a pause, whoever asks meanwhile.
func TestSource_away(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		cfg, asked := asItself(p), 0
		cfg.Client = &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			asked++
			return nil, errors.New("connection refused")
		})}
		s := newSource(t, cfg)
		for range 600 {
			_, err := s.Token(t.Context())
			var e *oauth.Error
			if !errors.As(err, &e) || e.Refused || !strings.Contains(err.Error(), "connection refused") {
				t.Fatalf("got %v", err)
			}
			time.Sleep(time.Second)
		}
		if asked < 10 || asked > 20 {
			t.Errorf("asked %d times in ten minutes", asked)
		}
	})
}

// TestSource_Refused: a token that a server has refused is replaced, but not one that is new itself.
func TestSource_Refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		s := newSource(t, asItself(p))
		first := token(t, s)
		s.Refused(first)
		if token(t, s) != first {
			t.Error("a token of this moment is replaced")
		}
		time.Sleep(2 * time.Minute)
		s.Refused("another one")
		if token(t, s) != first {
			t.Error("a token is replaced because another one was refused")
		}
		s.Refused(first)
		second := token(t, s)
		if second == first || len(p.Forms()) != 2 {
			t.Errorf("got %q again", second)
		}
		s.Refused(first) // of another connection
		if token(t, s) != second {
			t.Error("the new token is replaced because the old one was refused")
		}
	})
}

// TestSource_rotated: another refresh token is written into the file, in one step and for its owner alone.
func TestSource_rotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		p.Rotate = true
		cfg := forUser(t, p)
		s := newSource(t, cfg)
		for range 5 {
			before := read(t, cfg.RefreshTokenFile)
			if !p.Good(token(t, s)) {
				t.Fatal("no token")
			}
			after := read(t, cfg.RefreshTokenFile)
			if info, err := os.Stat(cfg.RefreshTokenFile); err != nil || info.Mode().Perm() != 0o600 || after == before || !p.AllowsRefresh(strings.TrimSpace(after)) {
				t.Errorf("%q after %q: %v, %v", after, before, info.Mode(), err)
			}
			time.Sleep(time.Hour)
		}
		if names, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.RefreshTokenFile), "*")); err != nil || len(names) != 2 { // and the lock
			t.Errorf("left: %q, %v", names, err)
		}
	})
}

// TestSource_rotatedTogether: two processes with one file never use a refresh token twice.
func TestSource_rotatedTogether(t *testing.T) {
	p := provider.New()
	p.Rotate = true
	p.Life = time.Second // which is due after 800 ms
	cfg := forUser(t, p)
	var wg sync.WaitGroup
	for range 4 {
		s := newSource(t, cfg)
		wg.Go(func() {
			if _, err := s.Token(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(p.Forms()); n != 4 {
		t.Errorf("%d requests", n)
	}
}

// TestSource_notKept: where the file cannot be written, the new refresh token is used all the same, and that is told.
func TestSource_notKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider.New()
		p.Rotate = true
		cfg := forUser(t, p)
		// The file has a name so long that there can be none beside it that is longer: not even for root.
		long := filepath.Join(filepath.Dir(cfg.RefreshTokenFile), strings.Repeat("x", 250))
		if err := errors.Join(os.Rename(cfg.RefreshTokenFile, long), os.Symlink(long, cfg.RefreshTokenFile)); err != nil {
			t.Fatal(err)
		}
		s := newSource(t, cfg)
		var told events
		s.Watch(told.note)
		for range 3 {
			if !p.Good(token(t, s)) {
				t.Fatal("no token")
			}
			time.Sleep(time.Hour)
		}
		for _, e := range told.all {
			if e.Err != nil || e.NotKept == nil || strings.Contains(e.NotKept.Error(), "keep-me-hidden") {
				t.Errorf("told of %+v", e)
			}
		}
		if err := errors.Join(os.Remove(cfg.RefreshTokenFile), os.Rename(long, cfg.RefreshTokenFile)); err != nil {
			t.Fatal(err)
		}
		if got := token(t, s); !p.Good(got) || !p.AllowsRefresh(strings.TrimSpace(read(t, cfg.RefreshTokenFile))) {
			t.Errorf("the file holds %q", read(t, cfg.RefreshTokenFile))
		}
	})
}

// TestSource_noFile: without a refresh token nobody is asked; once it is there it is used at once.
func TestSource_noFile(t *testing.T) {
	p := provider.New()
	cfg := forUser(t, p)
	if err := os.Remove(cfg.RefreshTokenFile); err != nil {
		t.Fatal(err)
	}
	s := newSource(t, cfg)
	_, err := s.Token(t.Context())
	want := "OAuth 2: no token of microsoft: " + cfg.RefreshTokenFile + " has no refresh token yet: worker oauth login writes one"
	if err == nil || err.Error() != want || len(p.Forms()) != 0 {
		t.Errorf("got %v, want %s", err, want)
	}
	write(t, cfg.RefreshTokenFile, "two words")
	if _, err := s.Token(t.Context()); err == nil || strings.Contains(err.Error(), "two words") || len(p.Forms()) != 0 {
		t.Errorf("got %v", err)
	}
	write(t, cfg.RefreshTokenFile, provider.FirstRefresh+"\r\n")
	if !p.Good(token(t, s)) {
		t.Error("it is not used")
	}
}

func TestNew(t *testing.T) {
	for name, cfg := range map[string]oauth.Config{
		"provider":   {ClientID: "x", ClientSecret: "y"},
		"tenant":     {Provider: oauth.Microsoft, ClientID: "x", ClientSecret: "y"},
		"client":     {Provider: oauth.Microsoft, Tenant: "t", ClientSecret: "y"},
		"secret":     {Provider: oauth.Microsoft, Tenant: "t", ClientID: "x"},
		"google":     {Provider: oauth.Google, ClientID: "x", ClientSecret: "y"},
		"URL":        {Provider: oauth.Custom, ClientID: "x", ClientSecret: "y"},
		"clear URL":  {Provider: oauth.Custom, ClientID: "x", ClientSecret: "y", TokenURL: "http://login.example.com/token"},
		"user":       {Provider: oauth.Custom, ClientID: "x", ClientSecret: "y", TokenURL: "https://me:pw@login.example.com/token"},
		"device URL": {Provider: oauth.Custom, ClientID: "x", ClientSecret: "y", TokenURL: "https://login.example.com/token", DeviceURL: "ftp://x"},
		"key":        {Provider: oauth.Custom, TokenURL: "https://login.example.com/token", KeyFile: "x"},
		"both":       {Provider: oauth.Google, KeyFile: "x", RefreshTokenFile: "y"},
	} {
		if _, err := oauth.New(cfg); err == nil || !strings.HasPrefix(err.Error(), "oauth: config: ") || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, text := range map[string]string{"no file": "", "no JSON": "x", "another kind": `{"type":"authorized_user","client_id":"x"}`} {
		path := filepath.Join(t.TempDir(), "key")
		if text != "" {
			write(t, path, text)
		}
		if _, err := oauth.New(oauth.Config{Provider: oauth.Google, KeyFile: path}); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// TestConfig_secrets: no way to print a Config shows its secret.
func TestConfig_secrets(t *testing.T) {
	cfg := asItself(provider.New())
	if all := fmt.Sprintf("%v %+v %#v %s %v", cfg, cfg, cfg, cfg, []any{cfg, &cfg}); strings.Contains(all, provider.ClientSecret) || !strings.Contains(all, base) {
		t.Error(all)
	}
}
