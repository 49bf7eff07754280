// Package catcher is an SMTP server that delivers nothing: it keeps and counts what
// it receives. The demo sends to it, tests do, and it is the server for trying out
// a program's mail on one's own machine, where [Print] shows each message.
package catcher

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Config is how a Server is set up. The zero value listens on a free port of
// 127.0.0.1 and accepts everything.
type Config struct {
	Addr   string // host and port to listen on: "127.0.0.1:0" if empty; port 0 is a free one
	Domain string // the server's name in its greeting: "localhost" if empty

	// The last messages are kept in memory: at most MaxKeep of them (1000 if 0, none if
	// negative), and no more than MaxKeepBytes together (64 MiB if 0). They
	// are all counted.
	MaxKeep      int
	MaxKeepBytes int

	MaxMessageBytes int           // above it a message gets 552: 64 MiB if 0
	MaxRecipients   int           // of one message, then 452: no limit if 0
	IdleTimeout     time.Duration // then 421 and the connection is closed: 5 minutes if 0

	// TLS, if not nil, offers STARTTLS with this configuration; with ImplicitTLS
	// connections speak TLS from the start instead.
	TLS         *tls.Config
	ImplicitTLS bool

	// Login, if not nil, offers AUTH PLAIN and LOGIN, with TLS or without, and refuses
	// the login if it returns an error. Nobody is forced to log in.
	Login func(username, password string) error

	// OnMessage, if not nil, is called with each message before the client gets its 250:
	// one call at a time, in the order of Message.Number.
	OnMessage func(Message)

	// Decide, if not nil, is asked at each Step whether to go on. An error refuses it:
	// a *smtp.SMTPError with its own reply, any other with a 451. It may wait, to
	// imitate a slow server, and must return when ctx ends, because the server is
	// closing then. Each connection calls it from a goroutine of its own.
	Decide func(ctx context.Context, s Step) error
}

// Server is a running SMTP server. Its methods may be used by several goroutines.
type Server struct {
	cfg      Config
	listener *listener
	smtp     *smtp.Server
	ctx      context.Context // ends when the server is being closed
	cancel   context.CancelFunc
	served   chan struct{} // closed when the accept loop has ended
	store    *store

	reports sync.Mutex // held while a message is stored and reported, to keep the order
}

// Start starts a server; it takes connections when Start returns.
func Start(cfg Config) (*Server, error) {
	cfg.Addr = cmp.Or(cfg.Addr, "127.0.0.1:0")
	cfg.Domain = cmp.Or(cfg.Domain, "localhost")
	cfg.MaxMessageBytes = cmp.Or(cfg.MaxMessageBytes, 64<<20)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, 5*time.Minute)
	if cfg.ImplicitTLS && cfg.TLS == nil {
		return nil, errors.New("catcher: ImplicitTLS without TLS")
	}
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("catcher: %w", err)
	}
	s := &Server{cfg: cfg, served: make(chan struct{})}
	s.store = newStore(cmp.Or(cfg.MaxKeep, 1000), cmp.Or(cfg.MaxKeepBytes, 64<<20))
	s.listener = &listener{Listener: l, store: s.store, open: map[*conn]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.smtp = s.newSMTP()
	go s.serve()
	return s, nil
}

func (s *Server) newSMTP() *smtp.Server {
	server := smtp.NewServer(smtp.BackendFunc(s.newSession))
	server.Domain = s.cfg.Domain
	server.MaxMessageBytes = int64(s.cfg.MaxMessageBytes)
	server.MaxLineLength = s.cfg.MaxMessageBytes // what a real server makes of long lines is not our concern
	server.MaxRecipients = s.cfg.MaxRecipients
	server.ReadTimeout = s.cfg.IdleTimeout
	server.WriteTimeout = max(s.cfg.IdleTimeout, 5*time.Minute) // a busy machine may take longer than a short IdleTimeout to write a reply
	server.AllowInsecureAuth = true
	server.EnableSMTPUTF8 = true
	server.EnableDSN = true
	server.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up
	if !s.cfg.ImplicitTLS {
		server.TLSConfig = s.cfg.TLS
	}
	return server
}

func (s *Server) serve() {
	defer close(s.served)
	var l net.Listener = s.listener
	if s.cfg.ImplicitTLS {
		l = tls.NewListener(l, s.cfg.TLS)
	}
	_ = s.smtp.Serve(l) // ends when Close closes the listener
}

// Addr is the host and port that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends the server and every connection at once and returns when all of its
// goroutines have ended. What was received can still be read.
func (s *Server) Close() error {
	s.cancel()
	err := s.listener.Close()
	<-s.served
	// Every connection is closed by now; this waits for those that serve them.
	_ = s.smtp.Shutdown(context.Background())
	return err
}

// Drop closes every open connection without a word, as a server or a network
// that fails does. New ones are taken.
func (s *Server) Drop() { s.listener.drop() }

// Stats returns the counts so far.
func (s *Server) Stats() Stats { return s.store.snapshot() }

// Messages returns the messages that were kept, oldest first. They must not be changed.
func (s *Server) Messages() []Message { return s.store.kept() }

// Delete lets go of the kept messages that match says, and returns how many. It changes no count.
func (s *Server) Delete(match func(Message) bool) int { return s.store.delete(match) }

// Changes counts what has happened to the kept messages: those that were accepted, and the deletions.
func (s *Server) Changes() int {
	changes, _ := s.store.state()
	return changes
}

// WaitChange waits until Changes is no longer seen, and returns what it is then.
func (s *Server) WaitChange(ctx context.Context, seen int) (changes int, err error) {
	for {
		changes, changed := s.store.state()
		if changes != seen {
			return changes, nil
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return changes, errors.New("catcher: closed")
		case <-ctx.Done():
			return changes, ctx.Err()
		}
	}
}

// Wait waits until n messages have been accepted since the start.
func (s *Server) Wait(ctx context.Context, n int) error {
	for {
		accepted, changed := s.store.accepted()
		if accepted >= n {
			return nil
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return fmt.Errorf("catcher: closed after %d of %d messages", accepted, n)
		case <-ctx.Done():
			return fmt.Errorf("catcher: %d of %d messages: %w", accepted, n, ctx.Err())
		}
	}
}
