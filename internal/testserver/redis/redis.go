// Package redis starts a real redis-server for a test: one alone (Start), a cluster
// (StartCluster), or a master with a replica and sentinels (StartSentinel).
//
// Each server listens on a free port of 127.0.0.1 and keeps its files in the
// test's temporary directory. It ends with the test, and on Linux also with the
// test process if that is killed.
package redis

import (
	"context"
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
	"time"

	"github.com/redis/go-redis/v9"
)

// patience bounds every wait for the server, generously: the machine may be busy.
const patience = 30 * time.Second

// probeInterval is the pause between two looks at a server that is starting.
const probeInterval = 2 * time.Millisecond

// Persistence says what Redis writes to its append-only file.
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

	certs    *certs
	sentinel bool // it watches other servers and keeps no data
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

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended; nil before the first start
	paused bool
}

// Start starts a server and waits until it answers. If redis-server is not
// installed the test is skipped, and fails instead where CI is set in the
// environment: there it would be skipped for ever without anybody noticing.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	return start(t, opts, freePort)
}

func start(t testing.TB, opts Options, port func(testing.TB) int, args ...string) *Server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		missing(t, "install redis-server (Debian: apt-get install redis-server)")
	}
	if opts.TLS && opts.certs == nil {
		opts.certs = newCerts(t)
	}
	s := &Server{t: t, opts: opts, path: path, dir: t.TempDir(), args: args}
	t.Cleanup(s.cleanup)
	// Between our look for a free port and Redis taking it somebody else may.
	for range 5 {
		_ = os.Remove(filepath.Join(s.dir, "redis.log")) // of the last attempt
		s.port = port(t)
		if err = s.launch(); err == nil {
			return s
		}
		s.kill()
		if !strings.Contains(s.Log(), "Address already in use") {
			break
		}
	}
	t.Fatalf("redistest: start: %v", err)
	return nil
}

func missing(t testing.TB, text string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("redistest: " + text)
	}
	t.Skip("redistest: " + text)
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: free port: %v", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
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
		o.TLSConfig = s.opts.certs.client
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
	s.signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatalf("redistest: stop: still running after %v", patience)
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
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("redistest: %v: %v", sig, err)
	}
}

// Running says whether the process is there, be it paused.
func (s *Server) Running() bool {
	if s.exited == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

func (s *Server) kill() {
	if !s.Running() {
		return
	}
	_ = s.cmd.Process.Kill() // the only error is that it has just ended by itself
	<-s.exited
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
	dieWithUs(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}()
	s.cmd, s.exited, s.paused = cmd, exited, false
	return s.waitReady()
}

func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	probe := time.NewTicker(probeInterval)
	defer probe.Stop()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("redis-server has ended, its log says why")
		case <-ctx.Done():
			return fmt.Errorf("no answer after %v: %w", patience, err)
		case <-probe.C:
		}
	}
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
	if !strings.Contains(info, fmt.Sprintf("\nprocess_id:%d\r", s.cmd.Process.Pid)) {
		return errors.New("another server answers on this port")
	}
	return nil
}
