package smtpd_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/intake/smtpd"
	"github.com/mailpouch/mailpouch/internal/testserver"
	"github.com/mailpouch/mailpouch/mailer"
)

// shutdown ends a server, and returns what tells that it has ended.
func shutdown(ctx context.Context, s *smtpd.Server) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(ctx) }()
	return ended
}

// refused waits until nobody listens any more.
func refused(t *testing.T, s *smtpd.Server) {
	t.Helper()
	for end := time.Now().Add(testserver.Timeout); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			return
		}
		_ = conn.Close()
		if time.Now().After(end) {
			t.Fatal("the server still takes connections")
		}
	}
}

// Clients that are not in the middle of a message are told that the server ends, and messages in hand are finished.
func TestShutdown(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	d := &desk{answer: func(context.Context, handedIn) error {
		asked <- struct{}{}
		<-release
		return nil
	}}
	_, _, config := certificate(t)
	cfg := trusting()
	cfg.TLS = config
	s := serve(t, d, cfg)

	idle, begun, handshake := dial(t, s), dial(t, s), dial(t, s)
	idle.talk("> EHLO client\n250")
	begun.talk("> EHLO client\n250\n> MAIL FROM:<ann@example.com>\n250\n> RCPT TO:<bob@example.org>\n250")
	handshake.talk("> EHLO client\n250\n> STARTTLS\n220")
	data, chunks, waiting := dial(t, s), dial(t, s), dial(t, s)
	data.begin()
	data.send("Subject: x\r\n")
	chunks.talk("> EHLO client\n250\n> MAIL FROM:<ann@example.com>\n250\n> RCPT TO:<bob@example.org>\n250\n> BDAT 12\n> Subject: x\n250")
	waiting.begin()
	waiting.send(message + ".\r\n")
	<-asked

	ended := shutdown(t.Context(), s)
	for _, c := range []*client{idle, begun} {
		c.expect("421 4.3.2")
		c.expect("")
	}
	handshake.expect("")
	refused(t, s)
	data.send("\r\n.\r\n")
	chunks.send("BDAT 2 LAST\r\n\r\n")
	<-asked
	<-asked
	select {
	case err := <-ended:
		t.Fatalf("Shutdown has returned %v, and there are messages in hand", err)
	default:
	}
	close(release)
	for _, c := range []*client{data, chunks, waiting} {
		c.expect("250 2.0.0 Ok: queued")
		c.expect("421 4.3.2")
		c.expect("")
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if n := len(d.taken()); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

// When the time is up, what Redis has not accepted is not accepted.
func TestShutdown_cut(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	d := &desk{answer: func(ctx context.Context, _ handedIn) error {
		close(asked)
		<-ctx.Done()
		return &mailer.SendError{Class: mailer.Unknown, Step: "queue", Err: ctx.Err()}
	}}
	s := serve(t, d, trusting())
	data, waiting := dial(t, s), dial(t, s)
	data.begin()
	waiting.begin()
	waiting.send(message + ".\r\n")
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	ended := shutdown(ctx, s)
	refused(t, s)
	cancel()
	data.expect("421 4.3.2")
	data.expect("")
	waiting.expect("451 4.3.0")
	waiting.expect("421 4.3.2")
	waiting.expect("")
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
}
