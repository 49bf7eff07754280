// Package ownhost protects servers that ask for no password against DNS rebinding. In
// that attack a page elsewhere has its own name resolved to 127.0.0.1, so that its script
// may read what is served here. The Host header that the browser sends gives it away: it
// is still the attacker's name, and not one of this machine's.
package ownhost

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Name is the host that a request names, without a port, in lower case.
func Name(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// IsLoopback reports whether a name is one that a person may write for this machine. A
// request without a host (HTTP/1.0) is from no browser.
func IsLoopback(name string) bool {
	if name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// Loopback lets only requests pass whose host is a name of this machine. The others get
// refusal as their answer.
func Loopback(next http.Handler, refusal string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !IsLoopback(Name(r)) {
			http.Error(w, refusal, http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
