package ownhost

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestLoopback(t *testing.T) {
	t.Parallel()
	handler := Loopback(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }), "no")
	for host, ours := range map[string]bool{
		"localhost": true, "localhost:6060": true, "LocalHost.": true, "app.localhost:1": true, "127.0.0.1:6060": true, "127.1.2.3": true,
		"[::1]": true, "[::1]:6060": true, "::1": true, "[::ffff:127.0.0.1]:80": true, "": true,
		"evil.example": false, "evil.example:6060": false, "localhost.evil.example": false, "notlocalhost": false,
		"127.0.0.1.evil.example:6060": false, "192.0.2.1:6060": false, "0.0.0.0:6060": false, "[::]:6060": false, "2130706433": false,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if got := w.Body.String() == "secret"; got != ours {
			t.Errorf("Host %q: %d %s, want it answered: %v", host, w.Code, w.Body, ours)
		}
		if !ours && w.Code != http.StatusMisdirectedRequest {
			t.Errorf("Host %q: %d", host, w.Code)
		}
	}
}
