package workercli

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
)

func TestHealth(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			w.WriteHeader(http.StatusNoContent)
		case "/readyz":
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte("{\"redis\":\n\"unreachable\x1b[2J\", \"asked by\": \"" + r.Header.Get("Authorization") + "\"}"))
		case "/elsewhere":
			http.Redirect(w, r, "/healthz", http.StatusFound)
		}
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here := "127.0.0.1:" + port
	tests := []struct {
		name      string
		env       map[string]string
		args      []string
		code      int
		out, errs string
	}{
		{"alive", nil, nil, 0, "http://" + here + "/healthz: 204 No Content\n", ""},
		{"listening everywhere", map[string]string{"EMAIL_HTTP_ADDR": ":" + port, "EMAIL_HTTP_TOKEN": "t"}, nil, 0, "http://" + here + "/healthz: 204", ""},
		{"not ready", map[string]string{"EMAIL_HTTP_PASSWORD": "p"}, []string{"--ready"}, 69, "",
			`/readyz: 503 Service Unavailable: {"redis": "unreachable [2J", "asked by": "Basic d29ya2VyOnA="}` + "\n"},
		{"a token before a password", map[string]string{"EMAIL_HTTP_PASSWORD": "p", "EMAIL_HTTP_TOKEN": "t"}, []string{"--ready"}, 69, "", `"Bearer t"`},
		{"no password for others", map[string]string{"EMAIL_HTTP_PASSWORD": "p"}, []string{"--url", server.URL + "/readyz"}, 69, "", `"asked by": ""`},
		{"another address", nil, []string{"--url", server.URL + "/"}, 0, "200 OK", ""},
		{"a redirect is no yes", nil, []string{"--url", server.URL + "/elsewhere"}, 69, "", "302 Found"},
		{"nobody there", map[string]string{"EMAIL_HTTP_ADDR": "127.0.0.1:" + closedPort(t)}, nil, 69, "", "connection refused"},
		{"no pages", map[string]string{"EMAIL_HTTP_ADDR": "off"}, nil, 78, "", "EMAIL_HTTP_ADDR is off"},
		{"a wrong setting", map[string]string{"EMAIL_HTTP_ADDR": "8025"}, nil, 78, "", "EMAIL_HTTP_ADDR"},
		{"not an address", nil, []string{"--url", "http://a b/"}, 64, "", "parse"},
		{"two questions", nil, []string{"--ready", "--url", server.URL}, 64, "", "--ready"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("EMAIL_HTTP_ADDR", here)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			got := worker(t.Context(), t, backends.Builtin(), append([]string{"health"}, tt.args...)...)
			if got.code != tt.code || !strings.Contains(got.out, tt.out) || !strings.Contains(got.err, tt.errs) {
				t.Errorf("got %+v, want code %d, %q and %q", got, tt.code, tt.out, tt.errs)
			}
			if tt.code != 0 && strings.Count(got.err, "\n") != 1 {
				t.Errorf("not one line: %q", got.err)
			}
		})
	}
}

// A worker that does not answer is not asked for ever.
func TestHealth_silent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	defer server.Close()
	if got := worker(ctx, t, backends.Builtin(), "health", "--url", server.URL); got.code != 69 {
		t.Errorf("%+v", got)
	}
}

func TestHealthURL(t *testing.T) {
	tests := []struct{ name, addr, want string }{
		{"all interfaces", ":8025", "http://127.0.0.1:8025/healthz"},
		{"all of IPv4", "0.0.0.0:8025", "http://127.0.0.1:8025/healthz"},
		{"all of IPv6", "[::]:8025", "http://[::1]:8025/healthz"},
		{"one of IPv6", "[fd00::1]:8025", "http://[fd00::1]:8025/healthz"},
		{"a name", "localhost:8025", "http://localhost:8025/healthz"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := healthURL(tt.addr, false); got != tt.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}
