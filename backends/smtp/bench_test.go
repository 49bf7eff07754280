package smtp

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	netsmtp "net/smtp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// sink is a server that takes everything, as fast as it can and without allocating.
type sink struct {
	addr string
	mu   sync.Mutex
	took int
}

func newSink(b testing.TB) *sink {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &sink{addr: l.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { s.serve(c) })
		}
	})
	b.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return s
}

func (s *sink) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	say := func(reply string) { _, _ = w.WriteString(reply) }
	say("220 sink\r\n")
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch string(line[:4]) {
		case "EHLO":
			say("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 0\r\n250 CHUNKING\r\n")
		case "DATA":
			say("354 go\r\n")
			if w.Flush() != nil || !s.body(r) {
				return
			}
			say("250 2.0.0 Ok: queued as 4C1D\r\n")
		case "BDAT":
			n, _, _ := bytes.Cut(bytes.TrimSpace(line[5:]), []byte{' '})
			size, _ := strconv.Atoi(string(n))
			if _, err := r.Discard(size); err != nil {
				return
			}
			s.count()
			say("250 2.0.0 Ok: queued as 4C1D\r\n")
		case "QUIT":
			say("221 bye\r\n")
			_ = w.Flush()
			return
		default:
			say("250 2.1.0 Ok\r\n")
		}
	}
}

func (s *sink) body(r *bufio.Reader) bool {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return false
		}
		if string(line) == ".\r\n" {
			s.count()
			return true
		}
	}
}

func (s *sink) count() {
	s.mu.Lock()
	s.took++
	s.mu.Unlock()
}

// delay is a proxy that holds back what it gets for half a round trip in each
// direction, however much that is.
func delay(b testing.TB, to string, roundTrip time.Duration) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				return
			}
			running.Go(func() { hold(far, near, roundTrip/2) })
			running.Go(func() { hold(near, far, roundTrip/2) })
		}
	})
	b.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

func hold(dst io.WriteCloser, src io.Reader, wait time.Duration) {
	type parcel struct {
		due   time.Time
		bytes []byte
	}
	way := make(chan parcel, 10000)
	go func() {
		defer close(way)
		for {
			buf := make([]byte, 32<<10)
			n, err := src.Read(buf)
			if err != nil {
				return
			}
			way <- parcel{time.Now().Add(wait), buf[:n]}
		}
	}()
	defer func() { _ = dst.Close() }()
	for p := range way {
		<-time.After(time.Until(p.due))
		if _, err := dst.Write(p.bytes); err != nil {
			for range way { // the reader must not be stuck
			}
			return
		}
	}
}

// benchLetter is a text of 2 kB to one recipient.
func benchLetter() *mailer.EmailMessage {
	m := letter("sender@example.com", "recipient@example.com")
	m.Body = strings.Repeat(strings.Repeat("x", 63)+"\n", 28)
	return m
}

// benchBatch is how many messages are sent at a time.
const benchBatch = 100

func benchWays() []struct {
	name string
	cfg  Config
} {
	return []struct {
		name string
		cfg  Config
	}{{"strict", Config{Pipelining: Off}}, {"pipelined", Config{}}, {"chunked", Config{Chunking: Auto}}}
}

// send sends n messages over each of some connections.
func benchSend(b *testing.B, addr string, cfg Config, connections, n int) {
	benchBatches(b, addr, cfg, connections, n, benchBatch)
}

func benchBatches(b *testing.B, addr string, cfg Config, connections, n, size int) {
	cfg.Addrs, cfg.Hostname = []string{addr}, "bench.example"
	backends := make([]*Backend, connections)
	for i := range backends {
		backends[i] = newBackend(b, cfg)
		if _, err := backends[i].Open(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	batch := make([]*mailer.EmailMessage, size)
	for i := range batch {
		batch[i] = benchLetter()
	}
	var all sync.WaitGroup
	b.ReportAllocs()
	before := processorTime(b)
	b.ResetTimer()
	for _, backend := range backends {
		all.Go(func() {
			for left := n; left > 0; left -= size {
				part := batch[:min(left, size)]
				if sent, err := backend.SendMessages(b.Context(), part); sent != len(part) {
					b.Error(sent, err)
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	rate(b, connections*n, before)
	for _, backend := range backends {
		_ = backend.Close()
	}
}

// rate reports the speed and the processor time of the whole process, the server
// included. The time is the better measure on a machine that does other things too.
func rate(b *testing.B, mails int, before time.Duration) {
	b.ReportMetric(float64(mails)/b.Elapsed().Seconds(), "mails/s")
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(mails), "cpu-us/mail")
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBackend is one connection to a server nearby. The allocations of rendering are
// counted with it; BenchmarkRender shows them alone.
func BenchmarkBackend(b *testing.B) {
	for _, w := range benchWays() {
		b.Run(w.name, func(b *testing.B) { benchSend(b, newSink(b).addr, w.cfg, 1, b.N) })
	}
	b.Run("net-smtp", func(b *testing.B) { benchNetSMTP(b, newSink(b).addr, 1, b.N) })
}

// BenchmarkBackend_single is one message at a time over a connection that stays open.
func BenchmarkBackend_single(b *testing.B) {
	for _, w := range benchWays() {
		b.Run(w.name, func(b *testing.B) { benchBatches(b, newSink(b).addr, w.cfg, 1, b.N, 1) })
	}
}

// BenchmarkBackend_distant is 20 connections to a server at 20 ms. One iteration is a
// message over each of them.
func BenchmarkBackend_distant(b *testing.B) {
	const connections, roundTrip = 20, 20 * time.Millisecond
	for _, w := range benchWays() {
		b.Run(w.name, func(b *testing.B) { benchSend(b, delay(b, newSink(b).addr, roundTrip), w.cfg, connections, b.N) })
	}
	b.Run("net-smtp", func(b *testing.B) { benchNetSMTP(b, delay(b, newSink(b).addr, roundTrip), connections, b.N) })
}

// BenchmarkBackend_hooks is what it costs to be told of everything, and of nothing.
func BenchmarkBackend_hooks(b *testing.B) {
	var told atomic.Int64
	all := &Hooks{
		Connected: func(context.Context, Connected) { told.Add(1) },
		Reused:    func(context.Context, *Conn, time.Duration) { told.Add(1) },
		Settled:   func(context.Context, *Settled) { told.Add(1) },
		Closed:    func(Closed) { told.Add(1) },
	}
	for _, w := range []struct {
		name  string
		hooks *Hooks
	}{{"nil", nil}, {"none", &Hooks{}}, {"all", all}} {
		b.Run(w.name, func(b *testing.B) { benchSend(b, newSink(b).addr, Config{Hooks: w.hooks}, 1, b.N) })
	}
}

// benchNetSMTP is what the standard library does over connections that are kept open.
func benchNetSMTP(b *testing.B, addr string, connections, n int) {
	clients := make([]*netsmtp.Client, connections)
	for i := range clients {
		c, err := netsmtp.Dial(addr)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Hello("bench.example"); err != nil {
			b.Fatal(err)
		}
		clients[i] = c
	}
	m := benchLetter()
	var all sync.WaitGroup
	b.ReportAllocs()
	before := processorTime(b)
	b.ResetTimer()
	for _, c := range clients {
		all.Go(func() {
			for range n {
				if err := netSend(c, m); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	rate(b, connections*n, before)
	for _, c := range clients {
		_ = c.Quit()
	}
}

func netSend(c *netsmtp.Client, m *mailer.EmailMessage) error {
	if err := c.Mail(m.FromEmail); err != nil {
		return err
	}
	if err := c.Rcpt(m.To[0]); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := m.WriteTo(w); err != nil {
		return err
	}
	return w.Close()
}

// BenchmarkRender is what a message costs before the first command.
func BenchmarkRender(b *testing.B) {
	email, m := benchLetter(), &message{}
	b.ReportAllocs()
	for b.Loop() {
		if err := m.load(0, email); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSink keeps the benchmarks honest: what they count has arrived.
func TestSink(t *testing.T) {
	for _, w := range benchWays() {
		s := newSink(t)
		w.cfg.Addrs = []string{delay(t, s.addr, time.Millisecond)}
		b := newBackend(t, w.cfg)
		if got := fates(sendAll(t, b, letters(5))); got != "sent sent sent sent sent" {
			t.Error(got)
		}
		_ = b.Close()
		if s.took < 5 || s.took > 6 { // the probe of chunking is counted too
			t.Errorf("%s: %d", w.name, s.took)
		}
	}
}
