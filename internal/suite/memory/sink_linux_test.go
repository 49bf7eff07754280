package memory

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// sink is a mail server that takes everything, and keeps the sum of each message.
type sink struct {
	addr     string
	listener net.Listener
	serving  sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]bool
	sums  map[string][sha256.Size]byte // of the messages' bytes, by recipient
	extra int                          // messages that came again
	want  int
	all   chan struct{} // closed when so many have come
}

func startSink(t *testing.T, want int) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{
		addr: l.Addr().String(), listener: l, open: map[net.Conn]bool{},
		sums: map[string][sha256.Size]byte{}, want: want, all: make(chan struct{}),
	}
	s.serving.Go(s.accept)
	t.Cleanup(s.stop)
	return s
}

func (s *sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open[c] = true
		s.serving.Go(func() { s.serve(c) })
		s.mu.Unlock()
	}
}

func (s *sink) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *sink) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	in, out := bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
	fmt.Fprint(out, "220 sink.example.com ESMTP\r\n")
	rcpt := ""
	for {
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "EHLO":
			fmt.Fprint(out, "250-sink.example.com\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
		case "RCPT":
			rcpt = arg
			fmt.Fprint(out, "250 2.1.5 ok\r\n")
		case "DATA":
			fmt.Fprint(out, "354 go on\r\n")
			if out.Flush() != nil || !s.data(in, rcpt) {
				return
			}
			fmt.Fprint(out, "250 2.0.0 kept\r\n")
		case "QUIT":
			fmt.Fprint(out, "221 2.0.0 bye\r\n")
			_ = out.Flush()
			return
		default:
			fmt.Fprint(out, "250 2.0.0 ok\r\n")
		}
	}
}

// data reads a message up to its dot.
func (s *sink) data(in *bufio.Reader, rcpt string) bool {
	h := sha256.New()
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return false
		}
		if string(line) == ".\r\n" {
			s.keep(rcpt, [sha256.Size]byte(h.Sum(nil)))
			return true
		}
		_, _ = h.Write(bytes.TrimPrefix(line, []byte(".")))
	}
}

func (s *sink) keep(rcpt string, sum [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.sums[rcpt]; again {
		s.extra++
		return
	}
	if s.sums[rcpt] = sum; len(s.sums) == s.want {
		close(s.all)
	}
}
