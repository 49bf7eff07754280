package harness

import (
	"bufio"
	"net"
	"net/smtp"
	"strings"
	"testing"
	"time"
)

// talk runs f against a sink in this process.
func talk(t *testing.T, delay time.Duration, f func(s *Sink)) {
	t.Helper()
	if err := Run(t.Context(), "sink", Programs{}, func(b *Bench) { f(StartSink(b, delay)) }); err != nil {
		t.Fatal(err)
	}
}

func TestSink(t *testing.T) {
	start := "EHLO me.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
	tests := []struct {
		name  string
		says  []string // each is written when the last was
		want  string   // the codes of the replies
		taken int
	}{
		{"pipelined", []string{start + "DATA\r\n", "text\r\n.\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n", "text\r\n.\r\nQUIT\r\n"}, "220 250 250 250 354 250 250 250 354 250 221", 2},
		{"dot in two parts", []string{start + "DATA\r\n", "text\r", "\n.", "\r\nQUIT\r\n"}, "220 250 250 250 354 250 221", 1},
		{"dots inside", []string{start + "DATA\r\n", "..\r\n.x\r\nx.\r\n\r\n.\r\nQUIT\r\n"}, "220 250 250 250 354 250 221", 1},
		{"empty", []string{start + "DATA\r\n", ".\r\nQUIT\r\n"}, "220 250 250 250 354 250 221", 1},
		{"chunked", []string{start + "BDAT 5 LAST\r\nx\r\ny\nRSET\r\nMAIL FROM:<a@example.com>\r\nBDAT 2\r\nxxBDAT 2 LAST\r\nxxQUIT\r\n"}, "220 250 250 250 250 250 250 250 250 221", 2},
		{"larger than the buffer", []string{start + "DATA\r\n", strings.Repeat(strings.Repeat("x", 70)+"\r\n", 5000) + ".\r\nQUIT\r\n"}, "220 250 250 250 354 250 221", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			talk(t, 0, func(s *Sink) {
				if got := converse(t, s.Addr(), tt.says); got != tt.want {
					t.Errorf("replies %s, want %s", got, tt.want)
				}
				if s.Taken() != tt.taken {
					t.Errorf("%d mails taken, want %d", s.Taken(), tt.taken)
				}
			})
		})
	}
}

// converse says all and returns the codes of the replies until the sink hangs up.
func converse(t *testing.T, addr string, says []string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, text := range says {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	var codes []string
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if line := lines.Text(); line[3] == ' ' {
			codes = append(codes, line[:3])
		}
	}
	return strings.Join(codes, " ")
}

func TestSink_Marked(t *testing.T) {
	talk(t, 0, func(s *Sink) {
		for _, to := range []string{"somebody@example.com", Mark + "@example.com"} {
			if err := smtp.SendMail(s.Addr(), nil, "a@example.com", []string{to}, []byte("text\r\n")); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-s.Marked:
		case <-t.Context().Done():
		}
		if len(s.Marked) != 0 || s.Taken() != 2 {
			t.Errorf("%d more are marked, %d taken", len(s.Marked), s.Taken())
		}
	})
}

func TestSink_distance(t *testing.T) {
	const delay = 5 * time.Millisecond
	talk(t, delay, func(s *Sink) {
		start := time.Now()
		if err := smtp.SendMail(s.Addr(), nil, "a@example.com", []string{"b@example.com"}, []byte("text\r\n")); err != nil {
			t.Fatal(err)
		}
		// 220, EHLO, MAIL, RCPT, DATA, the dot and QUIT, each waited for.
		if took := time.Since(start); took < 7*delay {
			t.Errorf("seven round trips of %v took %v", delay, took)
		}
	})
}
