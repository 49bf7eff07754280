// Package exim starts a real Exim for a test.
//
// The Exim has its configuration, spool, mailbox and log in a directory of its own
// below /dev/shm or /tmp, listens on a free port of 127.0.0.1, asks no name server and never
// touches the system's configuration. Whatever it accepts, for any domain, stays in
// its spool until the test asks for it with [Server.Messages]. Several may run at
// the same time. It ends with the test and needs root, as Exim changes to its user.
//
// It refuses mail where a test asks for it:
//
//	RCPT refused@...           550 5.1.1 to RCPT
//	RCPT later@...             450 4.2.0 to RCPT
//	RCPT busy@...              421 4.3.2 to RCPT, and Exim goes on nevertheless
//	RCPT dropped@...           550 5.3.2 to RCPT, and the connection is closed
//	MAIL refused-sender@...    553 5.7.1 to MAIL
//	MAIL later-sender@...      450 4.7.1 to MAIL
//	X-Eximtest: reject         550 5.7.1 after the final dot
//	X-Eximtest: defer          451 4.7.1 after the final dot
package exim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// Options is how Exim is set up. The zero value offers PIPELINING, CHUNKING, SIZE,
// 8BITMIME, DSN, SMTPUTF8 and PIPECONNECT to everybody, without TLS.
type Options struct {
	// TLS offers STARTTLS, with a certificate for localhost and 127.0.0.1.
	TLS bool

	MaxMessageSize int // bytes, as announced by SIZE: 50 MiB if 0
	MaxRecipients  int // of one message, then 452: no limit if 0
	MaxMessages    int // of one connection, then 421 to MAIL: 1000 if 0

	// Main holds further options of the main section, by name; they overrule those
	// above, such as "chunking_advertise_hosts" with the value "".
	Main map[string]string
}

// Server is a running Exim. Its methods belong to the goroutine of the test, as
// t.Fatal does, except for Addr, CAFile, Log, Stop and Kill.
type Server struct {
	t      testing.TB
	opts   Options
	system system
	dir    string
	port   int
	daemon *testserver.Process
}

// Start starts an Exim and waits until it listens. The test is skipped if it does not
// run as root or if Exim is not installed. Where CI is set in the environment it fails
// instead (testserver.Missing).
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s := &Server{t: t, opts: opts, system: needExim(t)}
	dir, err := makeDir()
	if err != nil {
		t.Fatalf("eximtest: %v", err)
	}
	s.dir = dir
	t.Cleanup(s.cleanup)
	if err := s.prepare(); err != nil {
		t.Fatalf("eximtest: prepare: %v", err)
	}
	// Between our look for a free port and Exim taking it somebody else may.
	err = testserver.Launch(func() error {
		s.Kill()
		_ = os.Remove(s.path("log", "main")) // of the last attempt
		var err error
		if s.port, err = testserver.FreePort(); err != nil {
			return err
		}
		return s.launch()
	}, s.Log)
	if err != nil {
		t.Fatalf("eximtest: start: %v", err)
	}
	return s
}

// Addr is the host and port that Exim listens on.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// CAFile names a PEM file with the authority that signed the server's certificate.
func (s *Server) CAFile() string { return s.path("ca.pem") }

// Log is what Exim has logged.
func (s *Server) Log() string {
	var all strings.Builder
	for _, name := range []string{"log/main", "log/panic", "out"} {
		text, _ := os.ReadFile(s.path(name)) // no file: nothing logged
		all.Write(text)
	}
	return all.String()
}

// Connections counts the connections that clients have opened so far. Exim logs
// each before it greets.
func (s *Server) Connections() int {
	return strings.Count(s.Log(), " (TCP/IP connection count = ")
}

// Stop asks Exim to end, and kills it if it does not: it says 421 on each open
// connection if it can. What it has accepted stays in its spool. Stopping one that is
// not running does nothing.
func (s *Server) Stop() {
	if s.daemon != nil {
		_ = s.daemon.Stop(testserver.Timeout) // it has ended now, one way or the other
		s.daemon = nil
	}
}

// Kill ends Exim at once, so that connections break without a word. What it has
// accepted stays in its spool.
func (s *Server) Kill() {
	if s.daemon != nil {
		s.daemon.Kill()
		s.daemon = nil
	}
}

// Restart starts Exim again on the same port, having killed it if it is running.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.launch(); err != nil {
		s.t.Fatalf("eximtest: restart: %v", err)
	}
}

func (s *Server) cleanup() {
	s.Kill()
	if s.t.Failed() {
		s.t.Logf("eximtest: log of %s:\n%s", s.Addr(), s.Log())
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Errorf("eximtest: %v", err)
	}
}

func (s *Server) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// makeDir makes the directory that everything lives in. t.TempDir will not do: only its
// owner may enter, and Exim runs as another user. In memory, where the system has
// such a place, Exim need not wait for a disk at each file.
func makeDir() (string, error) {
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		if dir, err := os.MkdirTemp(memory, "eximtest-"); err == nil {
			return dir, nil
		}
	}
	return os.MkdirTemp("/tmp", "eximtest-")
}

// launch starts the daemon and waits until it listens, which its log says.
func (s *Server) launch() error {
	if err := os.WriteFile(s.path("conf"), []byte(s.config()), 0o644); err != nil { //nolint:gosec // Exim's user reads it
		return err
	}
	const listening = "listening for SMTP on"
	before := strings.Count(s.Log(), listening)
	daemon, err := testserver.Start(s.exim("-bdf"), s.path("out"))
	if err != nil {
		return err
	}
	s.daemon = daemon
	return testserver.Poll(context.Background(), daemon, func() error {
		if strings.Count(s.Log(), listening) == before {
			return errors.New("it does not listen")
		}
		return nil
	})
}
