package settings

import (
	"net"
	"strconv"
)

// Variables that texts name.
const (
	HTTPAddrVariable = "EMAIL_HTTP_ADDR"     // HTTP.Addr
	httpPassword     = "EMAIL_HTTP_PASSWORD" //nolint:gosec // the name of a variable
	httpToken        = "EMAIL_HTTP_TOKEN"    //nolint:gosec // the name of a variable
)

// HTTPOff is the HTTP.Addr of a worker without pages and metrics.
const HTTPOff = "off"

func (h HTTP) check(p *Problems) {
	if h.Addr == HTTPOff || p.has(HTTPAddrVariable) {
		return
	}
	host, port, err := net.SplitHostPort(h.Addr)
	if err != nil || host != "" && checkHost(host) != nil {
		p.add(HTTPAddrVariable, "%q is not a host and a port, such as 127.0.0.1:8025, nor off", h.Addr)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		p.add(HTTPAddrVariable, "%q is not a port; it has to be 0 to 65535", port)
	}
}

// CheckAccess reports an Addr that other machines can reach although neither a password nor a
// token is set. Only a worker calls it, because only a worker shows pages: other programs may
// have the same environment. The error, if not nil, is a Problems.
func (h HTTP) CheckAccess() error {
	var p Problems
	h.checkAccess(&p)
	return p.err()
}

func (h HTTP) checkAccess(p *Problems) {
	if isRemoteAddr(h.Addr) && h.Password.Reveal() == "" && h.Token.Reveal() == "" && !p.has(httpPassword, httpToken) {
		p.add(HTTPAddrVariable, "other machines can reach %s: set %s or %s, or an address that only this machine can reach, such as 127.0.0.1:8025",
			h.Addr, httpPassword, httpToken)
	}
}
