package redis_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func TestOptions_TLS(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{TLS: true, Password: "secret"})
	set(t, s.Client(t), "kept")
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	ca := u.Query().Get("cafile")
	if u.Scheme != "rediss" || ca != s.CAFile() {
		t.Errorf("URL = %s", s.URL())
	}
	if _, err := os.Stat(ca); err != nil {
		t.Error(err)
	}
	for name, config := range map[string]*tls.Config{"no TLS": nil, "unknown authority": {MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1"}} {
		c := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: "secret", TLSConfig: config, MaxRetries: -1, DialerRetries: 1})
		if err := c.Ping(t.Context()).Err(); err == nil {
			t.Errorf("%s: the server is trusted", name)
		}
		_ = c.Close()
	}
}

func TestStartCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, redistest.Options{Password: "secret"})
	client := c.Client(t)
	for i := range 100 {
		if err := client.Set(t.Context(), fmt.Sprint("key", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	sum := 0
	for _, s := range c.Masters {
		n, err := s.Client(t).DBSize(t.Context()).Result()
		if err != nil || n == 0 {
			t.Errorf("%s has %d keys, %v, want some", s.Addr(), n, err)
		}
		sum += int(n)
	}
	if sum != 100 {
		t.Errorf("%d keys, want 100", sum)
	}
	want := fmt.Sprintf("redis://:secret@%s,%s,%s", c.Masters[0].Addr(), c.Masters[1].Addr(), c.Masters[2].Addr())
	if c.URL() != want {
		t.Errorf("URL = %s, want %s", c.URL(), want)
	}
}

func TestStartSentinel(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"", "secret"} {
		t.Run("password="+password, func(t *testing.T) {
			t.Parallel()
			s := redistest.StartSentinel(t, redistest.Options{Password: password})
			if got := strings.Count(s.URL(), "secret") > 1; got != (password != "") {
				t.Errorf("URL = %s", s.URL())
			}
			c := s.Client(t)
			if err := c.Set(t.Context(), "key", "kept", 0).Err(); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Wait(t.Context(), 1, 0).Result(); n != 1 || err != nil {
				t.Fatalf("WAIT = %d, %v", n, err)
			}
			s.Failover((*redistest.Server).Kill)
			if err := c.Set(t.Context(), "other", "new", 0).Err(); err != nil {
				t.Fatal(err)
			}
			wantValue(t, s.Servers[1].Client(t), "kept")
		})
	}
}
