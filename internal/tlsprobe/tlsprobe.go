// Package tlsprobe finds out whether a server speaks TLS from the first byte, where a connection to
// it has failed: most often its port is one for TLS and the settings say nothing of it, or the other way round.
package tlsprobe

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// timeout is how long a server may take to answer.
const timeout = 3 * time.Second

// Dial opens a connection.
type Dial func(ctx context.Context) (net.Conn, error)

// SpeaksTLS reports whether a server answers the beginning of a TLS handshake with TLS, be it
// a refusal. It takes three seconds at most, trusts nobody and sends nothing else.
func SpeaksTLS(ctx context.Context, dial Dial) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nothing is said over this connection
	err = client.HandshakeContext(ctx)
	var alert *net.OpError
	return err == nil || errors.As(err, &alert) && alert.Op == "remote error"
}

// Answers reports whether a server answers say, in plain text, and ok accepts the beginning of its answer.
// It takes three seconds at most.
func Answers(ctx context.Context, dial Dial, say string, ok func(answer []byte) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte(say)); err != nil {
		return false
	}
	answer := make([]byte, 64)
	n, _ := conn.Read(answer)
	return n > 0 && ok(answer[:n])
}
