package settings

import (
	"net"
	"strconv"
)

// Names of variables, for texts about them.
const (
	HTTPAddrVariable = "EMAIL_HTTP_ADDR"     // HTTP.Addr
	httpPassword     = "EMAIL_HTTP_PASSWORD" //nolint:gosec // the name of a variable
	httpToken        = "EMAIL_HTTP_TOKEN"    //nolint:gosec // the name of a variable
)

// HTTPOff as HTTP.Addr says that no pages are wanted.
const HTTPOff = "off"

func (h HTTP) check(p *Problems) {
	if h.Addr == HTTPOff || p.concern(HTTPAddrVariable) {
		return
	}
	host, port, err := net.SplitHostPort(h.Addr)
	if err != nil || host != "" && checkHost(host) != nil {
		p.add(HTTPAddrVariable, "%q is not a host and a port, such as 127.0.0.1:8025, nor off", h.Addr)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		p.add(HTTPAddrVariable, "%q is no port; it has to be 0 to 65535", port)
	}
}

// CheckAccess reports pages that other machines could see without a password. It is for a
// worker: the other programs, which may have the same environment, show none. The
// error, if not nil, is a Problems.
func (h HTTP) CheckAccess() error {
	var p Problems
	host, _, err := net.SplitHostPort(h.Addr)
	if err == nil && (host == "" || isRemote(host)) && h.Password.Reveal() == "" && h.Token.Reveal() == "" {
		p.add(HTTPAddrVariable, "other machines can reach %s: set %s or %s, or an address of this machine alone, such as 127.0.0.1:8025",
			h.Addr, httpPassword, httpToken)
	}
	return p.err()
}
