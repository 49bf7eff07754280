// Package publicaddr tells the addresses of the internet from those of this machine and of the networks around it, and
// keeps a dialer from connecting to the latter: whoever may choose a URL, or what its name means in the DNS, must not reach what only this
// machine reaches (server-side request forgery).
package publicaddr

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// RefusedError is a connection that was not opened, since the address is not a public one.
type RefusedError struct {
	Addr netip.Addr
}

func (e *RefusedError) Error() string { return e.Addr.String() + " is not a public address" }

// Control refuses what is not public. It is a net.Dialer's Control, which is asked right before each connection with the address
// that it goes to: after the name was looked up, so a name that means another address the next time gets nowhere either.
func Control(network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("publicaddr: %s address %q: %w", network, address, err)
	}
	if !Is(to.Addr()) {
		return &RefusedError{to.Addr()}
	}
	return nil
}

// Is reports whether an address is one of the internet, whose packets routers pass on: what IANA's registries of special addresses
// (RFC 6890) call globally reachable. Where an IPv6 address stands for an IPv4 address, that one counts.
func Is(addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap() // ::ffff:127.0.0.1 is 127.0.0.1 to the system
	if nat64.Contains(addr) {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:])) // a network without IPv4 reaches all of it so
	}
	if addr.Is6() && !global6.Contains(addr) {
		return false
	}
	return addr.IsValid() && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(addr) })
}

//nolint:gochecknoglobals // tables
var (
	// nat64 has an IPv4 address in its last 32 bits (RFC 6052, 2.1).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")

	// global6 is all that IANA has given out for hosts. Outside of it are loopback, ULA, link-local, multicast, and forms of IPv4 addresses
	// such as ::127.0.0.1 and those of 64:ff9b:1::/48, a prefix that networks use as they like (RFC 8215).
	global6 = netip.MustParsePrefix("2000::/3")

	// special is what is not reachable from everywhere, or not only so.
	special = prefixes(
		"0.0.0.0/8",         // this network; 0.0.0.0 is this machine (RFC 1122)
		"10.0.0.0/8",        // private (RFC 1918)
		"100.64.0.0/10",     // behind a provider's address translation (RFC 6598); metadata of a cloud at 100.100.100.200
		"127.0.0.0/8",       // loopback (RFC 1122)
		"168.63.129.16/32",  // what a virtual machine in Azure tells itself and its host
		"169.254.0.0/16",    // link-local (RFC 3927); metadata of clouds at 169.254.169.254
		"172.16.0.0/12",     // private (RFC 1918)
		"192.0.0.0/24",      // protocols (RFC 6890); metadata of a cloud at 192.0.0.192
		"192.0.2.0/24",      // documentation (RFC 5737)
		"192.88.99.0/24",    // relays of 6to4 (RFC 7526)
		"192.168.0.0/16",    // private (RFC 1918)
		"198.18.0.0/15",     // benchmarks (RFC 2544)
		"198.51.100.0/24",   // documentation (RFC 5737)
		"203.0.113.0/24",    // documentation (RFC 5737)
		"224.0.0.0/4",       // multicast (RFC 1112)
		"240.0.0.0/4",       // reserved (RFC 1112); broadcast
		"2001::/23",         // protocols (RFC 2928), with Teredo: IPv4 in IPv6 (RFC 4380)
		"2001:db8::/32",     // documentation (RFC 3849)
		"2002::/16",         // 6to4: IPv4 in IPv6 (RFC 3056)
		"2620:4f:8000::/48", // answers for private names (RFC 7534)
		"3fff::/20",         // documentation (RFC 9637)
	)
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}
