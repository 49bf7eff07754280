package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/rate"
)

func TestAuthentication(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	tests := []struct {
		name, header string
		status       int
		error        string
	}{
		{"none", "", 401, nameMissingKey},
		{"another scheme", "Basic " + h.secret, 401, nameMissingKey},
		{"no secret", "Bearer ", 401, nameMissingKey},
		{"no scheme", h.secret, 401, nameMissingKey},
		{"unknown", "Bearer mp_AAAA", 403, nameInvalidKey},
		{"nearly", "Bearer " + h.secret + "x", 403, nameInvalidKey},
		{"its hash", "Bearer sha256:00", 403, nameInvalidKey},
		{"the right one", "Bearer " + h.secret, 200, ""},
		{"in another case", "bearer  " + h.secret, 200, ""},
	}
	for _, tt := range tests {
		for _, r := range []request{{method: http.MethodPost, path: "/emails", body: hello}, {method: http.MethodPost, path: "/emails/batch", body: "[" + hello + "]"}} {
			r.header = map[string]string{"Authorization": tt.header}
			a := h.do(r)
			if a.status != tt.status || a.text("name") != tt.error || strings.Contains(a.raw, h.secret) {
				t.Errorf("%s: %d %s", tt.name, a.status, a.raw)
			}
			if (a.header.Get("WWW-Authenticate") == "Bearer") != (a.status == 401) {
				t.Errorf("%s: WWW-Authenticate %q", tt.name, a.header.Get("WWW-Authenticate"))
			}
		}
	}
	for _, path := range []string{"/emails/x", "/emails/x/cancel", "/messages"} {
		method := http.MethodPost
		if path == "/emails/x" {
			method = http.MethodGet
		}
		if a := h.do(request{method: method, path: path, header: map[string]string{"Authorization": ""}}); a.status != 401 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	if n := h.tasks(); n != 4 {
		t.Errorf("%d tasks, want 4", n)
	}
}

// What is not there, or not so, is said as all else is.
func TestRoutes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	tests := []struct {
		method, path string
		status       int
		error, allow string
	}{
		{http.MethodGet, "/", 404, nameNotFound, ""},
		{http.MethodGet, "/domains", 404, nameNotFound, ""},
		{http.MethodPost, "/emails/x/share", 404, nameNotFound, ""},
		{http.MethodGet, "/emails", 405, nameMethod, "POST"},
		{http.MethodGet, "/emails/x/cancel", 405, nameMethod, "POST"},
		{http.MethodDelete, "/emails/x", 405, nameMethod, "GET, PATCH"},
		{http.MethodPut, "/emails/batch", 405, nameMethod, "POST"},
	}
	for _, tt := range tests {
		a := h.do(request{method: tt.method, path: tt.path})
		if a.status != tt.status || a.text("name") != tt.error || a.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d %s, Allow %q", tt.method, tt.path, a.status, a.raw, a.header.Get("Allow"))
		}
	}
}

func TestMediaType(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	for _, header := range []map[string]string{{"Content-Type": ""}, {"Content-Type": "text/plain"}, {"Content-Type": "message/rfc822"}, {"Content-Encoding": "gzip"}} {
		a := h.do(request{method: http.MethodPost, path: "/emails", body: hello, header: header})
		if a.status != http.StatusUnsupportedMediaType || a.text("name") != nameMediaType || header[a.text("field")] == "" && a.text("field") != "Content-Type" {
			t.Errorf("%v: %d %s", header, a.status, a.raw)
		}
	}
	h.send(hello, "Content-Type", "application/json; charset=utf-8", "Content-Encoding", "identity")
}

// A body that is too big is refused, whether its size is said or not, before all of it has come.
func TestBody_tooLarge(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{MaxBody: 2 << 20}, nil)
	for _, sized := range []bool{true, false} {
		for _, size := range []int{3 << 20, 1 << 19, smallBody + 10} {
			body := strings.TrimSuffix(hello, "}") + `,"html":"` + strings.Repeat("a", size) + `"}`
			var reader io.Reader = strings.NewReader(body)
			if !sized {
				reader = struct{ io.Reader }{reader}
			}
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, h.server.URL+"/emails", reader)
			req.Header.Set("Authorization", "Bearer "+h.secret)
			req.Header.Set("Content-Type", "application/json")
			resp, err := h.server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			want := http.StatusOK
			if size > 2<<20 {
				want = http.StatusRequestEntityTooLarge
			}
			if resp.StatusCode != want {
				t.Errorf("%d bytes, size said %v: %d, want %d", size, sized, resp.StatusCode, want)
			}
		}
	}
}

// A client that sends its body slowly, or not at all, holds its place for so long and no longer.
func TestBody_slow(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{BodyTimeout: 200 * time.Millisecond, Requests: 1}, nil)
	for secret, want := range map[string]int{h.secret: http.StatusRequestTimeout, "mp_X": http.StatusForbidden} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", h.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		fmt.Fprintf(conn, "POST /emails HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", secret)
		reader := bufio.NewReader(conn)
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%d, want %d", resp.StatusCode, want)
		}
		if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the connection goes on: %v", err)
		}
	}
	h.eventually("the place is free", func() bool { // in so short a time not every request comes whole
		return h.do(request{method: http.MethodPost, path: "/emails", body: hello}).status == http.StatusOK
	})
}

// What is more than may be under way waits, and is told to come later if that takes too long.
func TestRequests_many(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{Requests: 1, Timeout: 5 * time.Second}, nil)
	body, write := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, h.server.URL+"/emails", body)
	req.Header.Set("Authorization", "Bearer "+h.secret)
	req.Header.Set("Content-Type", "application/json")
	var all sync.WaitGroup
	all.Go(func() {
		resp, err := h.server.Client().Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("the first one: %d", resp.StatusCode)
		}
	})
	_, _ = io.WriteString(write, hello[:10])
	var a answer
	h.eventually("the first one has its place", func() bool {
		a = h.do(request{method: http.MethodPost, path: "/emails", body: hello})
		return a.status != http.StatusOK
	})
	if a.status != http.StatusServiceUnavailable || a.text("name") != nameUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	_, _ = io.WriteString(write, hello[10:])
	_ = write.Close()
	all.Wait()
	h.send(hello)
}

// Clients that are slow leave places to those of other keys.
func TestRequests_slowKey(t *testing.T) {
	t.Parallel()
	for name, big := range map[string]bool{"small bodies": false, "big bodies": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, Config{Requests: 4, BigRequests: 4, Timeout: 5 * time.Second}, nil)
			body := hello
			if big {
				body = strings.TrimSuffix(hello, "}") + `,"html":"` + strings.Repeat("a", smallBody+10) + `"}`
			}
			// Each slow one has its place when it is told to go on.
			var slow []net.Conn
			for range 3 {
				conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", h.server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				fmt.Fprintf(conn, "POST /emails HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", h.secret, len(body))
				if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
					t.Fatal(line, err)
				}
				slow = append(slow, conn)
			}
			if a := h.do(request{method: http.MethodPost, path: "/emails", body: body}); a.status != http.StatusServiceUnavailable {
				t.Errorf("the fourth of the same key: %d %s", a.status, a.raw)
			}
			if a := h.do(request{method: http.MethodPost, path: "/emails", body: body, secret: h.other}); a.status != http.StatusOK {
				t.Errorf("another key: %d %s", a.status, a.raw)
			}
			for _, conn := range slow {
				_ = conn.Close()
			}
			h.eventually("the places are free", func() bool {
				return h.do(request{method: http.MethodPost, path: "/emails", body: body}).status == http.StatusOK
			})
		})
	}
}

// While Redis is away nothing is accepted, and the client is told to come again.
func TestRedis_away(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	id := h.send(hello)
	h.redis.Stop()
	for _, r := range []request{
		{method: http.MethodPost, path: "/emails", body: hello},
		{method: http.MethodPost, path: "/emails", body: hello, header: map[string]string{headerKey: "k"}},
		{method: http.MethodPost, path: "/emails/batch", body: emails(3, nil)},
		{method: http.MethodPost, path: "/emails/batch", body: emails(3, nil), header: map[string]string{headerKey: "k"}},
		{method: http.MethodGet, path: "/emails/" + id},
		{method: http.MethodPatch, path: "/emails/" + id, body: soon},
		{method: http.MethodPost, path: "/emails/" + id + "/cancel"},
	} {
		a := h.do(r)
		if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); a.status != http.StatusServiceUnavailable || a.text("name") != nameUnavailable || err != nil || seconds < 1 {
			t.Errorf("%s %s: %d %s", r.method, r.path, a.status, a.raw)
		}
	}
}

// What fails here in a way that nobody foresaw is answered, and in the log without what it was about.
func TestPanic(t *testing.T) {
	t.Parallel()
	log := new(safeBuffer)
	h := New(nil, Config{Log: zerolog.New(log), Requests: 1})
	for range 2 { // the first one gives back what it has taken
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/emails", strings.NewReader(hello))
		r.Header.Set("Authorization", "Bearer mp_SECRET")
		h.ServeHTTP(w, r)
		if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), nameInternalServerError) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if got := log.String(); strings.Count(got, `"message":"a request to the API has failed"`) != 2 || !strings.Contains(got, "nil pointer") || !strings.Contains(got, `"stack"`) || strings.Contains(got, "mp_SECRET") {
		t.Errorf("the log: %s", got)
	}
}

// A connection stays open for who has shown a key.
func TestIdle(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	for path, secret := range map[string]string{"/emails/x": "mp_WRONG", "/openapi.json": "mp_WRONG", "/nowhere": "mp_WRONG", "/emails/y": h.secret} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		resp, err := h.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if open := !resp.Close; open != (secret == h.secret) {
			t.Errorf("%s: the connection stays open: %v", path, open)
		}
	}
}

func TestRedis_full(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	ctx := context.Background()
	if err := h.client.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []request{
		{method: http.MethodPost, path: "/emails", body: hello},
		{method: http.MethodPost, path: "/emails/batch", body: emails(3, nil)},
		{method: http.MethodPost, path: "/emails/batch", body: emails(3, nil), header: map[string]string{headerKey: "k"}},
	} {
		if a := h.do(r); a.status != http.StatusServiceUnavailable || !strings.Contains(a.text("message"), "full") || a.header.Get("Retry-After") != "30" {
			t.Errorf("%s: %d %s", r.path, a.status, a.raw)
		}
	}
	if err := h.client.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	h.send(hello)
}

// More messages than the rate of the key are refused for a while, and a batch counts as many as it has.
func TestRate(t *testing.T) {
	t.Parallel()
	limits, err := rate.ParseLimits("2/h")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, Config{}, func(k *intake.Key) { k.Rate = limits })
	// What can never be is not to be tried again.
	if a := h.batch(emails(3, nil), "", ""); a.status != http.StatusForbidden || a.text("name") != nameRestrictedKey || a.text("field") != "rate" || h.tasks() != 0 {
		t.Errorf("a batch: %d %s, and %d tasks", a.status, a.raw, h.tasks())
	}
	h.send(hello)
	if a := h.batch(emails(2, nil), "", ""); a.status != http.StatusTooManyRequests || h.tasks() != 1 {
		t.Errorf("a batch: %d %s, and %d tasks", a.status, a.raw, h.tasks())
	}
	h.send(hello)
	a := h.do(request{method: http.MethodPost, path: "/emails", body: hello})
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != http.StatusTooManyRequests || a.text("name") != nameRate || err != nil || seconds < 60 || a.header.Get("Ratelimit-Reset") != a.header.Get("Retry-After") {
		t.Errorf("%d %s, Retry-After %s", a.status, a.raw, a.header.Get("Retry-After"))
	}
	if a := h.do(request{method: http.MethodPost, path: "/emails", body: hello, secret: h.other}); a.status != http.StatusOK {
		t.Errorf("another client: %d %s", a.status, a.raw)
	}
}

// Each request is told of once, and neither secrets nor addresses come into the log.
func TestObserve(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	h := newHouse(t, Config{Observe: func(r Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprint(r.Route, " ", r.Status, " ", r.Key, " ", r.Took > 0))
	}}, nil)
	id := h.send(hello)
	h.do(request{method: http.MethodGet, path: "/emails/" + id})
	h.do(request{method: http.MethodGet, path: "/emails/" + id, secret: "mp_X"})
	h.do(request{method: http.MethodGet, path: "/nowhere"})
	mu.Lock()
	defer mu.Unlock()
	want := []string{"POST /emails 200 shop true", "GET /emails/{id} 200 shop true", "GET /emails/{id} 403  true", " 404  true"}
	if !slices.Equal(seen, want) {
		t.Errorf("seen\n%q, want\n%q", seen, want)
	}
	if h.log.String() != "" {
		t.Errorf("logged: %s", h.log)
	}
}
