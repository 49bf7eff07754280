package corpus

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/catcher"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

var dir = flag.String("corpus.dir", "", "the directory of .eml files, instead of testdata: what is refused is shown then, and no failure")

// Files whose name begins so are messages that cannot be sent, and have to be refused.
const refusedPrefix = "refused-"

// Files whose name begins so are refused by a relay without 8BITMIME: a signature covers what is in 8 bit.
const eightBitPrefix = "8bit-"

// TestCorpus sends all files to a relay that takes 8 bit, and to one that does not.
func TestCorpus(t *testing.T) {
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../../cmd/enqueue", "../../../cmd/worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("8BITMIME", func(t *testing.T) { testCorpus(t, bin, true) })
	t.Run("without 8BITMIME", func(t *testing.T) { testCorpus(t, bin, false) })
}

func testCorpus(t *testing.T, bin string, eightBit bool) {
	files := emlFiles(t)
	received := make(chan catcher.Message, len(files))
	relay, err := catcher.Start(catcher.Config{OnMessage: func(m catcher.Message) { received <- m }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	addr := relay.Addr()
	if !eightBit {
		addr = sevenBit(t, addr)
	}
	s := newSite(t, bin, addr)
	sent := map[string]string{} // the file, by the recipient
	refused := 0
	for i, file := range files {
		to := fmt.Sprintf("%d@corpus.example", i)
		reason := s.enqueueRaw(file, to)
		name := filepath.Base(file)
		switch wanted := strings.HasPrefix(name, refusedPrefix); {
		case reason == "" && wanted && *dir == "":
			t.Errorf("%s was not refused", name)
			sent[to] = file
		case reason == "":
			sent[to] = file
		case !wanted && *dir == "":
			t.Errorf("%s was refused: %s", name, reason)
		default:
			t.Logf("%s is refused: %s", name, reason)
			refused++
		}
	}
	dead := make(chan string, len(files)) // lines of the log
	stop := s.worker(dead)
	timeout := time.NewTimer(time.Minute + time.Duration(len(files))*100*time.Millisecond)
	defer timeout.Stop()
	for n := len(sent); n > 0; n-- {
		select {
		case m := <-received:
			file, ok := sent[m.To[0]]
			if !ok {
				t.Errorf("a second copy, or a stranger: to %q", m.To)
				continue
			}
			delete(sent, m.To[0])
			compare(t, file, m.Raw)
			if !eightBit && bytes.ContainsFunc(m.Raw, func(r rune) bool { return r > 0x7f }) {
				t.Errorf("%s: was delivered in 8 bit", file)
			}
		case line := <-dead:
			_, to, _ := strings.Cut(line, `"to":["`)
			to, _, _ = strings.Cut(to, `"`)
			name := filepath.Base(sent[to])
			delete(sent, to)
			if *dir == "" && (eightBit || !strings.HasPrefix(name, eightBitPrefix)) {
				t.Errorf("%s was not delivered: %s", name, line)
			} else {
				t.Logf("%s is not delivered: %s", name, line)
			}
			refused++
		case <-timeout.C:
			t.Errorf("%d messages were not delivered: %v", len(sent), sent)
			n = 1
		}
	}
	stop()
	t.Logf("%d messages: %d delivered, %d refused", len(files), len(files)-refused-len(sent), refused)
}

// emlFiles returns the .eml files of the directory and of those in it.
func emlFiles(t *testing.T) []string {
	t.Helper()
	root := *dir
	if root == "" {
		root = "testdata"
	}
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.EqualFold(filepath.Ext(path), ".eml") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no .eml files in %s: %v", root, err)
	}
	return files
}

// compare demands that a reader sees the same of a file and of what was delivered.
func compare(t *testing.T, file string, delivered []byte) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.SplitSeq(delivered, []byte("\r\n")) {
		if len(line) > 998 {
			t.Errorf("%s: was delivered with a line of %d bytes", file, len(line))
		}
	}
	want, got := meaning(raw), meaning(delivered)
	differ(t, file, got.without(want), want.fields)
	differ(t, file, got.parts, want.parts)
	for i, name := range want.files {
		if name != "" && i < len(got.files) && got.files[i] != name {
			t.Errorf("%s: a file has the name %q, want %q", file, got.files[i], name)
		}
	}
}

// differ reports the first difference.
func differ(t *testing.T, file string, got, want []string) {
	t.Helper()
	at := func(list []string, i int) string {
		if i < len(list) {
			return list[i]
		}
		return "nothing more"
	}
	for i := range max(len(want), len(got)) {
		if w, g := at(want, i), at(got, i); w != g {
			t.Errorf("%s: a reader sees\n%.1000q, want\n%.1000q", file, g, w)
			return
		}
	}
}

// sevenBit is the address of a relay that passes all on to the one at addr, but for its offer of 8BITMIME and SMTPUTF8.
func sevenBit(t *testing.T, addr string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() {
				_, _ = io.Copy(server, client)
				_ = server.Close()
			})
			all.Go(func() {
				defer func() { _ = client.Close() }()
				for lines := bufio.NewScanner(server); lines.Scan(); {
					line := strings.NewReplacer("8BITMIME", "XSEVENBIT", "SMTPUTF8", "XASCII").Replace(lines.Text())
					if _, err := io.WriteString(client, line+"\r\n"); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// site is what the messages go through: the two commands, and a Redis.
type site struct {
	t   *testing.T
	bin string
	env []string
}

func newSite(t *testing.T, bin, relay string) *site {
	t.Helper()
	s := &site{t: t, bin: bin}
	host, port, err := net.SplitHostPort(relay)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "EMAIL_") {
			s.env = append(s.env, v)
		}
	}
	redis := redistest.Start(t, redistest.Options{})
	s.env = append(s.env, "REDIS_URL="+redis.URL(), "EMAIL_HOST="+host, "EMAIL_PORT="+port, "EMAIL_HOSTNAME="+ownHost, "EMAIL_HTTP_ADDR=off", "LOG_FORMAT=json", "EMAIL_LOG_SHOW_ADDRESSES=true", "EMAIL_MAX_MESSAGE_SIZE=50MB")
	return s
}

// enqueueRaw queues a file, and returns why it was refused, or "".
func (s *site) enqueueRaw(file, to string) (reason string) {
	s.t.Helper()
	in, err := os.Open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	c := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, "enqueue"), "raw", "-i", "-f", "corpus@example.com", to)
	c.Env, c.Stdin = s.env, in
	out, err := c.CombinedOutput()
	const badData = 65
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == badData {
		return strings.TrimSpace(string(out))
	}
	if err != nil {
		s.t.Fatalf("%s: %v: %s", file, err, out)
	}
	return ""
}

// worker starts a worker process, and sends what it logs of dead letters. stop ends it and waits for its end.
func (s *site) worker(dead chan<- string) (stop func()) {
	s.t.Helper()
	c := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, "worker"), "run")
	c.Env = s.env
	stderr, err := c.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	var log bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), `"message":"dead letter"`) {
				dead <- lines.Text()
			}
		}
	})
	return func() {
		err := c.Process.Signal(syscall.SIGTERM)
		reading.Wait()
		if err = errors.Join(err, c.Wait()); err != nil {
			s.t.Errorf("worker: %v\n%s", err, log.Bytes())
		}
	}
}
