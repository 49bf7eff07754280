package workercli

import (
	"context"
	"net"
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

func TestCatch_badInput(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got := worker(t.Context(), t, backends.Builtin(), "catch", "--addr", l.Addr().String()); got.code != 69 || !strings.Contains(got.err, "in use") {
		t.Errorf("%+v", got)
	}
	if got := worker(t.Context(), t, backends.Builtin(), "catch", "--addr", "1025"); got.code != 64 {
		t.Errorf("%+v", got)
	}
}
