//go:build linux

package testserver

import (
	"fmt"
	"net"
	"testing"
)

// A port is given away once, also while nobody listens on it.
func TestFreePort(t *testing.T) {
	t.Parallel()
	taken := map[int]bool{}
	take := func(ports ...int) {
		for _, port := range ports {
			if taken[port] || port < firstPort || port > lastPort {
				t.Errorf("port %d is given away twice, or outside of %d-%d", port, firstPort, lastPort)
			}
			taken[port] = true
		}
	}
	for range 300 {
		one, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := FreePair(10_000)
		if err != nil {
			t.Fatal(err)
		}
		take(one, pair, pair+10_000)
	}
	for port := range taken {
		if err := takePort(port); err == nil {
			t.Errorf("port %d can be had again", port)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Errorf("its owner cannot listen on port %d: %v", port, err)
			continue
		}
		_ = l.Close()
	}
}
