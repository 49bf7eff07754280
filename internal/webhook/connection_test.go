package webhook

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// A connection over which nothing comes back any more, as behind a firewall that has forgotten it, is given up.
func TestPost_deadConnection(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	relay, cut := blackHole(t, server.Listener.Addr().String())
	client := newClient(true, server.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), 4)
	defer client.CloseIdleConnections()
	alive := client.Transport.(*http.Transport).HTTP2
	if alive == nil || alive.SendPingTimeout+alive.PingTimeout > (Config{}).complete().Timeout {
		t.Fatalf("nobody asks whether a connection is alive: %+v", alive)
	}
	alive.SendPingTimeout, alive.PingTimeout = time.Second, time.Second // as it takes so long
	endpoint := to(t, "https://"+relay)
	try := func(limit time.Duration) answer {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return post(ctx, client, endpoint, "evt_1", []byte("{}"))
	}
	if a := try(time.Minute); a.err != nil {
		t.Fatal(a.err)
	}
	cut()
	if a := try(100 * time.Millisecond); !errors.Is(a.err, errTimeout) {
		t.Fatalf("over a dead connection: %+v", a)
	}
	a := try(time.Minute)
	if a.err != nil && !errors.Is(a.err, errTimeout) { // it hears that the connection is lost
		a = try(time.Minute)
	}
	if a.err != nil {
		t.Errorf("after that: %v", a.err)
	}
}

// blackHole passes connections on to an address. cut has all that are open pass nothing on any more, and nobody hears of it.
func blackHole(t *testing.T, address string) (listens string, cut func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	dead := map[net.Conn]bool{}
	pass := func(from, to net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			mu.Lock()
			silent := dead[from] || dead[to]
			mu.Unlock()
			switch {
			case silent && err != nil:
				return
			case silent:
				continue
			}
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				_ = to.Close()
				return
			}
		}
	}
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", address)
			if err != nil {
				_ = c.Close()
				return
			}
			mu.Lock()
			open = append(open, c, up)
			mu.Unlock()
			running.Go(func() { pass(c, up) })
			running.Go(func() { pass(up, c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String(), func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			dead[c] = true
		}
	}
}
