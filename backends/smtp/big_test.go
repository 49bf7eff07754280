package smtp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
	"github.com/mailpouch/mailpouch/mailer"
)

// TestBackend_big: what arrives of big messages, too, is what WriteTo writes, wherever
// the pieces begin in which it was written.
func TestBackend_big(t *testing.T) {
	everyWay(t, func(t *testing.T, p *peer, cfg Config) {
		r := rand.New(rand.NewPCG(1, 2))
		var messages []*mailer.EmailMessage
		for i := range 6 {
			var body strings.Builder
			for body.Len() < i<<17 {
				body.WriteString(strings.Repeat(".", r.IntN(3)) + strings.Repeat("x", r.IntN(900)) + "\n")
			}
			m := letter(fmt.Sprintf("m%d@x", i))
			m.Body = body.String() + strings.Repeat(".\n", r.IntN(100))
			messages = append(messages, m)
		}
		sendAll(t, newBackend(t, cfg), messages)
		for i, m := range messages {
			var want strings.Builder
			if _, err := m.WriteTo(&want); err != nil {
				t.Fatal(err)
			}
			if got := p.taken()[i].body; got != want.String() {
				t.Errorf("message %d came with %d other octets, want %d", i, len(got), want.Len())
			}
		}
	})
}

// TestBackend_bigAlone: behind a big message nothing is said until it is answered, so that what waits for a slow server may
// go over another connection.
func TestBackend_bigAlone(t *testing.T) {
	everyWay(t, func(t *testing.T, _ *peer, cfg Config) {
		messages := letters(3)
		messages[1].Body = strings.Repeat("0123456789\n", 100_000)
		var log journal
		witness(&cfg, func(octets []byte) {
			if strings.Contains(string(octets), "MAIL FROM:<c@x>") {
				log.note("MAIL c")
			}
		})
		newBackend(t, cfg).SendBatch(t.Context(), asking(mailer.Batch{
			Messages: messages,
			Report:   each(func(i int, _ mailer.Result) { log.note("end %d", i) }),
		}, func(int) error { return nil }))
		if got, want := strings.Join(log.lines, ", "), "end 0, end 1, MAIL c, end 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// Of a big message there is one copy, with the size that it is sent with, and when it
// is through there is none.
func TestBackend_bigMemory(t *testing.T) {
	cfg := Config{Hostname: "x", Dial: newDrain(t)}
	for _, tt := range []struct {
		name  string
		tweak func(*Config)
	}{
		{"pipelined", func(*Config) {}},
		{"chunked", func(c *Config) { c.Chunking = Auto }},
		{"strict", func(c *Config) { c.Pipelining = Off }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := cfg
			tt.tweak(&c)
			b := newBackend(t, c)
			if _, err := b.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			m := letter("a@x")
			m.Attach("data.bin", make([]byte, 10<<20), "application/octet-stream")
			size, err := m.WriteTo(io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{m}); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			const more = 1 << 20 // buffers, and the server's
			if took := int64(after.TotalAlloc - before.TotalAlloc); took > size+more {
				t.Errorf("a message of %d octets took %d octets of memory", size, took)
			}
			for _, m := range b.free {
				if cap(m.body) > transport.BigBody {
					t.Errorf("a buffer of %d octets is kept", cap(m.body))
				}
			}
			if b.conn == nil {
				t.Fatal("the connection is closed")
			}
			kept := reflect.ValueOf(b.conn.writer.Buffer()).Elem().FieldByName("bytes").Cap()
			if kept > transport.BigBody {
				t.Errorf("a buffer of %d octets is kept", kept)
			}
		})
	}
}

// newDrain is a server that reads what it gets and keeps nothing.
func newDrain(t *testing.T) func(context.Context, string, string) (net.Conn, error) {
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		serving.Go(func() { drain(ours) })
		return theirs, nil
	}
}

func drain(c net.Conn) {
	defer func() { _ = c.Close() }()
	in, out := bufio.NewReader(c), bufio.NewWriter(c)
	say := func(s string) { fmt.Fprint(out, s+"\r\n") }
	say("220 x")
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
			say("250-x\r\n250-CHUNKING\r\n250 PIPELINING")
		case "BDAT":
			n := int64(0)
			_, _ = fmt.Sscan(arg, &n)
			_, _ = io.CopyN(io.Discard, in, n)
			say("250 ok")
		case "DATA":
			say("354 go on")
			_ = out.Flush()
			for string(readLine(in)) != ".\r\n" {
			}
			say("250 ok")
		default:
			say("250 ok")
		}
	}
}

// readLine reads a line that is good until the next read.
func readLine(in *bufio.Reader) []byte {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return []byte(".\r\n")
	}
	return line
}
