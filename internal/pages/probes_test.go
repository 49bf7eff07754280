package pages

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// TestReady: each thing that keeps mail from flowing makes the worker not ready, and
// a stranger hears of it no more than that.
func TestReady(t *testing.T) {
	t.Parallel()
	client := connect(t, redistest.Start(t, redistest.Options{}).URL())
	ended := make(chan struct{})
	close(ended)
	held := func() map[string]error {
		return map[string]error{"": errors.New("535 for shop@example.com"), "marketing": errors.New("connection refused")}
	}
	tests := []struct {
		name           string
		cfg            Config
		code           int
		friend, public string
	}{
		{
			"all is well", Config{Redis: client}, http.StatusOK,
			`{"ready":true,"worker":"running","redis":"ok","mailers":"ok"}`,
			`{"ready":true,"worker":"running","redis":"ok","mailers":"ok"}`,
		},
		{
			"relays held", Config{Redis: client, Held: held}, http.StatusServiceUnavailable,
			`{"ready":false,"worker":"running","redis":"ok","mailers":"held","held":{"default":"535 for s***@example.com","marketing":"connection refused"}}`,
			`{"ready":false,"worker":"running","redis":"ok","mailers":"held"}`,
		},
		{
			"ending", Config{Redis: client, Ending: ended}, http.StatusServiceUnavailable,
			`{"ready":false,"worker":"ending","redis":"ok","mailers":"ok"}`,
			`{"ready":false,"worker":"ending","redis":"ok","mailers":"ok"}`,
		},
		{
			"no Redis", Config{Redis: away(t)}, http.StatusServiceUnavailable,
			`{"ready":false,"worker":"running","redis":"unreachable","mailers":"ok","redis_error":"dial tcp 127.0.0.1:1: connect: connection refused"}`,
			`{"ready":false,"worker":"running","redis":"unreachable","mailers":"ok"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.Password = secret("hunter2")
			s := serve(t, tt.cfg)
			for who, want := range map[string]string{"hunter2": tt.friend, "wrong": tt.public} {
				reply, body := get(t, s, "/readyz", password(who))
				if body = strings.TrimSpace(body); reply.StatusCode != tt.code || body != want {
					t.Errorf("with %q: %s: %s\nwant %d: %s", who, reply.Status, body, tt.code, want)
				}
			}
			if reply, _ := get(t, s, "/healthz"); reply.StatusCode != http.StatusOK {
				t.Errorf("/healthz: %s", reply.Status)
			}
		})
	}
}

// A Redis that goes away, or says nothing, is noticed soon, and so is its return.
func TestReady_redisGoes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := serve(t, Config{Redis: connect(t, server.URL())})
	ready := func() (bool, time.Duration) {
		start := time.Now()
		reply, _ := get(t, s, "/readyz")
		return reply.StatusCode == http.StatusOK, time.Since(start)
	}
	until := func(want bool, after string) {
		t.Helper()
		for start := time.Now(); ; {
			got, took := ready()
			if took > 10*time.Second {
				t.Errorf("%s: the answer took %v", after, took)
			}
			if got == want {
				return
			}
			if time.Since(start) > 30*time.Second {
				t.Fatalf("%s: ready = %v", after, got)
			}
		}
	}
	until(true, "at the start")
	server.Pause()
	until(false, "paused")
	_, body := get(t, s, "/status.json")
	var got status
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.State != "redis" || got.Redis == "" {
		t.Errorf("the page with a silent Redis: %v: %s", err, body)
	}
	server.Resume()
	until(true, "resumed")
	server.Kill()
	until(false, "killed")
	if reply, _ := get(t, s, "/healthz"); reply.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %s", reply.Status)
	}
	server.Restart()
	until(true, "restarted")
}

// A Redis that answers and refuses to write is named, within the time that an answer serves, and its recovery too.
func TestReady_redisRefuses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := serve(t, Config{Redis: connect(t, server.URL())})
	for _, tt := range []struct{ setting, bad, good, why string }{
		{"maxmemory", "1", "0", "Redis is full and takes no mail: raise its maxmemory, or see what fills it: OOM"},
		{"min-replicas-to-write", "1", "0", "Redis has too few replicas (min-replicas-to-write) and takes no mail until they are back: NOREPLICAS"},
	} {
		for _, well := range []bool{false, true} {
			value, want := tt.bad, `{"ready":false,"worker":"running","redis":"refuses writes","mailers":"ok","redis_error":"`+tt.why
			if well {
				value, want = tt.good, `{"ready":true,"worker":"running","redis":"ok"`
			}
			if err := server.Client(t).ConfigSet(t.Context(), tt.setting, value).Err(); err != nil {
				t.Fatal(err)
			}
			s.write.mu.Lock()
			s.write.at = time.Time{} // the last answer is too old
			s.write.mu.Unlock()
			if _, body := get(t, s, "/readyz"); !strings.HasPrefix(body, want) {
				t.Errorf("%s %s: %s\nwant %s", tt.setting, value, body, want)
			}
			var page status
			if _, body := get(t, s, "/status.json"); json.Unmarshal([]byte(body), &page) != nil || page.Redis != "" || (page.Refuses == "") != well {
				t.Errorf("%s %s: the page: %s", tt.setting, value, body)
			}
		}
	}
}

// However many ask, Redis is asked once, and not for the sake of the first alone.
func TestCached(t *testing.T) {
	t.Parallel()
	asked := 0
	failure := errors.New("away")
	c := cached[int]{read: func(ctx context.Context) (int, error) {
		asked++
		if _, bounded := ctx.Deadline(); !bounded || ctx.Err() != nil {
			t.Errorf("asked without a time-out, or for somebody who has gone: %v", ctx.Err())
		}
		return asked, failure
	}}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if n, err := c.get(gone); n != 1 || !errors.Is(err, failure) {
				t.Errorf("got %d, %v", n, err)
			}
		})
	}
	all.Wait()
	c.at = time.Now().Add(-fresh)
	if n, _ := c.get(gone); n != 2 {
		t.Errorf("asked %d times, want again when the answer is old", n)
	}
}
