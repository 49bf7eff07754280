package transport

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const limit = time.Minute

// A rig is a link with what is used over it, and the server's end of the connection.
type rig struct {
	link    *Link
	writer  *Writer
	replies ReplyReader
	server  net.Conn
}

// onPipe runs a test in fake time over a connection that holds nothing back: what is written
// was read.
func onPipe(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		r := &rig{link: NewLink(ours), server: theirs}
		r.writer = NewWriter(r.link, limit)
		r.replies.Reset(r.link)
		defer func() {
			_ = theirs.Close()
			r.link.Cut()
			_ = r.writer.Stop()
		}()
		f(t, r)
	})
}

// put writes a message of so many bytes that ends in a point.
func (r *rig) put(p *Point, size int) {
	b := r.writer.Buffer()
	b.AddBody([]byte(strings.Repeat("x", size-len(crlf)) + crlf))
	b.AddEnd(p, size)
	r.writer.Put(b, false, 1)
}

// take reads n bytes as the server.
func (r *rig) take(t *testing.T, n int) string {
	t.Helper()
	got := make([]byte, n)
	if _, err := io.ReadFull(r.server, got); err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func (r *rig) say(reply string) { _, _ = io.WriteString(r.server, reply+crlf) }

func (r *rig) read() (*Reply, error) {
	r.link.Expect(limit)
	return r.replies.Read()
}

func sizes(t *testing.T, f func(t *testing.T, size int)) {
	t.Helper()
	for name, size := range map[string]int{"small": 1000, "slices": 100 << 10, "big": BigBody + 1000} {
		t.Run(name, func(t *testing.T) { f(t, size) })
	}
}

// TestPoint: a message that was written is in doubt until it is answered, and until then
// nobody interrupts the wait for the answer.
func TestPoint(t *testing.T) {
	sizes(t, func(t *testing.T, size int) {
		onPipe(t, func(t *testing.T, r *rig) {
			var p Point
			r.put(&p, size)
			if got := r.take(t, size+len(finalDot)); !strings.HasSuffix(got, "x\r\n.\r\n") {
				t.Errorf("it ends in %q", got[size-10:])
			}
			synctest.Wait()
			if !r.link.InDoubt(&p) {
				t.Error("complete and not answered, and not in doubt")
			}
			r.link.Halt()
			if r.link.Finished() {
				t.Error("finished with a message in doubt")
			}
			go r.say("250 Ok")
			if reply, err := r.read(); err != nil || reply.Code != 250 {
				t.Fatal(reply, err)
			}
			if !r.link.AwaitWritten(&p) {
				t.Error("not written")
			}
			r.link.Answered(&p)
			if r.link.InDoubt(&p) || !r.link.Finished() {
				t.Error("answered, and in doubt")
			}
		})
	})
}

// TestPoint_halted: what is not under way when the link halts never leaves this machine.
func TestPoint_halted(t *testing.T) {
	sizes(t, func(t *testing.T, size int) {
		onPipe(t, func(t *testing.T, r *rig) {
			var p Point
			r.link.Halt()
			r.put(&p, size)
			if err := r.writer.Stop(); !errors.Is(err, ErrStopped) {
				t.Error(err)
			}
			if r.link.InDoubt(&p) || r.link.AwaitWritten(&p) {
				t.Error("in doubt, and nothing was written")
			}
			if _, err := r.read(); !IsTimeout(err) {
				t.Errorf("the wait was not interrupted: %v", err)
			}
		})
	})
}

// TestPoint_early: a server that answers half a message does not get the rest of it, not
// even before somebody has asked whether that was written.
func TestPoint_early(t *testing.T) {
	t.Run("asked", func(t *testing.T) { answerEarly(t, true) })
	t.Run("not asked", func(t *testing.T) { answerEarly(t, false) })
}

func answerEarly(t *testing.T, ask bool) {
	onPipe(t, func(t *testing.T, r *rig) {
		const size = 100 << 10
		var p Point
		r.put(&p, size)
		r.take(t, sliceSize)
		go r.say("552 too big")
		if reply, err := r.read(); err != nil || reply.Code != 552 {
			t.Fatal(reply, err)
		}
		if ask && r.link.AwaitWritten(&p) {
			t.Error("written to its end")
		}
		rest := make(chan string, 1)
		go func() {
			got, _ := io.ReadAll(r.server)
			rest <- string(got)
		}()
		if err := r.writer.Stop(); !errors.Is(err, ErrStopped) || r.link.InDoubt(&p) {
			t.Errorf("stopped with %v, in doubt: %v", err, r.link.InDoubt(&p))
		}
		r.link.Cut()
		if strings.Contains(<-rest, ".") {
			t.Error("the dot was written")
		}
	})
}

// TestPoint_broken: a message whose last bytes were not taken was not accepted.
func TestPoint_broken(t *testing.T) {
	sizes(t, func(t *testing.T, size int) {
		for _, missing := range []int{1, len(finalDot), size / 2} {
			onPipe(t, func(t *testing.T, r *rig) {
				var p Point
				r.put(&p, size)
				r.take(t, size+len(finalDot)-missing)
				_ = r.server.Close()
				if err := r.writer.Stop(); err == nil {
					t.Error("written, it says")
				}
				if r.link.InDoubt(&p) {
					t.Errorf("in doubt with %d bytes missing", missing)
				}
			})
		}
	})
}

// TestBuffer_chunk: behind BDAT stands what was given, and its end is a point.
func TestBuffer_chunk(t *testing.T) {
	sizes(t, func(t *testing.T, size int) {
		onPipe(t, func(t *testing.T, r *rig) {
			var p Point
			body := strings.Repeat(".\r\n", size/3)
			b := r.writer.Buffer()
			b.AddLine([]byte("BDAT"))
			b.AddChunk([]byte(body))
			b.EndChunk(&p, len(body))
			b.AddLine([]byte("RSET"))
			r.writer.Put(b, false, 1)
			r.take(t, len("BDAT\r\n")+len(body)-1)
			if len(body) > smallMessage && !r.link.InDoubt(&p) {
				t.Error("its last bytes are under way, and it is not in doubt")
			}
			if got := r.take(t, 1+len("RSET\r\n")); got != "\nRSET\r\n" {
				t.Errorf("got %q", got)
			}
			if !r.link.AwaitWritten(&p) {
				t.Error("not written")
			}
		})
	})
}

// TestWriter_spare: a buffer is used again, unless it has grown.
func TestWriter_spare(t *testing.T) {
	w := NewWriter(nil, limit)
	b := w.Buffer()
	b.AddLine([]byte("NOOP"))
	w.Keep(b)
	if again := w.Buffer(); again != b || !again.IsEmpty() {
		t.Error("another one, or not empty")
	}
	b.AddLine(make([]byte, maxKeptBuffer))
	w.Keep(b)
	if w.Buffer() == b {
		t.Error("a big one is kept")
	}
}
