package backends

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/settings"
)

// lookupTime is how long looking the machine's name up may delay a start.
const lookupTime = 2 * time.Second

// Hostname returns the name that this machine gives itself in Message-ID and EHLO:
// EMAIL_HOSTNAME if that is set, else the machine's full name, in punycode if it is
// outside ASCII. It is "" if the machine has no name with a domain; EHLO then has our
// address (RFC 5321, 4.1.4) and Message-ID the short name. Hostname asks the system
// and, for two seconds at most, the DNS, so a program calls it once, at the start, and
// keeps the answer:
//
//	s.Message.Hostname = backends.Hostname(ctx, s)
func Hostname(ctx context.Context, s settings.Settings) string {
	if s.Message.Hostname != "" {
		return ascii(s.Message.Hostname)
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	return fullName(ctx, name, net.DefaultResolver)
}

// resolver is the part of a net.Resolver that fullName needs.
type resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// fullName completes the short name of a machine with its domain, if the names of its
// addresses tell it. A name that does not begin with the short one is somebody
// else's: that of a gateway, or of a provider's network.
func fullName(ctx context.Context, short string, r resolver) string {
	short = strings.TrimSuffix(ascii(short), ".")
	if !hostname.IsASCII(short) {
		return ""
	}
	if strings.Contains(short, ".") {
		return short
	}
	addrs, _ := r.LookupHost(ctx, short) // no address, no full name
	for _, addr := range addrs {
		names, _ := r.LookupAddr(ctx, addr)
		for _, name := range names {
			name = strings.TrimSuffix(ascii(name), ".")
			first, _, full := strings.Cut(name, ".")
			if full && strings.EqualFold(first, short) && hostname.IsASCII(name) {
				return name
			}
		}
	}
	return ""
}
