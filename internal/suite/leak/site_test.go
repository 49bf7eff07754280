package leak

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// patience bounds every wait: the machine may be busy.
const patience = 90 * time.Second

// site is an installation: the commands as they are, a Redis with a password, and a relay.
type site struct {
	*testing.T
	redis *redistest.Server
	env   []string
}

func newSite(t *testing.T, r *relay) *site {
	t.Helper()
	s := &site{T: t, redis: redistest.Start(t, redistest.Options{Username: "mail", Password: string(redisPass)})}
	s.env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "EMAIL_") || strings.HasPrefix(v, "LOG_") || strings.HasPrefix(v, "REDIS_URL=")
	})
	s.env = append(append(s.env, r.env()...),
		"REDIS_URL="+s.redis.URL(), "EMAIL_HTTP_ADDR=127.0.0.1:0", "EMAIL_HTTP_PASSWORD="+string(httpPassword), "EMAIL_HTTP_TOKEN="+string(httpToken),
		"EMAIL_HOSTNAME=shop.example.com", "DEFAULT_FROM_EMAIL="+string(author)+"@example.com", "LOG_LEVEL=debug",
		"EMAIL_RETRY_MIN=1s", "EMAIL_RETRY_MAX=1s", "EMAIL_MAX_RETRY=1", "EMAIL_TIMEOUT=2s", "EMAIL_BATCH_TIMEOUT=3s", "EMAIL_SHUTDOWN_TIMEOUT=4s")
	return s
}

// run runs a command to its end and returns all that it has said.
func (s *site) run(input string, env []string, name string, args ...string) (code int, said string) {
	s.Helper()
	c := exec.CommandContext(s.Context(), filepath.Join(commands, name), args...)
	c.Env, c.Stdin = append(slices.Clone(s.env), env...), strings.NewReader(input)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return c.ProcessState.ExitCode(), string(out)
}

// must is run for what has to work.
func (s *site) must(input, name string, args ...string) string {
	s.Helper()
	code, said := s.run(input, nil, name, args...)
	if code != 0 {
		s.Fatalf("%s %s: exit code %d\n%s", name, strings.Join(args, " "), code, said)
	}
	return said
}

// worker is a running "worker run".
type worker struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan logLine
	ended chan struct{} // closed when all is read

	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// logLine is what the test needs to know of a line.
type logLine struct {
	Message   string `json:"message"`
	MessageID string `json:"message_id"`
	URL       string `json:"url"`
	Addr      string `json:"addr"`
}

func (s *site) worker(env []string, args ...string) *worker {
	s.Helper()
	w := &worker{
		t: s.T, cmd: exec.CommandContext(s.Context(), filepath.Join(commands, "worker"), append([]string{"run"}, args...)...),
		lines: make(chan logLine, 100_000), ended: make(chan struct{}),
	}
	w.cmd.Env = append(slices.Clone(s.env), env...)
	reader, writer, err := os.Pipe()
	if err != nil {
		s.Fatal(err)
	}
	w.cmd.Stdout, w.cmd.Stderr = writer, writer
	if err := w.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	_ = writer.Close()
	go w.read(reader)
	s.Cleanup(func() { _ = w.cmd.Process.Kill(); <-w.ended })
	return w
}

// read takes the worker's log, of which each line has to be JSON.
func (w *worker) read(r io.ReadCloser) {
	defer close(w.ended)
	defer func() { _ = r.Close() }()
	in := bufio.NewReader(r)
	for {
		text, err := in.ReadString('\n')
		w.mu.Lock()
		w.text.WriteString(text)
		w.mu.Unlock()
		if err != nil {
			return
		}
		var line logLine
		if json.Unmarshal([]byte(text), &line) != nil {
			w.t.Errorf("a line that is no JSON: %s", text)
			continue
		}
		w.lines <- line
	}
}

func (w *worker) log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// says waits for a line.
func (w *worker) says(what string, is func(logLine) bool) logLine {
	w.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case line := <-w.lines:
			if is(line) {
				return line
			}
		case <-timer.C:
			w.t.Fatalf("the worker does not say %s:\n%s", what, w.log())
		}
	}
}

func (w *worker) pages() string {
	return w.says("where its pages are", func(l logLine) bool { return l.URL != "" }).URL
}

// ends waits until so many messages have come to their end.
func (w *worker) ends(n int) {
	w.t.Helper()
	for i := range n {
		w.says(fmt.Sprintf("that message %d of %d has ended", i+1, n), func(l logLine) bool {
			return slices.Contains([]string{"sent", "dead letter", "failed silently"}, l.Message)
		})
	}
}

// stop ends the worker and returns its log.
func (w *worker) stop() string {
	w.t.Helper()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	<-w.ended
	_ = w.cmd.Wait()
	return w.log()
}

// fetch asks a page for something.
func (s *site) fetch(url, token string) string {
	s.Helper()
	return ask(s.T, http.MethodGet, url, token, "")
}

// started is closed when the worker works.
func (w *worker) started() <-chan struct{} {
	started := make(chan struct{})
	go func() {
		for {
			select {
			case line := <-w.lines:
				if line.Message == "worker started" {
					close(started)
					return
				}
			case <-w.ended:
				return
			}
		}
	}()
	return started
}
