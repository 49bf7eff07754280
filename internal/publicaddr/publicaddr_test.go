package publicaddr_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/publicaddr"
)

func TestIs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, addr string
		want       bool
	}{
		{"public", "8.8.8.8", true},
		{"public IPv6", "2606:4700::6810:84e5", true},
		{"public, mapped", "::ffff:8.8.8.8", true},
		{"public behind NAT64", "64:ff9b::808:808", true},
		{"first before a private net", "9.255.255.255", true},
		{"first behind a private net", "11.0.0.0", true},
		{"before 172.16", "172.15.255.255", true},
		{"behind 172.31", "172.32.0.1", true},
		{"before CGNAT", "100.63.255.255", true},
		{"behind CGNAT", "100.128.0.1", true},
		{"behind 2001::/23", "2001:200::1", true},

		{"this machine by 0.0.0.0", "0.0.0.0", false},
		{"this machine by ::", "::", false},
		{"loopback", "127.0.0.1", false},
		{"loopback elsewhere", "127.9.8.7", false},
		{"loopback IPv6", "::1", false},
		{"loopback, mapped", "::ffff:127.0.0.1", false},
		{"loopback, IPv4-compatible", "::7f00:1", false},
		{"loopback, translated", "::ffff:0:127.0.0.1", false},
		{"loopback behind NAT64", "64:ff9b::7f00:1", false},
		{"metadata behind NAT64", "64:ff9b::a9fe:a9fe", false},
		{"metadata behind a network's own NAT64", "64:ff9b:1::a9fe:a9fe", false},
		{"metadata behind 6to4", "2002:a9fe:a9fe::1", false},
		{"metadata behind Teredo", "2001:0:a9fe:a9fe::1", false},
		{"metadata", "169.254.169.254", false},
		{"metadata, mapped", "::ffff:169.254.169.254", false},
		{"metadata of EC2, IPv6", "fd00:ec2::254", false},
		{"metadata of Alibaba", "100.100.100.200", false},
		{"metadata of Oracle", "192.0.0.192", false},
		{"Azure's host", "168.63.129.16", false},
		{"private 10", "10.1.2.3", false},
		{"private 172", "172.31.255.255", false},
		{"private 192", "192.168.0.1", false},
		{"private, mapped", "::ffff:10.0.0.5", false},
		{"CGNAT", "100.64.0.1", false},
		{"ULA", "fc00::1", false},
		{"link-local IPv6 with a zone", "fe80::1%eth0", false},
		{"site-local", "fec0::1", false},
		{"segment routing", "5f00::1", false},
		{"documentation", "2001:db8::1", false},
		{"documentation of 2024", "3fff::1", false},
		{"multicast", "239.1.1.1", false},
		{"multicast IPv6", "ff02::1", false},
		{"broadcast", "255.255.255.255", false},
		{"benchmarks", "198.19.0.1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := publicaddr.Is(netip.MustParseAddr(tt.addr)); got != tt.want {
				t.Errorf("Is(%s) = %v", tt.addr, got)
			}
		})
	}
	if publicaddr.Is(netip.Addr{}) {
		t.Error("no address at all is public")
	}
}

// A dialer with Control connects to no server on this machine, by whatever name.
func TestControl(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	refuses := net.Dialer{Control: publicaddr.Control, Timeout: time.Minute}
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "::ffff:127.0.0.1"} {
		conn, err := refuses.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		var refused *publicaddr.RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("%s: connection %v, error %v", host, conn, err)
		}
	}
	if err := publicaddr.Control("unix", "/run/docker.sock", nil); err == nil {
		t.Error("a unix socket is allowed")
	}
	if err := publicaddr.Control("tcp4", "8.8.8.8:443", nil); err != nil {
		t.Error(err)
	}
}
