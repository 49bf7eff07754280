package workercli

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/ownhost"
)

// servePprof serves the profiles of this process (net/http/pprof) at addr until stop is
// called. A profile shows what is in memory, mail included, so an address that other
// machines could reach is refused.
func servePprof(addr string) (at net.Addr, stop func(), err error) {
	if err := loopbackOnly(addr); err != nil {
		return nil, nil, cli.Exitf(cli.ExitUsage, "--pprof %s: %w", addr, err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, nil, cli.Exitf(cli.ExitConfig, "--pprof: %w", err)
	}
	server := &http.Server{Handler: pprofHandler(), ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // it returns when the server is closed
	return l.Addr(), func() {
		_ = server.Close()
		serving.Wait()
	}, nil
}

// loopbackOnly returns an error if other machines could reach addr. A name other than
// localhost is refused too: its address may change.
func loopbackOnly(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New("an address such as 127.0.0.1:6060 is expected")
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("only this machine may read profiles: 127.0.0.1, [::1] or localhost is expected, not %q", host)
	}
	return nil
}

func pprofHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	// A page elsewhere could reach this machine by a name of its own (DNS rebinding).
	return ownhost.Loopback(mux, "Profiles are for this machine: ask for them at 127.0.0.1, [::1] or localhost.")
}
