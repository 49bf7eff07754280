package smtp

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/mailpouch/mailpouch/mailer"
)

// babbler is a server that says what it likes, whatever the client says.
type babbler struct {
	words   [][]byte // each written when the one before was read
	stalls  bool     // at the end, instead of closing
	running sync.WaitGroup

	mu    sync.Mutex
	said  bytes.Buffer // all that the client has begun to write
	conns int
}

// toBabbler is the client's end of a connection.
type toBabbler struct {
	net.Conn
	babbler *babbler
}

func (c toBabbler) Write(p []byte) (int, error) {
	c.babbler.mu.Lock()
	c.babbler.said.Write(p)
	c.babbler.mu.Unlock()
	return c.Conn.Write(p)
}

func (s *babbler) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	s.running.Go(func() {
		_, _ = io.Copy(io.Discard, ours)
	})
	s.running.Go(func() {
		for _, w := range s.words {
			if _, err := ours.Write(w); err != nil {
				break
			}
		}
		if !s.stalls {
			_ = ours.Close()
		}
	})
	return toBabbler{theirs, s}, nil
}

// FuzzReplies: whatever a server says, there is no panic and no hang, each message gets one
// result, and none counts as sent for which there is not both a complete message that
// was written and a reply of 250.
func FuzzReplies(f *testing.F) {
	hello := "220 hi\r\n250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 SIZE 1000\r\n"
	good := "250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n"
	for _, seed := range []string{
		hello + good + good + good + "221 bye\r\n",
		hello + strings.Repeat("250 ok\r\n", 20),
		"220 hi\r\n500 what\r\n250 x\r\n" + good + good + good,
		hello + "250 ok\r\n550 5.1.1 no\r\n354 go\r\n250 ok\r\n" + good,
		hello + "250 ok\r\n250 ok\r\n451 later\r\n250 reset\r\n" + good + "421 bye\r\n",
		hello + "503 nested\r\n250 ok\r\n354 go\r\n250 ok\r\n",
		hello + "250 ok\r\n452 4.5.3 many\r\n250 ok\r\n354 go\r\n250-a\r\n250 b\r\n",
		hello + "250 ok\n250 ok\n354 go\n25",
		hello + "250-a\r\n251 b\r\n", hello + "250 \x00\xff\r\n999 x\r\n", "", "\r\n\r\n", "220", strings.Repeat("220-x\r\n", 2000),
	} {
		for mode := range byte(16) {
			f.Add(mode, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, mode byte, words []byte) {
		synctest.Test(t, func(t *testing.T) { babble(t, mode, words) })
	})
}

func babble(t *testing.T, mode byte, words []byte) {
	s := &babbler{words: bytes.SplitAfter(words, []byte{'\n'}), stalls: mode&4 != 0}
	if mode&8 != 0 {
		s.words = [][]byte{words} // all at once
	}
	cfg := Config{Addrs: []string{"x"}, Hostname: "x", Dial: s.dial, Window: 2}
	switch mode & 3 {
	case 1:
		cfg.Chunking = Auto
	case 2:
		cfg.LMTP = true
	case 3:
		cfg.Pipelining = Off
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	messages := []*mailer.EmailMessage{letter("a@x", "1@x", "2@x"), letter("b@x"), letter("c@x")}
	reports, sent := make([]int, len(messages)), 0
	b.SendBatch(t.Context(), mailer.Batch{Messages: messages, Report: each(func(i int, r mailer.Result) {
		reports[i]++
		if r.Err == nil && !r.Skipped {
			sent++
			if !strings.HasPrefix(r.Reply, "250") {
				t.Errorf("message %d counts as sent by the reply %q", i, r.Reply)
			}
		}
	})})
	_ = b.Close()
	s.running.Wait()
	for i, n := range reports {
		if n != 1 {
			t.Errorf("message %d was reported %d times", i, n)
		}
	}
	said := strings.Count(string(words), "250") * s.conns
	wrote := strings.Count(s.said.String(), "\r\n.\r\n") + strings.Count(s.said.String(), " LAST\r\n")
	if sent > said || sent > wrote {
		t.Errorf("%d sent, with 250 said %d times and %d complete messages", sent, said, wrote)
	}
}
