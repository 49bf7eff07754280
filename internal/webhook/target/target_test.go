package target_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // of the specification's own tests

func whsec(n int) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\xfb\xef\xff", 30)[:n]))
}

func TestCheckSecret(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, secret string
		want         error
	}{
		{"24 bytes", secret, nil},
		{"64 bytes", whsec(64), nil},
		{"from a file with its newline", secret + "\n", nil},
		{"23 bytes", whsec(23), target.ErrSecretLength},
		{"65 bytes", whsec(65), target.ErrSecretLength},
		{"nothing behind the prefix", "whsec_", target.ErrSecretLength},
		{"empty", "", target.ErrSecretPrefix},
		{"no prefix", strings.TrimPrefix(secret, "whsec_"), target.ErrSecretPrefix},
		{"with v1, as some services show it", "v1," + secret, target.ErrSecretPrefix},
		{"an asymmetric key", "whsk_" + strings.TrimPrefix(secret, "whsec_"), target.ErrSecretPrefix},
		{"a placeholder", "whsec_your-secret!", target.ErrSecretBase64},
		{"padding left out", strings.TrimRight(whsec(25), "="), target.ErrSecretBase64},
		{"padding too short", strings.TrimSuffix(whsec(25), "="), target.ErrSecretBase64},
		{"bits behind the end", strings.TrimSuffix(whsec(25), "w==") + "x==", target.ErrSecretBase64},
		{"base64 for URLs", strings.NewReplacer("+", "-", "/", "_").Replace(whsec(24)), target.ErrSecretBase64},
		{"a line break within", whsec(24)[:12] + "\n" + whsec(24)[12:], target.ErrSecretBase64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := target.CheckSecret(tt.secret)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if body := strings.TrimPrefix(tt.secret, "whsec_"); err != nil && len(body) > 4 && strings.Contains(err.Error(), body) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
	if err := target.CheckSecret("v1," + secret); err == nil || !strings.Contains(err.Error(), "leave out the v1,") {
		t.Error(err)
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, url string
		private   bool
		want      error
	}{
		{"plain", "https://example.com/hooks/mail", false, nil},
		{"with port, query and login", "https://me:t0ken@example.com:8443/x?y=z", false, nil},
		{"http", "http://example.com/", false, target.ErrNotHTTPS},
		{"http where private is allowed", "http://127.0.0.1:8080/", true, nil},
		{"loopback", "https://127.0.0.1/", false, target.ErrPrivate},
		{"loopback by its name", "https://LocalHost./", false, target.ErrPrivate},
		{"metadata", "https://169.254.169.254/latest", false, target.ErrPrivate},
		{"mapped", "https://[::ffff:10.0.0.5]/", false, target.ErrPrivate},
		{"private where that is allowed", "https://10.0.0.5/", true, nil},
		{"fragment", "https://example.com/#t0ken", false, target.ErrFragment},
		{"empty fragment", "https://example.com/#", true, target.ErrFragment},
		{"no scheme", "example.com/t0ken", false, target.ErrURL},
		{"another scheme", "ftp://example.com/", true, target.ErrURL},
		{"no host", "https:///t0ken", false, target.ErrURL},
		{"opaque", "https:t0ken", false, target.ErrURL},
		{"broken", "https://example.com/%zzt0ken", false, target.ErrURL},
		{"port 0", "https://example.com:0/", false, target.ErrURL},
		{"port too big", "https://example.com:65536/", false, target.ErrURL},
		{"control character", "https://example.com/\x00t0ken", false, target.ErrURL},
		{"empty", "", false, target.ErrURL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := target.CheckURL(tt.url, tt.private)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "t0ken") {
				t.Errorf("the error shows the URL: %v", err)
			}
		})
	}
}

// The example of the specification's own tests: secret, message and signature.
func TestTarget_Sign(t *testing.T) {
	t.Parallel()
	to, err := target.New("https://example.com/hooks", []string{secret, whsec(32)}, false)
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	field := func(name string) string { return strings.Join(h[name], "|") } // of these letters
	to.Sign(h, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 999), []byte(`{"test": 2432232314}`))
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	got := strings.Fields(field("webhook-signature"))
	if len(got) != 2 || got[0] != want || !strings.HasPrefix(got[1], "v1,") || got[1] == want {
		t.Errorf("signatures %q", got)
	}
	for _, name := range []string{"id", "timestamp", "signature"} {
		if one, other := h["webhook-"+name], h["svix-"+name]; len(one) != 1 || len(other) != 1 || one[0] != other[0] {
			t.Errorf("%s: %q and %q", name, one, other)
		}
	}
	if field("webhook-timestamp") != "1614265330" || field("webhook-id") != "msg_p5jXN8AQM9LWM0D4loKWxJek" {
		t.Errorf("%v", h)
	}
}

func TestTarget_Key(t *testing.T) {
	t.Parallel()
	key := func(url string) string {
		to, err := target.New(url, []string{secret}, false)
		if err != nil {
			t.Fatal(err)
		}
		return to.Key()
	}
	first := key("https://example.com/a?token=1")
	for _, url := range []string{"https://example.com/a", "https://[2606:4700::1]:8443/a", "https://müller.example/", "https://" + strings.Repeat("abc.", 30) + "example/"} {
		if k := key(url); !regexp.MustCompile("^[a-z0-9-]{1,47}$").MatchString(k) || strings.HasPrefix(k, "-") {
			t.Errorf("%s is %q", url, k)
		}
	}
	if !strings.HasPrefix(first, "example-com-") {
		t.Errorf("%q", first)
	}
	for _, same := range []string{"https://example.com/a", "https://EXAMPLE.com/a?token=2", "https://u:p@example.com/a"} {
		if key(same) != first {
			t.Errorf("%s is another one", same)
		}
	}
	for _, other := range []string{"https://example.com/b", "https://example.com:8443/a", "https://www.example.com/a"} {
		if key(other) == first {
			t.Errorf("%s is the same", other)
		}
	}
}

// Nothing that is printed shows the secret, or more of the URL than its host.
func TestTarget_hides(t *testing.T) {
	t.Parallel()
	to, err := target.New("https://me:t0ken@Example.com:8443/t0ken?t0ken", []string{secret}, false)
	if err != nil {
		t.Fatal(err)
	}
	one, err := target.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal([]any{to, one, struct{ S target.Secret }{one}})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		text := fmt.Sprintf(verb, to) + fmt.Sprintf(verb, &to) + fmt.Sprintf(verb, []any{to, one}) + fmt.Sprintf(verb, struct{ T target.Target }{to}) + string(asJSON)
		for _, not := range []string{"t0ken", "MfKQ9r8G", "31f2", "49 242"} {
			if strings.Contains(text, not) {
				t.Errorf("%s shows it: %s", verb, text)
			}
		}
	}
	said := `{"error":"Cannot POST /hooks/t0ken-of-hook?key=t0ken%2Fof-key","seen":["t0ken/of-key","t0ken-of-hook","mail"],"auth":"Basic bWU6dDBrZW4tb2YtbWU=","you":"t0ken-of-me"}`
	long, err := target.New("https://me:t0ken-of-me@example.com/hooks/t0ken-of-hook?key=t0ken%2Fof-key", []string{secret}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"error":"Cannot POST (hidden)","seen":["(hidden)","(hidden)","mail"],"auth":"Basic (hidden)","you":"(hidden)"}`
	if got := long.Hide(said + strings.TrimPrefix(secret, "whsec_")); got != want+"(hidden)" {
		t.Errorf("of %s it says\n%s, want\n%s", said, got, want)
	}
	if to.Name() != "example.com:8443" || to.URL() != "https://me:t0ken@Example.com:8443/t0ken?t0ken" {
		t.Errorf("%s, %s", to.Name(), to.URL())
	}
	if got := fmt.Sprint(target.Target{}); got != "" {
		t.Errorf("the zero value prints %q", got)
	}
}
