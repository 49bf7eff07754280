package settings

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const password = "hunter2"

// shown returns v in every way in which a program may print it by accident.
func shown(t *testing.T, v any) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		all[verb] = fmt.Sprintf(verb, v)
	}
	asJSON, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	all["JSON"] = string(asJSON)
	return all
}

func TestSecretsAreNotShown(t *testing.T) {
	s, warnings := load(t, map[string]string{
		"EMAIL_HOST_PASSWORD": password, "EMAIL_HOST": "mx.example.com", "EMAIL_PORT": "465",
		"REDIS_URL": "redis://app:" + password + "@redis:6379/0?password=" + password,
	})
	type program struct{ settings Settings } // fmt does not ask the methods of what is unexported
	for name, v := range map[string]any{
		"settings": s, "pointer": &s, "unexported": program{s}, "password": s.SMTP.Password, "URL": s.Queue.RedisURL,
		"list": []any{s.SMTP.Password, s.Queue.RedisURL}, "description": Describe(s), "warnings": warnings,
	} {
		for how, text := range shown(t, v) {
			for _, leak := range []string{password, fmt.Sprintf("%x", password), fmt.Sprintf("%X", password)} {
				if strings.Contains(text, leak) {
					t.Errorf("%s as %s shows the password: %s", name, how, text)
				}
			}
		}
	}
	if s.SMTP.Password.Reveal() != password || !strings.Contains(s.Queue.RedisURL.Reveal(), password) {
		t.Error("Reveal does not")
	}
	if got := fmt.Sprint(s.SMTP.Password); got != "[redacted]" {
		t.Errorf("a Secret prints as %q", got)
	}
}

func TestSecretsAreNotInProblems(t *testing.T) {
	for _, tt := range []struct{ name, variable, value string }{
		{"control character", "EMAIL_HOST_PASSWORD", password + "\x01"},
		{"scheme", "REDIS_URL", "http://:" + password + "@h"},
		{"no scheme", "REDIS_URL", ":" + password + "@h"},
		{"# in the password", "REDIS_URL", "redis://:12#" + password + "@h"},
		{"/ in the password", "REDIS_URL", "redis://:12/" + password + "@h"},
		{"? in the password", "REDIS_URL", "redis://:12?" + password + "@h"},
		{"blank in the password", "REDIS_URL", "redis://:a " + password + "@h"},
		{"% in the password", "REDIS_URL", "redis://:%zz" + password + "@h"},
		{"comma in the password", "REDIS_URL", "redis://:a,b" + password + "/0"},
		{"database", "REDIS_URL", "redis://h/" + password},
		{"port", "REDIS_URL", "redis://h:" + password},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, map[string]string{tt.variable: tt.value})
			s, warnings, err := Load()
			if err == nil || !strings.HasPrefix(err.Error(), tt.variable+": ") {
				t.Fatalf("want an error for %s, got %v", tt.variable, err)
			}
			for how, text := range shown(t, []any{s, err.Error(), warnings, Describe(s)}) {
				if strings.Contains(text, password) {
					t.Errorf("%s shows the password: %s", how, text)
				}
			}
		})
	}
}

func TestSecret_Empty(t *testing.T) {
	for how, text := range shown(t, Secret{}) {
		if text != "" && text != `""` {
			t.Errorf("%s of an empty secret: %s", how, text)
		}
	}
	if NewSecret("").String() != "" || (Secret{}).Reveal() != "" {
		t.Error("an empty secret is not empty")
	}
	if s := (URL{}); s.String() != "" || s.Reveal() != "" {
		t.Error("an empty URL is not empty")
	}
}

func TestURL(t *testing.T) {
	for _, tt := range []struct{ name, url, want string }{
		{"host", "redis://h", "redis://h"},
		{"database", "redis://h:6379/3", "redis://h:6379/3"},
		{"slash", "redis://h:6379/", "redis://h:6379/"},
		{"IPv6", "redis://[::1]:6379/0", "redis://[::1]:6379/0"},
		{"user and password", "rediss://u:pw@h:1/0", "rediss://u:[redacted]@h:1/0"},
		{"password", "redis://:pw@h", "redis://:[redacted]@h"},
		{"@ in the password", "redis://u:p@w@h", "redis://u:[redacted]@h"},
		{"comma in the password", "redis://u:p,w@h", "redis://u:[redacted]@h"},
		{"name or password", "redis://pw@h", "redis://[redacted]@h"},
		{"parameters", "redis://h?dial_timeout=3s&password=pw", "redis://h?dial_timeout=3s&password=[redacted]"},
		{"cluster", "redis://u:pw@a:1,b:2,c:3", "redis://u:[redacted]@a:1,b:2,c:3"},
		{"sentinel password", "rediss-sentinel://a:1?master=m&sentinel_password=pw", "rediss-sentinel://a:1?master=m&sentinel_password=[redacted]"},
		{"sentinel", "redis-sentinel://:pw@a:1,b:2/0?master=m", "redis-sentinel://:[redacted]@a:1,b:2/0?master=m"},
		{"socket", "unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"},
		{"socket and password", "unix://u:pw@/run/redis.sock", "unix://u:[redacted]@/run/redis.sock"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := NewURL(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			if u.String() != tt.want {
				t.Errorf("got %s, want %s", u, tt.want)
			}
			if u.Reveal() != tt.url {
				t.Errorf("revealed as %s", u.Reveal())
			}
		})
	}
}

func TestURL_Bad(t *testing.T) {
	for _, tt := range []struct{ name, url, want string }{
		{"scheme", "http://h", "has to begin with redis://"},
		{"none", "h:6379", "has to begin with redis://"},
		{"no host", "redis:///0", "needs a host"},
		{"port alone", "redis://:6379", "needs a host"},
		{"hole in the list", "redis://a:1,,b:2", "needs a host"},
		{"port", "redis://h:x", "is not a URL"},
		{"port in the list", "redis://a:1,b:x", "is not a URL"},
		{"database", "redis://h/mail", "may have the number of a database"},
		{"negative database", "redis://h/-1", "may have the number of a database"},
		{"two databases", "redis://h/1/2", "may have the number of a database"},
		{"fragment", "redis://h#1", "is not a URL"},
		{"socket with a host", "unix://h/run/redis.sock", "needs the path of a socket and no host"},
		{"no socket", "unix://", "needs the path of a socket"},
		{"no master", "redis-sentinel://a:1,b:2", "needs the master's name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := NewURL(tt.url)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %q, want %q", err, tt.want)
			}
			if u.Reveal() != "" {
				t.Errorf("a bad URL is kept: %q", u.Reveal())
			}
		})
	}
}
