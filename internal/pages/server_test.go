package pages

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/presence"
	"github.com/mailpouch/mailpouch/internal/queuestats"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// away is a client for a Redis that is not there.
func away(t testing.TB) redis.UniversalClient { return connect(t, "redis://127.0.0.1:1/0") }

// TestAccess: who sees what, by the address, what is set and what is sent.
func TestAccess(t *testing.T) {
	t.Parallel()
	open := serve(t, Config{Redis: away(t)})
	withPassword := serve(t, Config{Redis: away(t), Password: secret("hunter2")})
	withToken := serve(t, Config{Redis: away(t), Token: secret("t0ken")})
	withBoth := serve(t, Config{Redis: away(t), Addr: "0.0.0.0:0", Password: secret("hunter2"), Token: secret("t0ken")})
	const ok, no = http.StatusOK, http.StatusUnauthorized
	tests := []struct {
		name   string
		server *Server
		with   func(*http.Request)
		want   int
	}{
		{"open, nothing sent", open, nil, ok},
		{"open, a password sent", open, password("x"), ok},
		{"password, nothing sent", withPassword, nil, no},
		{"password, right", withPassword, password("hunter2"), ok},
		{"password, wrong", withPassword, password("hunter3"), no},
		{"password, its beginning", withPassword, password("hunter"), no},
		{"password, empty", withPassword, password(""), no},
		{"password, as a token", withPassword, bearer("hunter2"), no},
		{"password, a broken header", withPassword, header("Authorization", "Basic !!!"), no},
		{"token, nothing sent", withToken, nil, no},
		{"token, right", withToken, bearer("t0ken"), ok},
		{"token, with a small b", withToken, header("Authorization", "bearer t0ken"), ok},
		{"token, wrong", withToken, bearer("t0kem"), no},
		{"token, empty", withToken, bearer(""), no},
		{"token, as a password", withToken, password("t0ken"), no},
		{"token, no kind", withToken, header("Authorization", "t0ken"), no},
		{"both, nothing sent", withBoth, nil, no},
		{"both, the password", withBoth, password("hunter2"), ok},
		{"both, the token", withBoth, bearer("t0ken"), ok},
		{"both, the wrong way round", withBoth, bearer("hunter2"), no},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var with []func(*http.Request)
			if tt.with != nil {
				with = append(with, tt.with)
			}
			for _, path := range []string{"/", "/status.json", "/monitor/", "/monitor/api/queues", "/monitor/static/js/x.js"} {
				reply, body := get(t, tt.server, path, with...)
				passed := reply.StatusCode != no
				if passed != (tt.want == ok) {
					t.Errorf("%s: %s", path, reply.Status)
				}
				if !passed && (reply.Header.Get("WWW-Authenticate") == "" || strings.Contains(body, "Mailpouch<")) {
					t.Errorf("%s: no challenge, or something shown: %v %s", path, reply.Header, body)
				}
			}
			for _, path := range []string{"/healthz", "/readyz"} { // probes need no password
				if reply, _ := get(t, tt.server, path, with...); reply.StatusCode == no {
					t.Errorf("%s: %s", path, reply.Status)
				}
			}
		})
	}
}

// A page elsewhere whose name is made to mean 127.0.0.1 sees nothing.
func TestAccess_hosts(t *testing.T) {
	t.Parallel()
	loopback := serve(t, Config{Redis: away(t)})
	named := serve(t, Config{Redis: away(t), Hosts: []string{"Mail.example.com"}})
	everywhere := serve(t, Config{Redis: away(t), Addr: "0.0.0.0:0", Token: secret("t")})
	strict := serve(t, Config{Redis: away(t), Addr: "0.0.0.0:0", Token: secret("t"), Hosts: []string{"mail.example.com"}})
	tests := []struct {
		name   string
		server *Server
		host   string
		ok     bool
	}{
		{"localhost", loopback, "localhost:8025", true},
		{"without a port", loopback, "LOCALHOST", true},
		{"an address", loopback, "127.0.0.1:1", true},
		{"IPv6", loopback, "[::1]:8025", true},
		{"mapped", loopback, "[::ffff:127.0.0.1]:8025", true},
		{"below localhost", loopback, "mail.localhost:8025", true},
		{"somebody else's", loopback, "evil.example:8025", false},
		{"localhost in front", loopback, "localhost.evil.example", false},
		{"an address in front", loopback, "127.0.0.1.evil.example", false},
		{"another address", loopback, "192.0.2.1:8025", false},
		{"garbage", loopback, "::::", false},
		{"configured", named, "mail.example.com", true},
		{"configured, with a port", named, "MAIL.example.com.:443", true},
		{"not configured", named, "www.example.com", false},
		{"beyond loopback", everywhere, "any.example.com:8025", true},
		{"beyond loopback, configured", strict, "mail.example.com:8025", true},
		{"beyond loopback, not configured", strict, "any.example.com:8025", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reply, body := get(t, tt.server, "/status.json", host(tt.host), bearer("t"))
			if (reply.StatusCode == http.StatusOK) != tt.ok {
				t.Errorf("%s: %s", reply.Status, body)
			}
			reply, body = get(t, tt.server, "/readyz", host(tt.host), bearer("t"))
			if reply.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "redis_error") != tt.ok {
				t.Errorf("/readyz: %s: %s", reply.Status, body)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	s := serve(t, Config{Redis: away(t)})
	for _, path := range []string{"/", "/status.json", "/healthz", "/readyz", "/monitor/", "/monitor/api/queues", "/monitor/favicon.ico", "/nothing"} {
		reply, _ := get(t, s, path, header("Origin", "https://evil.example"))
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
			"Content-Security-Policy": "frame-ancestors 'none'", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := reply.Header.Get(name); !strings.Contains(got, want) {
				t.Errorf("%s: %s: %q", path, name, got)
			}
		}
		for _, never := range []string{"Access-Control-Allow-Origin", "Server"} {
			if got := reply.Header.Get(never); got != "" {
				t.Errorf("%s: %s: %q", path, never, got)
			}
		}
		csp, _, _ := strings.Cut(reply.Header.Get("Content-Security-Policy"), "style-src")
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%s runs scripts that are not its own: %s", path, csp)
		}
	}
	_, index := get(t, s, "/monitor/")
	if strings.Contains(index, "https://") {
		t.Errorf("asynqmon's page asks another server: %s", index)
	}
}

// TestWrites: nothing is changed unless the setting allows it, and then not by a page of
// another origin.
func TestWrites(t *testing.T) {
	t.Parallel()
	url := redistest.Start(t, redistest.Options{}).URL()
	client := connect(t, url)
	queue := tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{Hostname: "h.example"}})
	enqueue := func() string {
		id, err := queue.Enqueue(t.Context(), &mailer.EmailMessage{Subject: "x", FromEmail: "a@x.example", To: []string{"b@x.example"}})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	readOnly := serve(t, Config{Redis: client})
	writable := serve(t, Config{Redis: client, AllowWrite: true})
	tests := []struct {
		name   string
		server *Server
		with   []func(*http.Request)
		want   int
	}{
		{"not allowed", readOnly, nil, http.StatusMethodNotAllowed},
		{"not allowed, from its own page", readOnly, []func(*http.Request){header("Sec-Fetch-Site", "same-origin")}, http.StatusMethodNotAllowed},
		{"from another origin", writable, []func(*http.Request){header("Origin", "https://evil.example")}, http.StatusForbidden},
		{"from another site", writable, []func(*http.Request){header("Sec-Fetch-Site", "cross-site")}, http.StatusForbidden},
		{"from a sandbox", writable, []func(*http.Request){header("Origin", "null")}, http.StatusForbidden},
		{"under another name", writable, []func(*http.Request){host("evil.example")}, http.StatusMisdirectedRequest},
		{"from its own page", writable, []func(*http.Request){header("Sec-Fetch-Site", "same-origin")}, http.StatusOK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := enqueue()
			reply, body := do(t, tt.server, http.MethodDelete, "/monitor/api/queues/default/pending_tasks/"+id, tt.with...)
			if got := reply.StatusCode; got != tt.want && (tt.want != http.StatusOK || got != http.StatusNoContent) {
				t.Errorf("%s: %s", reply.Status, body)
			}
			_, err := asynq.NewInspectorFromRedisClient(client).GetTaskInfo("default", id)
			if gone := errors.Is(err, asynq.ErrTaskNotFound); gone != (tt.want == http.StatusOK) {
				t.Errorf("the task is gone: %v (%v)", gone, err)
			}
		})
	}
	for _, path := range []string{"/", "/status.json"} {
		if reply, _ := do(t, writable, http.MethodPost, path); reply.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %s", path, reply.Status)
		}
	}
}

func TestStart_unprotected(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		s, err := Start(Config{Addr: addr, Redis: away(t), State: NewState()})
		if err == nil {
			_ = s.Close()
		}
		if !errors.Is(err, ErrUnprotected) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestStart_ports(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	addr := taken.Addr().String()
	if s, err := Start(Config{Addr: addr, Redis: away(t), State: NewState()}); !errors.Is(err, syscall.EADDRINUSE) {
		if err == nil {
			_ = s.Close()
		}
		t.Errorf("a port in use: %v", err)
	}
	s := serve(t, Config{Addr: addr, Ports: 10, Redis: away(t)})
	first, next := taken.Addr().(*net.TCPAddr).Port, s.listener.Addr().(*net.TCPAddr).Port
	if next <= first || next > first+9 {
		t.Errorf("port %d after %d", next, first)
	}
	for _, bad := range []string{"", "127.0.0.1", "127.0.0.1:http", "nowhere.invalid:0"} {
		if s, err := Start(Config{Addr: bad, Redis: away(t), State: NewState()}); err == nil {
			_ = s.Close()
			t.Errorf("%q is listened on", bad)
		}
	}
}

// A request that is too big, or is not HTTP, costs its connection and nothing else.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := serve(t, Config{Redis: away(t)})
	reply, _ := get(t, s, "/", header("X-Long", strings.Repeat("x", 64<<10)))
	if reply.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long header: %s", reply.Status)
	}
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprint(c, "\x16\x03\x01 hello\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if reply, _ := get(t, s, "/healthz"); reply.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %s", reply.Status)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "up 1\n") })
	s := serve(t, Config{Redis: away(t), Metrics: metrics, Token: secret("t")})
	if reply, body := get(t, s, "/metrics", bearer("t")); reply.StatusCode != http.StatusOK || body != "up 1\n" {
		t.Errorf("%s: %q", reply.Status, body)
	}
	if reply, _ := get(t, s, "/metrics"); reply.StatusCode != http.StatusUnauthorized {
		t.Errorf("without the token: %s", reply.Status)
	}
	if reply, _ := get(t, serve(t, Config{Redis: away(t)}), "/metrics"); reply.StatusCode != http.StatusNotFound {
		t.Errorf("without metrics: %s", reply.Status)
	}
}

// TestRedisKinds: the pages and asynqmon reach every kind of Redis that REDIS_URL names.
func TestRedisKinds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		url  func(t *testing.T) string
	}{
		{"ACL user", func(t *testing.T) string {
			return redistest.Start(t, redistest.Options{Username: "mailpouch", Password: "p@ss word"}).URL()
		}},
		{"TLS", func(t *testing.T) string {
			s := redistest.Start(t, redistest.Options{TLS: true, Password: "pw"})
			return s.URL()
		}},
		{"socket", func(t *testing.T) string {
			path := t.TempDir() + "/redis.sock"
			redistest.Start(t, redistest.Options{Config: []string{"unixsocket " + path}})
			return "unix://" + path
		}},
		{"cluster", func(t *testing.T) string { return redistest.StartCluster(t, 3, redistest.Options{}).URL() }},
		{"sentinel", func(t *testing.T) string { return redistest.StartSentinel(t, redistest.Options{Password: "pw"}).URL() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := connect(t, tt.url(t))
			queue := tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{Hostname: "h.example"}})
			for _, name := range []string{"critical", "default", "bulk"} {
				_, err := queue.With(tasks.Options{Queue: name}).Enqueue(t.Context(), &mailer.EmailMessage{Subject: "x", FromEmail: "a@x.example", To: []string{"b@x.example"}})
				if err != nil {
					t.Fatal(err)
				}
			}
			s := serve(t, Config{Redis: client})
			if reply, body := get(t, s, "/readyz"); reply.StatusCode != http.StatusOK {
				t.Errorf("/readyz: %s: %s", reply.Status, body)
			}
			_, body := get(t, s, "/status.json")
			var got status
			if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Queues) != 3 || got.Queues[0].Waiting != 1 || got.Redis != "" {
				t.Errorf("/status.json: %v: %s", err, body)
			}
			for path, want := range map[string]string{
				"queues": `"queue":"critical"`, "queues/bulk/pending_tasks": `b***@x.example`, "redis_info": `"address"`,
			} {
				if reply, body := get(t, s, "/monitor/api/"+path); reply.StatusCode != http.StatusOK || !strings.Contains(body, want) {
					t.Errorf("%s: %s: %.300s", path, reply.Status, body)
				}
			}
		})
	}
}

// The fleet is all workers that live, and what they did in the last days; the rest of the numbers is this worker's.
func TestStatus_fleet(t *testing.T) {
	t.Parallel()
	client := connect(t, redistest.Start(t, redistest.Options{}).URL())
	self, other := presence.New(), presence.New()
	self.Host, self.Version, self.Rate, self.Sent = "one", "v1.2", 10, 1000
	other.Host, other.Version, other.Rate, other.Sent, other.Held = "two<i>", "v1.1", 2.5, 20, []string{"marketing"}
	for _, w := range []presence.Worker{self, other} {
		if err := presence.Announce(t.Context(), client, w, nil, presence.Counts{Sent: w.Sent, Dead: 1}); err != nil {
			t.Fatal(err)
		}
	}
	_, body := get(t, serve(t, Config{Redis: client, WorkerID: self.ID}), "/status.json")
	var got status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	f := got.Fleet
	if len(f.Workers) != 2 || f.Rate != 12.5 || len(f.Days) != daysShown || got.All.Sent != 0 {
		t.Fatalf("%+v", f)
	}
	sum := f.Days[daysShown-1].Add(f.Days[daysShown-2].Counts) // it may be midnight
	if sum != (presence.Counts{Sent: 1020, Dead: 2}) {
		t.Errorf("%+v", f.Days)
	}
	for _, w := range f.Workers {
		if w.This != (w.Host == "one") || w.This && (w.Version != "v1.2" || w.Sent != 1000 || w.Held != nil) || !w.This && (w.Rate != 2.5 || w.Held[0] != "marketing") {
			t.Errorf("%+v", w)
		}
	}
}

// A queue is paused if all of it is. Where one part is, that part is.
func TestStatus_paused(t *testing.T) {
	t.Parallel()
	all := []queuestats.Queue{{Name: "bulk", Paused: true}, {Name: "bulk:mass"}, {Name: "default", Paused: true}}
	rows := addUp(all, map[string]int{"bulk": 1, "default": 1, "unused": 1}, time.Now(), NewState())
	for _, r := range rows {
		if r.Paused != (r.Name == "default") {
			t.Errorf("%s: paused: %v", r.Name, r.Paused)
		}
		if r.Name == "bulk" && (!r.Parts[0].Paused || r.Parts[1].Paused) {
			t.Errorf("%+v", r.Parts)
		}
	}
}

// 50,000 dead letters are no more than a moment, and little memory.
func TestLetters_many(t *testing.T) {
	const n, most = 50_000, 40 << 20
	redisServer := redistest.Start(t, redistest.Options{})
	client := connect(t, redisServer.URL())
	ids := deadLetters(t, client, tasks.Options{}, "550 5.1.1 <ann0@example.com>: unknown (RCPT)")
	const copies = `
local fields = redis.call("HGETALL", KEYS[1])
for i = ARGV[1], ARGV[1] + 999 do
  redis.call("HSET", "asynq:{default}:t:copy" .. i, unpack(fields))
  redis.call("ZADD", KEYS[2], 1700000000 + i, "copy" .. i)
end
return 0`
	for i := 0; i < n; i += 1000 {
		if err := redisServer.Client(t).Eval(t.Context(), copies, []string{"asynq:{default}:t:" + ids[0], wire.DeadKey("default")}, i).Err(); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, Config{Redis: client})
	get(t, s, "/dead?tag=none") // connections are open
	for _, path := range []string{"/dead", "/dead?page=3", "/dead?subject=nothing", "/dead?reason=UNKNOWN&since=1h"} {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		stop, peak := make(chan struct{}), make(chan uint64, 1)
		go func() {
			high := uint64(0)
			for {
				runtime.ReadMemStats(&after)
				high = max(high, after.HeapAlloc)
				select {
				case <-stop:
					peak <- high
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		}()
		start := time.Now()
		reply, body := get(t, s, path)
		took := time.Since(start)
		close(stop)
		used := int64(<-peak) - int64(before.HeapAlloc)
		t.Logf("%s: %v, %.1f MB", path, took, float64(used)/1e6)
		if reply.StatusCode != http.StatusOK || path == "/dead" && !strings.Contains(body, "of 50,001") {
			t.Errorf("%s: %s", path, reply.Status)
		}
		if used > most {
			t.Errorf("%s: %d bytes, want at most %d", path, used, most)
		}
	}
}
