package workercli

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
)

func TestLoopbackOnly(t *testing.T) {
	t.Parallel()
	tests := []struct {
		addr string
		ok   bool
	}{
		{"127.0.0.1:6060", true},
		{"127.0.0.1:0", true},
		{"127.1.2.3:6060", true},
		{"[::1]:6060", true},
		{"localhost:6060", true},
		{":6060", false},
		{"0.0.0.0:6060", false},
		{"[::]:6060", false},
		{"192.0.2.1:6060", false},
		{"localhost.example.com:6060", false},
		{"6060", false},
		{"", false},
	}
	for _, tt := range tests {
		if err := loopbackOnly(tt.addr); (err == nil) != tt.ok {
			t.Errorf("%q: %v, want it allowed: %v", tt.addr, err, tt.ok)
		}
	}
}

func TestServePprof(t *testing.T) {
	t.Parallel()
	at, stop, err := servePprof("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) []byte {
		r, err := client.Get("http://" + at.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Body.Close() }()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, r.Status, err)
		}
		return body
	}
	if page := get("/debug/pprof/"); !bytes.Contains(page, []byte("goroutine")) {
		t.Errorf("the index does not name the profiles: %s", page)
	}
	if heap := get("/debug/pprof/heap"); !bytes.HasPrefix(heap, []byte{0x1f, 0x8b}) { // gzip
		t.Errorf("not a profile: %.40q", heap)
	}
	stop()
	if r, err := client.Get("http://" + at.String() + "/debug/pprof/"); err == nil {
		_ = r.Body.Close()
		t.Error("it still serves after stop")
	}
}

// A page elsewhere that reaches this machine by a name of its own (DNS rebinding) is shown
// nothing, whatever it asks for.
func TestServePprof_otherNames(t *testing.T) {
	t.Parallel()
	at, stop, err := servePprof("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	_, port, _ := net.SplitHostPort(at.String())
	for host, want := range map[string]int{
		"localhost:" + port: http.StatusOK, "[::1]:" + port: http.StatusOK,
		"evil.example:" + port: http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest, "192.0.2.1": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap", "/debug/pprof/symbol"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at.String()+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			response, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("Host %s, %s: %d, want %d", host, path, response.StatusCode, want)
			}
		}
	}
}

func TestRun_pprofRefused(t *testing.T) {
	t.Parallel()
	got := worker(t.Context(), t, backends.Builtin(), "run", "--pprof", "0.0.0.0:6060")
	if got.code != 64 || !strings.Contains(got.err, "only this machine") {
		t.Errorf("exit code %d, %q, want 64 and the reason", got.code, got.err)
	}
}
