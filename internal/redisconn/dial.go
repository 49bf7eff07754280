package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/internal/tlsprobe"
)

// TLSError is the error of a Redis that speaks TLS where the URL does not say so, or does not where it does.
type TLSError struct {
	Addr   string
	Speaks bool  // TLS
	Err    error // that there is no connection, if it was never opened, or nil
}

func (e *TLSError) Error() string {
	if e.Speaks {
		return "the Redis at " + e.Addr + " speaks TLS, and REDIS_URL does not: begin it with rediss:// (or rediss-sentinel://)"
	}
	return "the Redis at " + e.Addr + " speaks no TLS, and REDIS_URL does: begin it with redis:// (or redis-sentinel://)"
}

// Unwrap returns Err.
func (e *TLSError) Unwrap() error { return e.Err }

// dialer opens connections, and recognises a server that speaks otherwise than the URL says. Without it
// such a server is silent for as long as we wait: a Redis without TLS takes the handshake for the
// beginning of a command, and one with TLS hangs up.
type dialer struct {
	net.Dialer
	tls *tls.Config // nil: plain

	mu    sync.Mutex
	wrong *TLSError // what was found last
	found time.Time
}

// newDialer returns a dialer that keeps connections alive as go-redis does.
func newDialer(config *tls.Config) *dialer {
	return &dialer{tls: config, Dialer: net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3},
	}}
}

// remembered is how long what was found is not looked for again: go-redis tries to connect many times at once.
const remembered = 5 * time.Second

// dial is the Dialer of a go-redis client.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := d.known(addr); err != nil {
		return nil, err
	}
	socket, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if d.tls != nil {
		return d.secure(ctx, socket, addr)
	}
	if tcp, ok := socket.(*net.TCPConn); ok {
		return &plainConn{TCPConn: tcp, dialer: d, addr: addr}, nil
	}
	return socket, nil
}

// known returns what was found of a server a moment ago.
func (d *dialer) known(addr string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wrong == nil || d.wrong.Addr != addr || time.Since(d.found) > remembered {
		return nil
	}
	return d.wrong
}

// mismatch makes and remembers an error.
func (d *dialer) mismatch(e *TLSError) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wrong, d.found = e, time.Now()
	return e
}

func (d *dialer) to(addr string) tlsprobe.Dial {
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
}

// silence is how long a handshake may take before we ask the server whether it speaks without TLS.
const silence = time.Second

// secure is the handshake of a new connection.
func (d *dialer) secure(ctx context.Context, socket net.Conn, addr string) (net.Conn, error) {
	config := d.tls
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	plain, asked := false, make(chan struct{})
	ask := time.AfterFunc(silence, func() {
		defer close(asked)
		if plain = tlsprobe.Answers(ctx, d.to(addr), "PING\r\n", isReplyLine); plain {
			cancel()
		}
	})
	conn := tls.Client(socket, config)
	err := conn.HandshakeContext(ctx)
	cancel()
	if !ask.Stop() {
		<-asked
	}
	if err == nil {
		return conn, nil
	}
	_ = socket.Close()
	var record tls.RecordHeaderError
	if plain || errors.As(err, &record) && isReplyLine(record.RecordHeader[:]) {
		return nil, d.mismatch(&TLSError{Addr: addr, Err: &net.OpError{Op: "dial", Net: "tcp", Addr: socket.RemoteAddr(), Err: err}})
	}
	return nil, err
}

// isReplyLine reports whether Redis may answer so (RESP): +PONG, or an error, such as that it wants a password.
func isReplyLine(answer []byte) bool { return answer[0] == '+' || answer[0] == '-' }

// plainConn is a connection without TLS. If the server hangs up before it has said anything, it is asked whether it
// speaks TLS.
type plainConn struct {
	*net.TCPConn // with its SyscallConn, by which go-redis sees that a connection is gone
	dialer       *dialer
	addr         string
	answered     bool // only the reader uses it
}

// recordAlert begins the refusal of a server that speaks TLS (RFC 8446, 5.1).
const recordAlert = 21

// Read implements net.Conn.
func (c *plainConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if c.answered || n > 0 && p[0] != recordAlert {
		c.answered = true
		return n, err
	}
	var timeout net.Error
	if n == 0 && (err == nil || errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, net.ErrClosed)) {
		return n, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), silence)
	defer cancel()
	if n > 0 || tlsprobe.SpeaksTLS(ctx, c.dialer.to(c.addr)) {
		return 0, c.dialer.mismatch(&TLSError{Addr: c.addr, Speaks: true})
	}
	return n, err
}

// TryTLS connects to the first server of a URL that Connect takes, and returns a TLSError if it speaks TLS where the
// URL does not say so, or does not where it does. Of anything else that is wrong it says nothing. A client finds that out too, but in
// front of sentinels only after a minute.
func TryTLS(ctx context.Context, rawURL string) error {
	u, err := parseURL(rawURL)
	if err != nil || len(u.Addrs) == 0 || strings.HasPrefix(rawURL, "unix:") {
		return nil //nolint:nilerr // Connect says it
	}
	conn, err := u.Dialer(ctx, "tcp", u.Addrs[0])
	if err == nil {
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(silence))
		if _, err = conn.Write([]byte("PING\r\n")); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
	}
	var other *TLSError
	if errors.As(err, &other) {
		return other
	}
	return nil
}
