// Package redis starts a real redis-server for a test: one alone (Start), a cluster
// (StartCluster), or a master with a replica and sentinels (StartSentinel).
//
// Each server listens on a free port of 127.0.0.1 and keeps its files in the test's
// temporary directory. It ends with the test, even if the test process is killed.
package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// Persistence is what Redis writes to its append-only file.
type Persistence string

// What survives: nothing; all but the last second; everything that was answered.
const (
	Off      Persistence = ""
	EverySec Persistence = "everysec"
	Always   Persistence = "always"
)

// Options is how the server is set up. The zero value is a server without
// password that writes nothing to disk, so that Restart finds it empty.
type Options struct {
	AppendOnly Persistence

	// Password is asked of everybody. With a Username it is the password of that ACL
	// user, who may do everything, and the default user is switched off.
	Username string
	Password string

	// TLS makes the server speak TLS only, with a certificate for 127.0.0.1 and localhost
	// whose authority is in the file CAFile.
	TLS bool

	MaxMemory       string // such as "32mb": no limit if empty
	MaxMemoryPolicy string // such as "allkeys-lru": noeviction if empty

	// Config holds further lines of redis.conf, such as "save 3600 1".
	Config []string

	ca       *testserver.Authority // whose certificate "server" all servers of a cluster share
	sentinel bool                  // it watches other servers and keeps no data
}

// Server is a running redis-server. Its methods that change its state belong to the
// goroutine of the test, as t.Fatal does; Addr and URL may be used by any.
type Server struct {
	t    testing.TB
	opts Options
	path string
	dir  string
	port int
	args []string // after the configuration file

	process *testserver.Process // nil before the first start
	paused  bool
}

// Start starts a server and waits until it answers. If redis-server is not installed the
// test is skipped, or fails where CI is set in the environment (testserver.Missing).
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	return start(t, opts, testserver.FreePort)
}

func start(t testing.TB, opts Options, port func() (int, error), args ...string) *Server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		testserver.Missing(t, "redistest: install redis-server (Debian: apt-get install redis-server)")
	}
	if opts.TLS && opts.ca == nil {
		opts.ca = newAuthority(t)
	}
	s := &Server{t: t, opts: opts, path: path, dir: t.TempDir(), args: args}
	t.Cleanup(s.cleanup)
	// Between our look for a free port and Redis taking it somebody else may.
	err = testserver.Launch(func() error {
		s.kill()
		_ = os.Remove(filepath.Join(s.dir, "redis.log")) // of the last attempt
		var err error
		if s.port, err = port(); err != nil {
			return err
		}
		return s.launch()
	}, s.Log)
	if err != nil {
		t.Fatalf("redistest: start: %v", err)
	}
	return s
}

// newAuthority makes an authority and a certificate for servers on this machine. It is a
// client's too: the nodes of a cluster are each other's clients.
func newAuthority(t testing.TB) *testserver.Authority {
	t.Helper()
	ca, err := testserver.NewAuthority(t.TempDir(), "redistest authority")
	if err == nil {
		err = ca.Issue("server", "redistest", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	}
	if err != nil {
		t.Fatalf("redistest: certificate: %v", err)
	}
	return ca
}

// Addr is the server's host and port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// URL is the server's address with its credentials, as REDIS_URL wants it.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", Host: s.Addr(), Path: "/0"}
	if s.opts.TLS {
		u.Scheme, u.RawQuery = "rediss", url.Values{"cafile": {s.CAFile()}}.Encode()
	}
	if s.opts.Password != "" {
		u.User = url.UserPassword(s.opts.Username, s.opts.Password)
	}
	return u.String()
}

// Dir is where the server keeps its files.
func (s *Server) Dir() string { return s.dir }

// Log is what the server has logged since it was first started.
func (s *Server) Log() string {
	log, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
	return string(log)
}

// CAFile is the PEM file with the authority of the server's certificate. It is empty
// without TLS.
func (s *Server) CAFile() string {
	if s.opts.ca == nil {
		return ""
	}
	return s.opts.ca.CAFile()
}

// Client returns a client that is logged in and is closed when t ends.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewClient(s.clientOptions())
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *Server) clientOptions() *redis.Options {
	o := &redis.Options{Addr: s.Addr(), Username: s.opts.Username, Password: s.opts.Password}
	if s.opts.TLS {
		o.TLSConfig = &tls.Config{RootCAs: s.opts.ca.Pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	}
	return o
}

// Stop ends the server as an administrator would: SIGTERM, on which it writes what
// it is configured to keep. Stopping a server that is not running does nothing.
func (s *Server) Stop() {
	s.t.Helper()
	if !s.Running() {
		return
	}
	s.Resume() // a stopped process takes no SIGTERM
	if err := s.process.Stop(testserver.Patience); err != nil {
		s.t.Fatalf("redistest: stop: %v", err)
	}
}

// Kill ends the server without warning, as a crash would. It may be started
// again by Restart. Killing a server that is not running does nothing.
func (s *Server) Kill() {
	s.t.Helper()
	s.kill()
}

// Restart stops the server, if it is running, and starts it again on the same port
// and directory. It returns when the server has loaded its data and answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.launch(); err != nil {
		s.t.Fatalf("redistest: restart: %v", err)
	}
}

// Pause stops the process where it is: connections stay open and nothing is
// answered, as with a network that has gone silent.
func (s *Server) Pause() {
	s.t.Helper()
	if s.paused {
		return
	}
	s.signal(syscall.SIGSTOP)
	s.paused = true
}

// Resume lets a paused server go on. Otherwise it does nothing.
func (s *Server) Resume() {
	s.t.Helper()
	if !s.paused {
		return
	}
	s.signal(syscall.SIGCONT)
	s.paused = false
}

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Signal(sig); err != nil {
		s.t.Fatalf("redistest: %v: %v", sig, err)
	}
}

// Running reports whether the process is there, be it paused.
func (s *Server) Running() bool { return s.process.Running() }

func (s *Server) kill() {
	if s.process != nil {
		s.process.Kill()
	}
	s.paused = false
}

func (s *Server) cleanup() {
	s.kill()
	if s.t.Failed() {
		s.t.Logf("redistest: log of %s:\n%s", s.Addr(), s.Log())
	}
}

// launch starts the process and waits until it answers.
func (s *Server) launch() error {
	conf := filepath.Join(s.dir, "redis.conf")
	if err := os.WriteFile(conf, []byte(s.config()), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(s.path, append([]string{conf}, s.args...)...) //nolint:gosec // the path is what LookPath found
	cmd.Dir = s.dir
	var err error
	if s.process, err = testserver.Start(cmd, filepath.Join(s.dir, "redis.out")); err != nil {
		return err
	}
	s.paused = false
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Patience)
	defer cancel()
	return testserver.Poll(ctx, s.process, func() error { return s.ready(ctx) })
}

// ready asks for a PING, which is refused while data is being loaded, and
// whether it is our process that answers and not another on the same port. It
// knocks first, because the client logs each connection that is refused.
func (s *Server) ready(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return err
	}
	_ = conn.Close()
	opts := s.clientOptions()
	opts.MaxRetries = -1
	c := redis.NewClient(opts)
	defer func() { _ = c.Close() }()
	if err := c.Ping(ctx).Err(); err != nil {
		return err
	}
	info, err := c.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	if !strings.Contains(info, fmt.Sprintf("\nprocess_id:%d\r", s.process.PID())) {
		return errors.New("another server answers on this port")
	}
	return nil
}
