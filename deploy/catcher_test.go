package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/smtp"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// The mail server of docker-compose.yml, as a process: it takes mail, shows it under the names that Compose gives it, is
// healthy, and ends in time when it is stopped.
func TestCompose_mail(t *testing.T) {
	t.Parallel()
	project := loadCompose(t)
	service := project.Services["mail"]
	worker := filepath.Join(t.TempDir(), "worker")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "..", "-o", worker, "./cmd/worker").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr, page, stop := startMail(t, worker, service)

	if want := "smtp://mail:1025"; *project.Services["worker"].Environment["EMAIL_URL"] != want || !slices.Contains(service.Command, ":1025") {
		t.Errorf("the worker sends to %s", *project.Services["worker"].Environment["EMAIL_URL"])
	}
	if err := smtp.SendMail(addr, nil, "me@example.com", []string{"ann@example.com"}, []byte("Subject: Hello\r\n\r\nHello\r\n")); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{"localhost:1080": http.StatusOK, "mail:8080": http.StatusOK, "evil.example.com": http.StatusMisdirectedRequest} {
		status, body := get(t, "http://"+page+"/api/messages/latest?q=to:ann@example.com&wait=10s", host)
		if status != want {
			t.Errorf("as %s: %d %s, want %d", host, status, body, want)
		}
		var m struct{ Subject string }
		if err := json.Unmarshal(body, &m); want == http.StatusOK && (err != nil || m.Subject != "Hello") {
			t.Errorf("as %s: %v %s", host, err, body)
		}
	}

	test := service.HealthCheck.Test
	if test[0] != "CMD" || test[1] != "/usr/local/bin/worker" || !strings.Contains(test[len(test)-1], "127.0.0.1:8080") {
		t.Fatalf("health check %v", test)
	}
	ask := func() ([]byte, error) {
		args := append(slices.Clone(test[2:len(test)-1]), strings.Replace(test[len(test)-1], "127.0.0.1:8080", page, 1))
		return exec.CommandContext(t.Context(), worker, args...).CombinedOutput()
	}
	if out, err := ask(); err != nil {
		t.Errorf("it is not healthy: %v\n%s", err, out)
	}
	stop()
	if out, err := ask(); err == nil {
		t.Errorf("it is healthy after its end: %s", out)
	}
}

// startMail runs the service's command at ports that are free.
func startMail(t *testing.T, worker string, service types.ServiceConfig) (addr, page string, stop func()) {
	t.Helper()
	args := slices.Clone([]string(service.Command))
	for i, a := range args {
		if a == ":1025" || a == ":8080" {
			args[i] = "127.0.0.1:0"
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	c := exec.CommandContext(ctx, worker, args...)
	said, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		_ = c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			t.Errorf("stopped, it ended with %v (%v)", err, context.Cause(ctx))
		}
		cancel()
	}
	t.Cleanup(stop)
	lines := bufio.NewReader(said)
	for addr == "" || page == "" {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("it ended: %v", err)
		}
		if m := regexp.MustCompile(`^catching mail on (\S+)`).FindStringSubmatch(line); m != nil {
			addr = m[1]
		}
		if m := regexp.MustCompile(`^showing it at http://localhost(:\d+)`).FindStringSubmatch(line); m != nil {
			page = "127.0.0.1" + m[1]
		}
	}
	return addr, page, stop
}

func get(t *testing.T, url, host string) (status int, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	if body, err = io.ReadAll(reply.Body); err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, body
}
