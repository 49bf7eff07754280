package settings

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// microsoftVars are settings that are complete.
func microsoftVars() map[string]string {
	return map[string]string{
		"EMAIL_HOST": "smtp.office365.com", "EMAIL_PORT": "587", "EMAIL_USE_TLS": "true", "EMAIL_HOST_USER": "shop@example.com",
		"EMAIL_OAUTH": "microsoft", "EMAIL_OAUTH_TENANT": "contoso.onmicrosoft.com", "EMAIL_OAUTH_CLIENT_ID": "id", "EMAIL_OAUTH_CLIENT_SECRET": "hunter2hunter2",
	}
}

func with(vars map[string]string, more ...string) map[string]string {
	vars = maps.Clone(vars)
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return vars
}

// Every setting of a login with a token is read, for the default mailer and for a named one.
func TestLoad_OAuth(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(key, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for name, vars := range map[string]map[string]string{
		"microsoft, as itself":  microsoftVars(),
		"microsoft, for a user": with(microsoftVars(), "EMAIL_OAUTH_CLIENT_SECRET", "", "EMAIL_OAUTH_REFRESH_TOKEN_FILE", "/nowhere/yet", "EMAIL_AUTH_MECHANISMS", "xoauth2"),
		"google, a service account": {
			"EMAIL_URL": "smtp+starttls://shop%40example.com@smtp.gmail.com", "EMAIL_OAUTH": "google", "EMAIL_OAUTH_KEY_FILE": key,
		},
		"google, for a user": {
			"EMAIL_HOST": "smtp.gmail.com", "EMAIL_PORT": "465", "EMAIL_USE_SSL": "true", "EMAIL_HOST_USER": "shop@example.com",
			"EMAIL_OAUTH": "google", "EMAIL_OAUTH_CLIENT_ID": "id", "EMAIL_OAUTH_CLIENT_SECRET": "s", "EMAIL_OAUTH_REFRESH_TOKEN_FILE": "/nowhere/yet",
		},
		"custom": {
			"EMAIL_HOST": "localhost", "EMAIL_HOST_USER": "shop", "EMAIL_OAUTH": "Custom", "EMAIL_OAUTH_CLIENT_ID": "id", "EMAIL_OAUTH_CLIENT_SECRET": "s",
			"EMAIL_OAUTH_TOKEN_URL": "http://127.0.0.1:8000/token", "EMAIL_OAUTH_DEVICE_URL": "https://login.example.com/device", "EMAIL_OAUTH_SCOPE": "mail offline_access",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, warnings := load(t, vars)
			if len(warnings) > 0 || !s.OAuth.On() {
				t.Errorf("%+v, warnings %q", s.OAuth, warnings)
			}
			named := map[string]string{"EMAIL_MAILERS": "m"}
			for v, value := range vars {
				named["EMAIL_M_"+strings.TrimPrefix(v, "EMAIL_")] = value
			}
			all, _ := load(t, named)
			m := mustNamed(t, all, "m")
			if got, want := values(m), values(s); !maps.Equal(got, want) {
				t.Errorf("the named mailer has %v, want %v", got, want)
			}
			if all.OAuth.On() {
				t.Error("the default mailer has what is a named one's")
			}
			unset := values(Default())
			for end, value := range values(s) {
				if value != unset[end] {
					seen[end] = true
				}
			}
		})
	}
	for _, f := range fields(&Settings{}) {
		if strings.HasPrefix(f.name, oauthVariable) && !seen[strings.TrimPrefix(f.name, prefix)] {
			t.Errorf("%s is not tested", f.name)
		}
	}
}

// What is wrong is named, with what to do.
func TestLoad_OAuthProblems(t *testing.T) {
	google := map[string]string{"EMAIL_HOST": "smtp.gmail.com", "EMAIL_PORT": "587", "EMAIL_USE_TLS": "true", "EMAIL_HOST_USER": "shop@example.com", "EMAIL_OAUTH": "google"}
	custom := with(google, "EMAIL_OAUTH", "custom", "EMAIL_OAUTH_CLIENT_ID", "id", "EMAIL_OAUTH_CLIENT_SECRET", "s", "EMAIL_OAUTH_TOKEN_URL", "https://login.example.com/token")
	for name, tt := range map[string]struct {
		vars map[string]string
		want []string // beginnings of the problems, in this order
	}{
		"unknown":          {with(microsoftVars(), "EMAIL_OAUTH", "azure"), []string{`EMAIL_OAUTH: "azure" is not allowed`}},
		"no user":          {with(microsoftVars(), "EMAIL_HOST_USER", ""), []string{"EMAIL_HOST_USER: is missing: the mailbox"}},
		"password too":     {with(microsoftVars(), "EMAIL_HOST_PASSWORD", "hunter2"), []string{"EMAIL_HOST_PASSWORD: excludes EMAIL_OAUTH"}},
		"no TLS":           {with(microsoftVars(), "EMAIL_USE_TLS", ""), []string{"EMAIL_USE_TLS: a token goes to another machine over TLS only: set EMAIL_USE_TLS or EMAIL_USE_SSL"}},
		"no TLS, allowed":  {with(microsoftVars(), "EMAIL_USE_TLS", "", "EMAIL_ALLOW_INSECURE_AUTH", "true"), []string{"EMAIL_USE_TLS: a token goes"}},
		"no host":          {with(microsoftVars(), "EMAIL_HOST", "", "EMAIL_USE_TLS", "", "EMAIL_PORT", ""), []string{"EMAIL_HOST: is missing: with EMAIL_OAUTH it is most often smtp.office365.com, with EMAIL_PORT 587"}},
		"password's words": {with(microsoftVars(), "EMAIL_AUTH_MECHANISMS", "PLAIN"), []string{"EMAIL_AUTH_MECHANISMS: XOAUTH2 or OAUTHBEARER goes with EMAIL_OAUTH"}},
		"token's words":    {map[string]string{"EMAIL_AUTH_MECHANISMS": "PLAIN,XOAUTH2"}, []string{"EMAIL_AUTH_MECHANISMS: XOAUTH2 or OAUTHBEARER goes with EMAIL_OAUTH"}},
		"microsoft, bare": {
			with(microsoftVars(), "EMAIL_OAUTH_TENANT", "", "EMAIL_OAUTH_CLIENT_ID", "", "EMAIL_OAUTH_CLIENT_SECRET", ""),
			[]string{"EMAIL_OAUTH_CLIENT_ID: is missing", "EMAIL_OAUTH_CLIENT_SECRET: is missing: the application's secret, or set EMAIL_OAUTH_REFRESH_TOKEN_FILE and run worker oauth login", "EMAIL_OAUTH_TENANT: is missing"},
		},
		"tenant is a URL": {with(microsoftVars(), "EMAIL_OAUTH_TENANT", "https://x/y"), []string{`EMAIL_OAUTH_TENANT: "https://x/y" is neither`}},
		"microsoft's key": {with(microsoftVars(), "EMAIL_OAUTH_KEY_FILE", os.DevNull), []string{"EMAIL_OAUTH_KEY_FILE: is Google's"}},
		"google, bare": {google, []string{
			"EMAIL_OAUTH_CLIENT_ID: is missing", "EMAIL_OAUTH_CLIENT_SECRET: is missing: Google gives", "EMAIL_OAUTH_KEY_FILE: is missing: the key of a service account, or set EMAIL_OAUTH_REFRESH_TOKEN_FILE",
		}},
		"google, both":      {with(google, "EMAIL_OAUTH_KEY_FILE", os.DevNull, "EMAIL_OAUTH_REFRESH_TOKEN_FILE", "/x"), []string{"EMAIL_OAUTH_KEY_FILE: excludes EMAIL_OAUTH_REFRESH_TOKEN_FILE"}},
		"google, no file":   {with(google, "EMAIL_OAUTH_KEY_FILE", "/nowhere/key.json"), []string{"EMAIL_OAUTH_KEY_FILE: cannot be read: "}},
		"google's tenant":   {with(google, "EMAIL_OAUTH_KEY_FILE", os.DevNull, "EMAIL_OAUTH_TENANT", "x"), []string{"EMAIL_OAUTH_TENANT: is Microsoft's"}},
		"custom, no URL":    {with(custom, "EMAIL_OAUTH_TOKEN_URL", ""), []string{"EMAIL_OAUTH_TOKEN_URL: is missing"}},
		"custom, clear URL": {with(custom, "EMAIL_OAUTH_TOKEN_URL", "http://login.example.com/token"), []string{`EMAIL_OAUTH_TOKEN_URL: "http://login.example.com/token" is not the URL of an endpoint`}},
		"custom, no secret": {with(custom, "EMAIL_OAUTH_CLIENT_SECRET", ""), []string{"EMAIL_OAUTH_CLIENT_SECRET: is missing"}},
		"device URL":        {with(custom, "EMAIL_OAUTH_DEVICE_URL", "login.example.com"), []string{`EMAIL_OAUTH_DEVICE_URL: "login.example.com" is not the URL`}},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, tt.vars)
			_, _, err := Load()
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			var got []string
			for _, p := range problems {
				got = append(got, p.Error())
			}
			slices.Sort(got)
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) || strings.Contains(got[i], "hunter2") {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
		})
	}
}

// What is set without EMAIL_OAUTH is warned of: there is no login.
func TestLoad_OAuthOff(t *testing.T) {
	_, warnings := load(t, map[string]string{"EMAIL_OAUTH_CLIENT_ID": "id", "EMAIL_MAILERS": "m", "EMAIL_M_HOST": "mx.example.com", "EMAIL_M_OAUTH_SCOPE": "x"})
	want := []string{
		"EMAIL_OAUTH_CLIENT_ID: has no effect without EMAIL_OAUTH: set it to microsoft, google or custom",
		"EMAIL_M_OAUTH_SCOPE: has no effect without EMAIL_M_OAUTH: set it to microsoft, google or custom",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings %q", warnings)
	}
}

// A program that leaves its mail to a worker need not have what only the worker uses.
func TestLoad_OAuthQueue(t *testing.T) {
	_, warnings := load(t, with(microsoftVars(), "EMAIL_BACKEND", "queue", "EMAIL_OAUTH_CLIENT_SECRET", ""))
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "EMAIL_OAUTH_CLIENT_SECRET: is missing") {
		t.Errorf("warnings %q", warnings)
	}
}
