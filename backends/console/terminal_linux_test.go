package console_test

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/mailpouch/mailpouch/backends/console"
	"github.com/mailpouch/mailpouch/mailer"
)

// terminal returns both ends of a pseudo-terminal: what programs write to is the second.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		t.Skip("no pseudo-terminals here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	var unlock, number int32
	for _, call := range []struct {
		request uintptr
		value   *int32
	}{{syscall.TIOCSPTLCK, &unlock}, {syscall.TIOCGPTN, &number}} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), call.request, uintptr(unsafe.Pointer(call.value))); errno != 0 { //nolint:gosec // an ioctl takes an address
			t.Fatal(errno)
		}
	}
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return screen, tty
}

// On a terminal text is text, and no message gives commands to it.
func TestBackend_terminal(t *testing.T) {
	t.Parallel()
	screen, tty := terminal(t)
	b, err := console.New(console.Config{Writer: tty})
	if err != nil {
		t.Fatal(err)
	}
	m := message("A")
	m.Body = "Grüße\n\x1b[2J\x1b]0;title\x07 plain\n"
	if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{m}); sent != 1 || err != nil {
		t.Fatal(sent, err)
	}
	m.Body = "Grüße\n"
	if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{m}); sent != 1 || err != nil {
		t.Fatal(sent, err)
	}
	var shown strings.Builder
	for lines, rules := bufio.NewReader(screen), 0; rules < 2; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		shown.WriteString(line)
		if strings.HasPrefix(line, strings.Repeat("-", 79)) {
			rules++
		}
	}
	if got := shown.String(); strings.ContainsAny(got, "\x1b\x07") || !strings.Contains(got, "\r\n\r\nGrüße\r\n") {
		t.Errorf("shown: %q", got)
	}
}
