// Package ownhost tells requests that name this machine as their host from those of a page
// elsewhere that has its own name resolved to 127.0.0.1 (DNS rebinding) in order to read what
// is served here: the Host that a browser sends is still that name. Everything that this
// project serves without asking who it is checks that, and here is how.
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

// Loopback lets only requests pass that name this machine by one of those. refusal is
// what the others are told.
func Loopback(next http.Handler, refusal string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !IsLoopback(Name(r)) {
			http.Error(w, refusal, http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
