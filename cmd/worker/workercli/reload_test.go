package workercli

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
	"golang.org/x/sys/unix"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/testserver"
)

// account is a mail server that takes mail of who knows its password, and refuses others for good.
type account struct {
	mu       sync.Mutex
	password string
	logins   []string // passwords that were right
	refused  int
	taken    int
}

func (a *account) NewSession(*gosmtp.Conn) (gosmtp.Session, error) {
	return &accountSession{account: a}, nil
}

type accountSession struct {
	*account
	in bool
}

func (s *accountSession) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *accountSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, password string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if password != s.password {
			s.refused++
			return &gosmtp.SMTPError{Code: 535, EnhancedCode: gosmtp.EnhancedCode{5, 7, 8}, Message: "wrong password"}
		}
		s.in, s.logins = true, append(s.logins, password)
		return nil
	}), nil
}

func (s *accountSession) Mail(string, *gosmtp.MailOptions) error {
	if !s.in {
		return gosmtp.ErrAuthRequired
	}
	return nil
}
func (s *accountSession) Rcpt(string, *gosmtp.RcptOptions) error { return nil }
func (s *accountSession) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	return err
}
func (s *accountSession) Reset()        {}
func (s *accountSession) Logout() error { return nil }

// startAccount starts the server and returns its port.
func startAccount(t *testing.T, password string) (a *account, port string) {
	t.Helper()
	a = &account{password: password}
	s := gosmtp.NewServer(a)
	s.AllowInsecureAuth = true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		_ = s.Close()
		serving.Wait()
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return a, port
}

func (a *account) change(password string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.password = password
}

func (a *account) state() (logins []string, refused, taken int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.logins...), a.refused, a.taken
}

// secret writes a secret to a file, as it is replaced in real life: at once.
func secret(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// answer asks the worker's pages with a token.
func answer(t *testing.T, url, token string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(got.Body)
	_ = got.Body.Close()
	return got.StatusCode, string(text)
}

// A password is replaced while the worker runs, and so is that of the pages. What is wrong is not used.
func TestRun_rotatedPassword(t *testing.T) {
	t.Parallel()
	a, port := startAccount(t, "one")
	dir, addr := t.TempDir(), testserver.FreeAddr(t)
	password, token := secret(t, filepath.Join(dir, "password"), "one"), secret(t, filepath.Join(dir, "token"), "t1")
	p := startProcess(t, "", "EMAIL_QUEUE_BACKEND=smtp", "EMAIL_HOST=127.0.0.1", "EMAIL_PORT="+port, "EMAIL_HOST_USER=ann",
		"EMAIL_HOST_PASSWORD_FILE="+password, "EMAIL_HTTP_ADDR="+addr, "EMAIL_HTTP_TOKEN_FILE="+token, "EMAIL_CONNECTIONS=2")
	p.delivers(t, 3)

	a.change("two")
	secret(t, password, "two")
	secret(t, token, "t2")
	p.signal(t, syscall.SIGHUP)
	if line := p.until(t, "files of secrets read again"); !strings.Contains(line, `"changed":["EMAIL_HOST_PASSWORD_FILE","EMAIL_HTTP_TOKEN_FILE"]`) {
		t.Error(line)
	}
	p.delivers(t, 3)
	if logins, refused, taken := a.state(); refused > 0 || taken != 6 || logins[len(logins)-1] != "two" {
		t.Errorf("logins with %q, %d refused, %d messages taken", logins, refused, taken)
	}
	for give, want := range map[string]int{"t1": http.StatusUnauthorized, "t2": http.StatusOK} {
		code, body := answer(t, "http://"+addr+"/metrics", give)
		if code != want {
			t.Errorf("the token %s: %d, want %d", give, code, want)
		}
		if give == "t2" && (!strings.Contains(body, `mailpouch_reloads_total{result="used"} 1`) || !strings.Contains(body, "mailpouch_secret_files_wrong 0")) {
			t.Error("the metrics do not have it")
		}
	}

	secret(t, password, "")
	p.signal(t, syscall.SIGHUP)
	if line := p.until(t, "EMAIL_HOST_PASSWORD_FILE"); !strings.Contains(line, "is empty. What was read before is kept") || strings.Contains(line, "two") {
		t.Error(line)
	}
	p.until(t, "files of secrets read again")
	if _, body := answer(t, "http://"+addr+"/status.json", "t2"); !strings.Contains(body, `"secrets_wrong":["EMAIL_HOST_PASSWORD_FILE: `) {
		t.Errorf("the page does not say it: %s", body)
	}
	p.delivers(t, 3)
	if _, refused, taken := a.state(); refused > 0 || taken != 9 {
		t.Errorf("%d refused, %d messages taken", refused, taken)
	}
	p.ends(t)
}

// A mailer that is held because of a wrong password goes on as soon as the right one is in the file.
func TestRun_correctedPassword(t *testing.T) {
	t.Parallel()
	a, port := startAccount(t, "right")
	url := secret(t, filepath.Join(t.TempDir(), "url"), "smtp://ann:wrong@127.0.0.1:"+port)
	p := startProcess(t, "unset EMAIL_QUEUE_BACKEND;", "EMAIL_URL_FILE="+url)
	p.queue(t, 2)
	p.until(t, "relay takes no mail")
	secret(t, url, "smtp://ann:right@127.0.0.1:"+port)
	began := time.Now()
	p.signal(t, syscall.SIGHUP)
	p.until(t, "relay is back")
	p.wait(t)
	if logins, refused, taken := a.state(); len(logins) == 0 || refused != 1 || taken != 2 {
		t.Errorf("logins with %q, %d refused, %d messages taken", logins, refused, taken)
	}
	t.Logf("it took %v", time.Since(began))
	p.ends(t)
}

// What cannot change without a restart is said.
func TestRun_rotatedRedis(t *testing.T) {
	t.Parallel()
	p := startProcess(t, `echo "$REDIS_URL" > "$DIR/redis"; chmod 600 "$DIR/redis"; unset REDIS_URL; export REDIS_URL_FILE="$DIR/redis";`, "DIR="+t.TempDir())
	dir := ""
	for _, entry := range p.Env {
		if path, ok := strings.CutPrefix(entry, "DIR="); ok {
			dir = path
		}
	}
	secret(t, filepath.Join(dir, "redis"), "redis://127.0.0.1:1/0")
	p.signal(t, syscall.SIGHUP)
	if line := p.until(t, "takes a restart\""); !strings.Contains(line, "files of secrets") {
		t.Error(line)
	}
	if line := p.until(t, "these have changed"); !strings.Contains(line, `"settings":["REDIS_URL_FILE"]`) {
		t.Error(line)
	}
	p.delivers(t, 1) // by the Redis that it has
	p.ends(t)
}

// A worker whose terminal goes away ends in order.
func TestRun_terminal(t *testing.T) {
	t.Parallel()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	child, err := unix.IoctlRetInt(int(terminal.Fd()), unix.TIOCGPTPEER)
	if err != nil {
		t.Skipf("no terminal: %v", err)
	}
	p := newProcess(t, "")
	p.Stdin = os.NewFile(uintptr(child), "terminal")
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	p.start(t)
	p.signal(t, syscall.SIGHUP)
	p.until(t, "files of secrets read again") // the terminal is there
	if err := errors.Join(p.Stdin.(*os.File).Close(), terminal.Close()); err != nil {
		t.Fatal(err)
	}
	p.until(t, "worker stopping")
	p.until(t, "worker stopped")
	if err := p.Wait(); err != nil {
		t.Errorf("it has ended with %v, want in order", err)
	}
}

// Settings that a worker cannot work with are refused by name, also where the program's mail goes into a queue.
func TestRun_secretFileMissing(t *testing.T) {
	t.Setenv("EMAIL_BACKEND", "queue")
	t.Setenv("EMAIL_HTTP_ADDR", "off")
	t.Setenv("EMAIL_HOST_PASSWORD_FILE", "/nowhere/password")
	r := start(t, backends.Builtin())
	if line := r.says("EMAIL_HOST_PASSWORD_FILE: cannot be read"); !strings.Contains(line, "/nowhere/password") {
		t.Error(line)
	}
	if code := <-r.done; code != 78 {
		t.Errorf("exit code %d, want 78", code)
	}
	r.stop()
}

// A container has no other program that sends a signal.
func TestReload(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "")
	got := worker(t.Context(), t, backends.Builtin(), "reload", strconv.Itoa(p.Process.Pid))
	if got.code != 0 {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
	p.until(t, "files of secrets read again")
	p.ends(t)
	for pid, want := range map[string]int{strconv.Itoa(p.Process.Pid): 69, "0": 64, "-1": 64, "x": 64, "": 64} {
		if got := worker(t.Context(), t, backends.Builtin(), "reload", "--", pid); got.code != want {
			t.Errorf("reload %q: exit code %d, want %d: %s", pid, got.code, want, got.err)
		}
	}
	sleep := exec.CommandContext(t.Context(), "sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	}()
	if got := worker(t.Context(), t, backends.Builtin(), "reload", strconv.Itoa(sleep.Process.Pid)); got.code != 69 || !strings.Contains(got.err, "it is no worker") {
		t.Errorf("another program: exit code %d: %s", got.code, got.err)
	}
}

// worker check says which values come from a file.
func TestCheck_secretFile(t *testing.T) {
	path := secret(t, filepath.Join(t.TempDir(), "url"), "smtp://ann:mail-secret@127.0.0.1:"+closedPort(t))
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1")
	t.Setenv("EMAIL_URL_FILE", path)
	got := worker(t.Context(), t, backends.Builtin(), "check")
	if !strings.Contains(got.out, " file "+path) || strings.Contains(got.out+got.err, "mail-secret") {
		t.Errorf("%s%s", got.out, got.err)
	}
}
