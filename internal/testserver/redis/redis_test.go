package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silent{}) // it tells of each connection that a killed server refuses
	goleak.VerifyTestMain(m)
}

func set(t *testing.T, c *redis.Client, value string) {
	t.Helper()
	if err := c.Set(t.Context(), "key", value, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func wantValue(t *testing.T, c *redis.Client, want string) {
	t.Helper()
	got, err := c.Get(t.Context(), "key").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("key = %q, want %q", got, want)
	}
}

func TestServer_Restart(t *testing.T) {
	tests := []struct {
		name string
		opts redistest.Options
		end  func(*redistest.Server)
		want string
	}{
		{name: "off/stop", end: (*redistest.Server).Stop, want: ""},
		{name: "off/kill", end: (*redistest.Server).Kill, want: ""},
		{name: "everysec/stop", opts: redistest.Options{AppendOnly: redistest.EverySec}, end: (*redistest.Server).Stop, want: "kept"},
		{name: "always/kill", opts: redistest.Options{AppendOnly: redistest.Always}, end: (*redistest.Server).Kill, want: "kept"},
		{name: "snapshot/stop", opts: redistest.Options{Config: []string{"save 3600 1"}}, end: (*redistest.Server).Stop, want: "kept"},
		{name: "always/running", opts: redistest.Options{AppendOnly: redistest.Always}, end: func(*redistest.Server) {}, want: "kept"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := redistest.Start(t, tt.opts)
			addr := s.Addr()
			c := s.Client(t)
			set(t, c, "kept")
			tt.end(s)
			s.Restart()
			if s.Addr() != addr {
				t.Errorf("address after restart = %s, want %s", s.Addr(), addr)
			}
			wantValue(t, s.Client(t), tt.want)
		})
	}
}

func TestServer_Stop_refusesConnections(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	s.Stop()
	s.Stop()
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = conn.Close()
		t.Error("a stopped server takes connections")
	}
}

func TestServer_URL(t *testing.T) {
	tests := []struct {
		name string
		opts redistest.Options
		user string
	}{
		{name: "open", user: "default"},
		{name: "password", opts: redistest.Options{Password: `p@ "ss\`}, user: "default"},
		{name: "user", opts: redistest.Options{Username: "mail", Password: "s3cret/%"}, user: "mail"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := redistest.Start(t, tt.opts)
			opts, err := redis.ParseURL(s.URL())
			if err != nil {
				t.Fatal(err)
			}
			c := redis.NewClient(opts)
			t.Cleanup(func() { _ = c.Close() })
			who, err := c.Do(t.Context(), "ACL", "WHOAMI").Text()
			if err != nil || who != tt.user {
				t.Errorf("WHOAMI = %q, %v, want %q", who, err, tt.user)
			}
			wantRefused(t, s, tt.opts.Password != "")
		})
	}
}

func wantRefused(t *testing.T, s *redistest.Server, refused bool) {
	t.Helper()
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(&redis.Options{Addr: u.Host})
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Ping(t.Context()).Err(); (err != nil) != refused {
		t.Errorf("ping without password: %v, want it refused: %v", err, refused)
	}
}

func TestServer_Pause(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := s.Client(t)
	set(t, c, "before")
	s.Pause()
	s.Pause()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	impatient := redis.NewClient(&redis.Options{Addr: s.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = impatient.Close() })
	var timeout net.Error
	if err := impatient.Ping(short).Err(); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("ping of a paused server: %v, want a timeout", err)
	}
	s.Resume()
	wantValue(t, c, "before")
	s.Pause()
	s.Restart()
	wantValue(t, s.Client(t), "")
}

func TestOptions_memory(t *testing.T) {
	s := redistest.Start(t, redistest.Options{MaxMemory: "32mb", MaxMemoryPolicy: "allkeys-lru"})
	got, err := s.Client(t).ConfigGet(t.Context(), "maxmemory*").Result()
	if err != nil {
		t.Fatal(err)
	}
	if got["maxmemory"] != "33554432" || got["maxmemory-policy"] != "allkeys-lru" {
		t.Errorf("config = %v", got)
	}
}

func TestStart_twoAtOnce(t *testing.T) {
	a, b := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
	set(t, a.Client(t), "a")
	wantValue(t, b.Client(t), "")
}

// recorder notes how a helper ends the test that it is given.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.failed = fmt.Sprint(args...)
	runtime.Goexit()
}

func TestStart_notInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, ci := range []string{"", "true"} {
		t.Setenv("CI", ci)
		r := &recorder{TB: t}
		var wg sync.WaitGroup
		wg.Go(func() { redistest.Start(r, redistest.Options{}) })
		wg.Wait()
		got, other := r.skipped, r.failed
		if ci != "" {
			got, other = other, got
		}
		if !strings.Contains(got, "apt-get install redis-server") || other != "" {
			t.Errorf("CI=%q: skipped with %q, failed with %q", ci, r.skipped, r.failed)
		}
	}
}
