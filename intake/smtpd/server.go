package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Server takes mail. Its methods may be used by several goroutines.
type Server struct {
	common    *common
	cancel    context.CancelFunc
	listeners []net.Listener // as Config.Listeners
	running   sync.WaitGroup // what listens, and the sessions

	mu     sync.Mutex // guards what follows
	ending bool
	open   map[*session]struct{}
	from   map[netip.Addr]int // connections that count for MaxPerAddress, by site
}

// Start starts a server. It takes connections when Start returns.
func Start(submitter Submitter, cfg Config) (*Server, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	s := &Server{open: map[*session]struct{}{}, from: map[netip.Addr]int{}}
	for _, l := range cfg.Listeners {
		listener, err := listen(l)
		if err != nil {
			s.closeListeners()
			return nil, fmt.Errorf("smtpd: %s: %w", l, err)
		}
		s.listeners = append(s.listeners, listener)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.common = &common{
		cfg: cfg, ctx: ctx, budget: &budget{most: cfg.MaxBytes},
		handover: &handover{submitter: submitter, hostname: cfg.Hostname, timeout: cfg.QueueTimeout, hooks: cfg.Hooks, log: cfg.Log},
	}
	for i, l := range cfg.Listeners {
		s.running.Go(func() { s.accept(s.listeners[i], l) })
	}
	return s, nil
}

// defaultMode is that of a socket: its group may hand in mail too.
const defaultMode = 0o660

// listen opens a listener. A socket that a process has left behind is replaced, and one that is in use is not.
func listen(l Listener) (net.Listener, error) {
	listener, err := bind(l)
	if l.Network != "unix" {
		return listener, err
	}
	if errors.Is(err, syscall.EADDRINUSE) && isAbandoned(l.Address) {
		if err = os.Remove(l.Address); err == nil {
			listener, err = bind(l)
		}
	}
	if err != nil {
		return nil, err
	}
	mode := l.Mode
	if mode == 0 {
		mode = defaultMode
	}
	if err := os.Chmod(l.Address, mode); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

func bind(l Listener) (net.Listener, error) {
	if l.Network == "unix" {
		return (&net.ListenConfig{Control: onlyOurs}).Listen(context.Background(), l.Network, l.Address)
	}
	return net.Listen(l.Network, l.Address)
}

// isAbandoned reports whether nobody listens on a socket that is there.
func isAbandoned(path string) bool {
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Addrs are what the server listens on, in the order of Config.Listeners.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Shutdown ends the server. Clients that are not in the middle of a message get 421 (RFC 5321, 3.8), and the others when theirs
// has its reply. When ctx ends, it is cut short: a message that Redis has not accepted is not. Its error is that of ctx then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.closeListeners()
	s.each(func(c *session) { c.wire.end() })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.running.Wait()
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.cancel()
	if err != nil {
		s.each(func(c *session) { c.wire.cut() })
		<-ended
	}
	return err
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

func (s *Server) each(do func(c *session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		do(c)
	}
}

// accept takes connections until the listener is closed.
func (s *Server) accept(listener net.Listener, l Listener) {
	failed := false
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !failed {
				s.common.cfg.Log.Error().Err(err).Stringer("listener", l).Msg("smtpd: cannot take connections")
			}
			if failed = true; !s.pause() {
				return
			}
			continue
		}
		failed = false
		s.welcome(conn, l)
	}
}

// acceptPause is how long no connection is taken after one could not be: most often the process has too many files open.
const acceptPause = time.Second

// pause waits, and reports whether the server goes on.
func (s *Server) pause() bool {
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.common.ctx.Done():
		return false
	}
}

// welcome begins a session, or turns the client away.
func (s *Server) welcome(conn net.Conn, l Listener) {
	c := newSession(s.common, conn, l, addrOf(conn))
	if r := s.add(c); r != "" {
		if !l.ImplicitTLS { // that takes a handshake first
			_ = conn.SetWriteDeadline(time.Now().Add(lastWords))
			_, _ = conn.Write([]byte(r + "\r\n"))
		}
		_ = conn.Close()
		return
	}
	s.common.cfg.Hooks.opened()
	s.running.Go(func() {
		defer s.remove(c)
		c.serve()
	})
}

// add counts a session, unless there are too many.
func (s *Server) add(c *session) reply {
	cfg := s.common.cfg
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ending:
		return replyEnding
	case len(s.open) >= cfg.MaxConnections:
		cfg.Hooks.turnedAway(TooManyConnections)
		return "421 4.7.0 Too many connections, try again later"
	case !c.trusted && s.from[site(c.addr)] >= cfg.MaxPerAddress:
		cfg.Hooks.turnedAway(TooManyPerAddress)
		return "421 4.7.0 Too many connections from your address, try again later"
	}
	s.open[c] = struct{}{}
	if !c.trusted {
		s.from[site(c.addr)]++
	}
	return ""
}

func (s *Server) remove(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	if !c.trusted {
		at := site(c.addr)
		if s.from[at]--; s.from[at] == 0 {
			delete(s.from, at)
		}
	}
	s.common.cfg.Hooks.closed()
}

// site is what an address is counted as: with IPv6 one customer has a whole network of 64 bits.
func site(addr netip.Addr) netip.Addr {
	const network = 64
	if !addr.Is6() {
		return addr
	}
	return netip.PrefixFrom(addr, network).Masked().Addr()
}

// addrOf is the client's address, the zero Addr for a unix socket.
func addrOf(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
