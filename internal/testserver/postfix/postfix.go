// Package postfix starts a real Postfix for a test.
//
// The Postfix has its configuration, queue, data and log in a directory of its own
// below /tmp, listens on free ports of 127.0.0.1 and never touches the system's
// configuration or queue. Whatever it accepts, for any domain, it delivers into
// one mailbox which the test reads with [Server.Messages]. Several may run at the
// same time. It ends with the test and needs root, as Postfix's own parts change
// to their users.
//
// It refuses mail where a test asks for it:
//
//	RCPT refused@...           550 5.1.1 to RCPT
//	RCPT later@...             450 4.2.0 to RCPT
//	RCPT closing@...           421 4.3.2 to RCPT, and the connection is closed
//	MAIL refused-sender@...    553 5.7.1 to RCPT: Postfix says it there, not at MAIL
//	MAIL later-sender@...      450 4.7.1 to RCPT
//	X-Postfixtest: reject      550 5.7.1 after the final dot
//	X-Postfixtest: defer       451 4.7.1 after the final dot
//
// The one second that Postfix lets a client wait after ten errors is switched off; its
// limit of twenty errors without a delivery (421 4.7.0) is not.
package postfix

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// Options is how Postfix is set up. The zero value offers PIPELINING, SIZE,
// 8BITMIME, DSN, SMTPUTF8 and CHUNKING to everybody, without TLS.
type Options struct {
	// TLS offers STARTTLS, with a certificate for localhost and 127.0.0.1, and opens a
	// second port that speaks TLS from the start. A client certificate is asked for.
	TLS bool

	// Users are the names and passwords that may log in, by PLAIN, LOGIN or
	// CRAM-MD5, with TLS or without. Nobody else may send then. It takes Dovecot 2.3.
	Users map[string]string

	// Introspect is the URL of an OAuth 2 introspection endpoint (RFC 7662). Whoever has a token may log in with it, by XOAUTH2 or
	// OAUTHBEARER, as the username that the endpoint names. Nobody else may send then, but Users. It takes Dovecot 2.3.
	Introspect string

	MaxMessageSize int // bytes, as announced by SIZE: 10240000 if 0
	MaxRecipients  int // of one message, then 452: 1000 if 0

	// DiscardEHLO are the extensions not to offer, such as "PIPELINING" or "CHUNKING".
	DiscardEHLO []string

	// RejectPipelining refuses clients that send commands before they may
	// (reject_unauth_pipelining and smtpd_forbid_unauth_pipelining).
	RejectPipelining bool

	// Verifier is the host and port of a milter that adds Authentication-Results to each message.
	Verifier string

	// Main holds further lines of main.cf; they overrule those above.
	Main []string
}

// login reports whether clients have to log in.
func (o Options) login() bool { return len(o.Users) > 0 || o.Introspect != "" }

// Server is a running Postfix. Its methods that change its state belong to the
// goroutine of the test, as t.Fatal does; the others may be used by any.
type Server struct {
	t       testing.TB
	opts    Options
	system  system
	dir     string
	port    int
	tlsPort int
	ca      *testserver.Authority // nil without Options.TLS

	master  *testserver.Process
	dovecot *testserver.Process
	probes  atomic.Int64 // connections that we made ourselves
}

// Start starts a Postfix and waits until it greets. The test is skipped if it does
// not run as root or if Postfix, or the Dovecot that Options.Users needs, is not
// installed. Where CI is set in the environment it fails instead (testserver.Missing).
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s := &Server{t: t, opts: opts, system: needPostfix(t), dir: makeDir(t)}
	t.Cleanup(s.cleanup)
	if err := s.prepare(); err != nil {
		t.Fatalf("postfixtest: prepare: %v", err)
	}
	if opts.login() {
		s.startDovecot()
	}
	// Between our look for a free port and Postfix taking it somebody else may.
	err := testserver.Launch(func() error {
		s.Stop()
		_ = os.Remove(s.path("maillog")) // of the last attempt
		return s.launchAnywhere()
	}, s.Log)
	if err != nil {
		t.Fatalf("postfixtest: start: %v", err)
	}
	return s
}

// Addr is the host and port that speaks plain SMTP, with STARTTLS if asked for.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// TLSAddr is the host and port that speaks TLS from the start (Options.TLS).
func (s *Server) TLSAddr() string { return fmt.Sprintf("127.0.0.1:%d", s.tlsPort) }

// CAFile names a PEM file with the authority that signed the server's certificate.
func (s *Server) CAFile() string { return s.path("ca.pem") }

// CAs is the authority that signed the server's certificate, nil without Options.TLS.
func (s *Server) CAs() *x509.CertPool {
	if s.ca == nil {
		return nil
	}
	return s.ca.Pool
}

// ClientCert names the PEM files of a client certificate, which the server
// verifies, and of its key. A message's Received shows its name, "postfixtest client".
func (s *Server) ClientCert() (certFile, keyFile string) {
	return s.path("client.pem"), s.path("client.key")
}

// Log is what Postfix and Dovecot have logged.
func (s *Server) Log() string {
	var all strings.Builder
	for _, name := range []string{"maillog", "master.out", "dovecot.log"} {
		text, _ := os.ReadFile(s.path(name))
		all.Write(text)
	}
	return all.String()
}

// Stop ends Postfix, and with it every connection. What it has accepted stays in its
// queue. Stopping one that is not running does nothing.
func (s *Server) Stop() {
	s.t.Helper()
	if s.master == nil {
		return
	}
	if err := s.master.Stop(testserver.Timeout); err != nil {
		s.t.Errorf("postfixtest: stop: %v", err)
	}
	s.master = nil
}

// Kill ends all processes of Postfix at once (SIGKILL), as a machine that loses its power. What it has accepted is in its queue.
func (s *Server) Kill() {
	if s.master != nil {
		s.master.Kill()
		s.master = nil
	}
}

// Pause stops all processes of Postfix (SIGSTOP): the system takes connections, and nobody says a word. Resume lets them go on.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	if s.master == nil {
		return errors.New("postfixtest: it is not running")
	}
	return syscall.Kill(-s.master.PID(), sig)
}

// Restart stops Postfix, if it is running, and starts it again on the same ports.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.launch(); err != nil {
		s.t.Fatalf("postfixtest: restart: %v", err)
	}
}

func (s *Server) cleanup() {
	s.Stop()
	if s.dovecot != nil {
		s.dovecot.Kill() // it keeps nothing, and takes a second to end by itself
	}
	if s.t.Failed() {
		s.t.Logf("postfixtest: log of %s:\n%s", s.Addr(), s.Log())
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Errorf("postfixtest: %v", err)
	}
}

func (s *Server) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// launchAnywhere starts Postfix on free ports.
func (s *Server) launchAnywhere() error {
	var err error
	for _, port := range []*int{&s.port, &s.tlsPort} {
		if *port, err = testserver.FreePort(); err != nil {
			return err
		}
	}
	return s.launch()
}

// launch starts the master daemon and waits until it greets.
func (s *Server) launch() error {
	if err := s.writeConfig(); err != nil {
		return err
	}
	// With -d it stays in the foreground. It must lead its process group, which it
	// ends when it is asked to.
	cmd := exec.Command(filepath.Join(s.system.daemons, "master"), "-c", s.path("conf"), "-d") //nolint:gosec // the path is Postfix's own
	p, err := testserver.Start(cmd, s.path("master.out"))
	if err != nil {
		return err
	}
	s.master = p
	return testserver.Poll(context.Background(), p, func() error {
		_, err := s.greet()
		return err
	})
}

// greet connects, looks whether it is our Postfix that greets and not another that
// took the port, and returns the port we came from.
func (s *Server) greet() (from int, err error) {
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	s.probes.Add(1)
	if err := conn.SetDeadline(time.Now().Add(testserver.Timeout)); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, err
	}
	if !strings.Contains(line, s.token()) {
		return 0, fmt.Errorf("another server greets on this port: %q", line)
	}
	return conn.LocalAddr().(*net.TCPAddr).Port, nil
}

// token is what our greeting has and no other.
func (s *Server) token() string { return filepath.Base(s.dir) }

// Connections counts the connections that clients have opened so far.
func (s *Server) Connections(ctx context.Context) (int, error) {
	// The log is written by a process of its own, in the order of what happened.
	// So we make something happen and wait until we read of it.
	from, err := s.greet()
	if err != nil {
		return 0, fmt.Errorf("postfixtest: %w", err)
	}
	ours := fmt.Sprintf("]: connect from unknown[127.0.0.1]:%d\n", from)
	log := ""
	err = testserver.Poll(ctx, s.master, func() error {
		if log = s.Log(); !strings.Contains(log, ours) {
			return errors.New("the log does not show our own connection")
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("postfixtest: connections: %w", err)
	}
	return strings.Count(log, "]: connect from ") - int(s.probes.Load()), nil
}
