package harness

import (
	"bufio"
	"bytes"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Sink is our own mail server: it offers CHUNKING, can be far away, and knows when a mail came. It accepts and counts everything and keeps nothing. It uses as
// little of the processor as possible, to leave it to what is measured.
type Sink struct {
	// Marked gets the time at which a mail to an address that begins with Mark was answered.
	Marked chan time.Time

	delay    time.Duration
	listener net.Listener
	taken    atomic.Int64
	serving  sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool // nil when the sink has ended
}

// Mark begins the address of a mail whose arrival is of interest.
const Mark = "marked"

// StartSink starts a sink. Each of its replies is late by the delay, as with a server that
// far away.
func StartSink(b *Bench, delay time.Duration) *Sink {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	b.Check(err)
	s := &Sink{Marked: make(chan time.Time, 1), delay: delay, listener: l, open: map[net.Conn]bool{}}
	s.serving.Go(s.accept)
	b.Cleanup(s.end)
	return s
}

// Addr is where the sink listens.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// Taken is how many mails have been taken so far.
func (s *Sink) Taken() int { return int(s.taken.Load()) }

// CPU is the processor time of this program, which the sink is a part of.
func (s *Sink) CPU(b *Bench) time.Duration { return OwnCPU(b) }

func (s *Sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.open == nil {
			_ = c.Close()
		} else {
			s.open[c] = true
			s.serving.Go(func() { s.serve(c) })
		}
		s.mu.Unlock()
	}
}

func (s *Sink) end() {
	_ = s.listener.Close()
	s.mu.Lock()
	for c := range s.open {
		_ = c.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *Sink) serve(c net.Conn) {
	out := s.replies(c)
	in := bufio.NewReaderSize(c, 64<<10)
	v := visitor{sink: s, in: in, out: out}
	v.serve()
	if late, ok := out.(*lateWriter); ok {
		late.end()
	}
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	_ = c.Close()
}

// replies is where the replies of a connection are written to.
func (s *Sink) replies(c net.Conn) writer {
	if s.delay == 0 {
		return c
	}
	return newLateWriter(c, s.delay)
}

// visitor is one connection.
type visitor struct {
	sink   *Sink
	in     *bufio.Reader
	out    writer
	marked bool // the mail at hand is of interest
	buf    []byte
}

type writer interface{ Write(p []byte) (int, error) }

// say keeps a reply until flush: the replies to what came together go together.
func (v *visitor) say(reply string) { v.buf = append(v.buf, reply...) }

func (v *visitor) flush() bool {
	if len(v.buf) == 0 {
		return true
	}
	_, err := v.out.Write(v.buf)
	v.buf = v.buf[:0]
	return err == nil
}

func (v *visitor) serve() {
	v.say("220 sink.example ESMTP\r\n")
	for {
		if v.in.Buffered() == 0 && !v.flush() {
			return
		}
		line, err := v.in.ReadSlice('\n')
		if err != nil || len(line) < 6 || !v.command(line) {
			v.flush()
			return
		}
	}
}

// command answers one line, and reports whether the connection goes on.
func (v *visitor) command(line []byte) bool {
	switch string(line[:4]) {
	case "EHLO":
		v.say("250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 0\r\n250 CHUNKING\r\n")
	case "DATA":
		v.say("354 go on\r\n")
		return v.flush() && v.body() && v.took()
	case "BDAT":
		return v.chunk(line)
	case "QUIT":
		v.say("221 bye\r\n")
		return false
	case "RCPT":
		v.marked = bytes.HasPrefix(line, []byte("RCPT TO:<"+Mark))
		fallthrough
	default:
		v.say("250 2.0.0 Ok\r\n")
	}
	return true
}

// took counts a mail. The arrival of a marked one is reported when its reply is out.
func (v *visitor) took() bool {
	v.say("250 2.0.0 Ok: queued as 4C1D\r\n")
	if !v.marked {
		v.sink.taken.Add(1)
		return true
	}
	v.marked = false
	ok := v.flush()
	v.sink.taken.Add(1)
	select {
	case v.sink.Marked <- time.Now():
	default: // nobody asked
	}
	return ok
}

// body reads up to the final dot. It searches whole buffers, because going line by line
// would cost more than all the rest.
func (v *visitor) body() bool {
	end := []byte("\r\n.\r\n")
	if start, err := v.in.Peek(3); err != nil || string(start) == ".\r\n" {
		_, _ = v.in.Discard(3)
		return err == nil
	}
	for {
		if _, err := v.in.Peek(len(end)); err != nil {
			return false
		}
		have, _ := v.in.Peek(v.in.Buffered())
		if i := bytes.Index(have, end); i >= 0 {
			_, _ = v.in.Discard(i + len(end))
			return true
		}
		// The dot may have come in part.
		_, _ = v.in.Discard(len(have) - len(end) + 1)
	}
}

// chunk reads the bytes of BDAT n [LAST]. Only the last chunk makes a mail.
func (v *visitor) chunk(line []byte) bool {
	size, last, _ := bytes.Cut(bytes.TrimSpace(line[5:]), []byte{' '})
	n, err := strconv.Atoi(string(size))
	if err != nil {
		return false
	}
	if _, err := v.in.Discard(n); err != nil {
		return false
	}
	if len(last) == 0 {
		v.say("250 2.0.0 Ok\r\n")
		return true
	}
	return v.took()
}
