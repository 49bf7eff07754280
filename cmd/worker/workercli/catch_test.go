package workercli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/cli"
)

func TestCatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &watcher{safeBuffer: new(safeBuffer), notify: make(chan string, 10)}
	errs := &watcher{safeBuffer: new(safeBuffer), notify: make(chan string, 10)}
	done := make(chan int)
	go func() {
		command := func(std cli.Streams) *cobra.Command { return newCommand(std, backends.Builtin()) }
		done <- cli.Run(ctx, command, []string{"catch", "--addr", "127.0.0.1:0"}, cli.Streams{Out: out, Err: errs})
	}()
	_, addr, _ := strings.Cut(<-errs.notify, "catching mail on ")
	addr, _, _ = strings.Cut(addr, " ")
	mail := "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\nSch\xf6n.\x1b[2J\r\n"
	if err := smtp.SendMail(addr, nil, "a@example.com", []string{"b@example.com"}, []byte(mail)); err != nil {
		t.Fatal(err)
	}
	got := <-out.notify
	for _, want := range []string{"Grüße", "Schön.", "b@example.com"} {
		if !strings.Contains(got, want) {
			t.Errorf("printed no %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "\x1b") {
		t.Errorf("a mail can command the terminal: %q", got)
	}
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// With --http there is a page and an API, and the mail is in memory as far as the flags say.
func TestCatch_http(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &watcher{safeBuffer: new(safeBuffer), notify: make(chan string, 10)}
	errs := &watcher{safeBuffer: new(safeBuffer), notify: make(chan string, 10)}
	done := make(chan int)
	go func() {
		command := func(std cli.Streams) *cobra.Command { return newCommand(std, backends.Builtin()) }
		args := []string{"catch", "--addr", "127.0.0.1:0", "--http", "127.0.0.1:0", "--http-host", "Mail", "--keep", "2", "--keep-bytes", "2kB", "--quiet"}
		done <- cli.Run(ctx, command, args, cli.Streams{Out: out, Err: errs})
	}()
	_, addr, _ := strings.Cut(<-errs.notify, "catching mail on ")
	addr, _, _ = strings.Cut(addr, " ")
	_, page, _ := strings.Cut(<-errs.notify, "showing it at ")
	page = strings.TrimSpace(page)
	for n := range 4 {
		mail := fmt.Sprintf("Subject: no. %d\r\n\r\nHello\r\n%s\r\n", n, strings.Repeat("x", []int{0, 0, 0, 5000}[n]))
		// Whoever logs in may do so: programs have credentials, and the mail catcher is not to know them.
		auth := smtp.PlainAuth("", "app", "any password", "127.0.0.1")
		if err := smtp.SendMail(addr, auth, "a@example.com", []string{"b@example.com"}, []byte(mail)); err != nil {
			t.Fatal(err)
		}
	}
	get := func(path, host string) (int, string) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, page+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	// Of three two are kept, and the last one is bigger than --keep-bytes.
	if code, body := get("api/messages", ""); code != http.StatusOK || !strings.Contains(body, `"total":2`) || !strings.Contains(body, "no. 1") {
		t.Errorf("%d %s", code, body)
	}
	if got := errs.String(); !strings.Contains(got, "more than --keep-bytes 2kB: it is not kept") {
		t.Errorf("nothing of the big one is said: %s", got)
	}
	if err := smtp.SendMail(addr, nil, "a@example.com", []string{"b@example.com"}, []byte("Subject: last\r\n\r\nHello\r\n")); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{"": 200, "mail:8080": 200, "localhost": 200, "evil.example": 421} {
		if code, body := get("", host); code != want || want == 200 && !strings.Contains(body, "last") {
			t.Errorf("as %q: %d\n%s", host, code, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := out.String(); got != "" {
		t.Errorf("printed with --quiet: %s", got)
	}
}

func TestCatch_badInput(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got := worker(t.Context(), t, backends.Builtin(), "catch", "--addr", l.Addr().String()); got.code != 69 || !strings.Contains(got.err, "in use") {
		t.Errorf("%+v", got)
	}
	if got := worker(t.Context(), t, backends.Builtin(), "catch", "--addr", "127.0.0.1:0", "--http", l.Addr().String()); got.code != 69 || !strings.Contains(got.err, "in use: another program listens there (--http") {
		t.Errorf("%+v", got)
	}
	for _, tt := range []struct{ args, want string }{
		{"--addr 1025", `--addr "1025": host:port`}, {"--http 8080", `--http "8080": host:port`}, {"--http :0 --keep 0", "--keep 0: at least one"},
		{"--http :0 --keep-bytes big", "--keep-bytes"}, {"--http :0 --keep-bytes 0", "--keep-bytes 0: at least one byte"}, {"--http :0 --http-host a:80", `--http-host "a:80"`},
	} {
		got := worker(t.Context(), t, backends.Builtin(), append([]string{"catch"}, strings.Fields(tt.args)...)...)
		if got.code != 64 || !strings.Contains(got.err, tt.want) || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%s: %+v", tt.args, got)
		}
	}
}
