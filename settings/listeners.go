package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Listener is an address that mail is taken at over SMTP.
type Listener struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the path of a socket
	TLS     bool   // from the first byte (RFC 8314, 3.3)
	LMTP    bool   // RFC 2033 instead of SMTP
}

// The schemes of listeners.
const (
	schemeTLS  = "smtps://"
	schemeUnix = "unix://"
	schemeLMTP = "lmtp+unix://"
)

// maxSocket is how long the path of a socket may be (unix(7)): the system says "invalid argument" of a longer one.
const maxSocket = 107

// String writes the listener as EMAIL_SUBMISSION_ADDR has it.
func (l Listener) String() string {
	switch {
	case l.LMTP:
		return schemeLMTP + l.Address
	case l.Network == "unix":
		return schemeUnix + l.Address
	case l.TLS:
		return schemeTLS + l.Address
	}
	return l.Address
}

// IsRemote reports whether other machines can reach the listener.
func (l Listener) IsRemote() bool { return l.Network == "tcp" && isRemoteAddr(l.Address) }

// Listeners are the addresses that mail is taken at over SMTP.
type Listeners []Listener

// UnmarshalText reads addresses separated by commas, and names all that cannot be meant.
func (l *Listeners) UnmarshalText(text []byte) error {
	var all Listeners
	var bad []string
	for entry := range strings.SplitSeq(string(text), ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue // a comma at the end, or two of them
		}
		one, err := parseListener(entry)
		switch {
		case err != nil:
			bad = append(bad, err.Error())
		case slices.ContainsFunc(all, func(o Listener) bool { return o.Address == one.Address && !strings.HasSuffix(o.Address, ":0") }):
			bad = append(bad, fmt.Sprintf("%s is named twice", one.Address))
		}
		all = append(all, one)
	}
	if *l = all; len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

// String writes the addresses separated by commas.
func (l Listeners) String() string {
	entries := make([]string, len(l))
	for i, one := range l {
		entries[i] = one.String()
	}
	return strings.Join(entries, ",")
}

func parseListener(entry string) (Listener, error) {
	for _, scheme := range []string{schemeUnix, schemeLMTP} {
		path, ok := strings.CutPrefix(entry, scheme)
		if !ok {
			continue
		}
		if !filepath.IsAbs(path) || len(path) > maxSocket {
			return Listener{}, fmt.Errorf("%q needs the whole path of a socket, of up to %d bytes, such as %s/run/mailpouch/smtp.sock", entry, maxSocket, scheme)
		}
		return Listener{Network: "unix", Address: path, LMTP: scheme == schemeLMTP}, nil
	}
	addr, tls := strings.CutPrefix(entry, schemeTLS)
	if err := checkAddr(addr); err != nil {
		return Listener{}, fmt.Errorf("%q is not a host and a port, such as 127.0.0.1:2525, nor begins with smtps://, unix:// or lmtp+unix://", entry)
	}
	return Listener{Network: "tcp", Address: addr, TLS: tls}, nil
}

// Networks are addresses of clients.
type Networks []netip.Prefix

// UnmarshalText reads addresses and prefixes separated by commas, and names all that cannot be meant.
func (n *Networks) UnmarshalText(text []byte) error {
	var all Networks
	var bad []string
	for entry := range strings.SplitSeq(string(text), ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue // a comma at the end, or two of them
		}
		one, err := parseNetwork(entry)
		if err != nil {
			bad = append(bad, err.Error())
		}
		all = append(all, one)
	}
	if *n = all; len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

func parseNetwork(entry string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(entry); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(entry)
	if of4 := 96; err == nil && prefix.Addr().Is4In6() && prefix.Bits() >= of4 { // clients are known by their IPv4 addresses
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-of4)
	}
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network, such as 192.0.2.7 or 10.1.0.0/16", entry)
	case prefix.Bits() == 0:
		return netip.Prefix{}, fmt.Errorf("%q is everybody, who could send anything in your name: name the networks that you trust", entry)
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("%q is an address in the network %s: write the one or the other", entry, prefix.Masked())
	}
	return prefix, nil
}

// String writes the networks separated by commas, single addresses without their length.
func (n Networks) String() string {
	entries := make([]string, len(n))
	for i, prefix := range n {
		if entries[i] = prefix.String(); prefix.IsSingleIP() {
			entries[i] = prefix.Addr().String()
		}
	}
	return strings.Join(entries, ",")
}
