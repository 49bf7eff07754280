package workercli

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/intake/httpapi"
)

// More connections than there may be wait until one of them ends.
func TestServeAPI_connections(t *testing.T) {
	t.Parallel()
	const most = 2
	s, err := serveAPI(t.Context(), "127.0.0.1:0", most, nil, httpapi.New(nil, httpapi.Config{}), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end(context.Background()) })
	var idle []net.Conn
	for range most {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		idle = append(idle, conn)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/openapi.json", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	if err := get(200 * time.Millisecond); err == nil {
		t.Error("one more is answered at once")
	}
	_ = idle[0].Close()
	if err := get(time.Minute); err != nil {
		t.Errorf("when one has ended: %v", err)
	}
}
