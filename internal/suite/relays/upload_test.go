package relays

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// A slowRelay reads big messages as a test lets it: a piece for each token in more. What it cannot read waits
// in the sender, since the system keeps little between them.
type slowRelay struct {
	addr    string
	ends    chan struct{}
	more    chan struct{} // closed: all that comes
	begun   chan string   // Message-IDs of big messages whose body has begun to come
	arrived chan string   // Message-IDs, when they are taken

	mu    sync.Mutex
	taken map[string]int
	conns map[net.Conn]bool
}

const (
	bigSize   = 3 << 20
	pieceSize = 64 << 10
)

func startSlowRelay(t *testing.T) *slowRelay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &slowRelay{
		addr: l.Addr().String(), ends: make(chan struct{}), more: make(chan struct{}), begun: make(chan string, 100), arrived: make(chan string, 1000),
		taken: map[string]int{}, conns: map[net.Conn]bool{},
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[c] = true
			r.mu.Unlock()
			running.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(r.ends)
		r.mu.Lock()
		for c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		running.Wait()
	})
	return r
}

// config is that of a client, whose system keeps little of what the relay does not read.
func (r *slowRelay) config() smtp.Config {
	return smtp.Config{Addrs: []string{r.addr}, CommandTimeout: time.Minute, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			_ = c.(*net.TCPConn).SetWriteBuffer(pieceSize)
		}
		return c, err
	}}
}

func (r *slowRelay) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.(*net.TCPConn).SetReadBuffer(pieceSize)
	p := &pieces{in: c, more: r.more, ends: r.ends}
	in := bufio.NewReaderSize(p, 4096)
	say := func(line string) { _, _ = fmt.Fprint(c, line+"\r\n") }
	say("220 relay.example ESMTP")
	id := ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "EHLO":
			say("250-relay.example\r\n250-PIPELINING\r\n250 CHUNKING")
		case "DATA":
			say("354 go on")
			if id, err = r.body(in, p, -1); err != nil {
				return
			}
			r.take(id)
			say("250 2.0.0 Ok")
		case "BDAT":
			var n int64
			_, _ = fmt.Sscan(rest, &n)
			got, err := r.body(in, p, n)
			if err != nil {
				return
			}
			if id = max(id, got); strings.HasSuffix(rest, "LAST") {
				r.take(id)
				id = ""
			}
			say("250 2.0.0 Ok")
		case "QUIT":
			say("221 2.0.0 Bye")
			return
		default:
			say("250 2.0.0 Ok")
		}
	}
}

// body reads until the final dot, or so many bytes, and returns the Message-ID if it is there.
func (r *slowRelay) body(in *bufio.Reader, p *pieces, octets int64) (id string, err error) {
	defer func() { p.slow = false }()
	for n := int64(0); octets < 0 || n < octets; {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		n += int64(len(line))
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case strings.EqualFold(name, "Message-ID"):
			if id = value; strings.Contains(id, "big") {
				p.slow = true
				r.begun <- id
			}
		case octets < 0 && line == ".\r\n":
			return id, nil
		}
	}
	return id, nil
}

func (r *slowRelay) take(id string) {
	r.mu.Lock()
	r.taken[id]++
	r.mu.Unlock()
	r.arrived <- id
}

// pieces gives out what comes, or a piece for each token.
type pieces struct {
	in   io.Reader
	more chan struct{}
	ends chan struct{}
	slow bool
	left int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.slow && p.left == 0 {
		select {
		case <-p.more:
		case <-p.ends:
		}
		p.left = pieceSize
	}
	if p.slow {
		b = b[:min(len(b), p.left)]
	}
	n, err := p.in.Read(b)
	if p.slow {
		p.left -= n
	}
	return n, err
}

// want waits for messages, and returns the others that came before them.
func (r *slowRelay) want(t *testing.T, n int, what string) (ids []string) {
	t.Helper()
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	for len(ids) < n {
		select {
		case id := <-r.arrived:
			ids = append(ids, id)
		case <-timer.C:
			t.Fatalf("%d of %d messages have come: %s", len(ids), n, what)
		}
	}
	return ids
}

// upload queues a big message and small ones behind it.
func (h *house) upload(queue *tasks.Queue, small int) {
	h.t.Helper()
	letter := func(id string) *mailer.EmailMessage {
		return &mailer.EmailMessage{Subject: "hello", Body: "It works.", FromEmail: "shop@example.com", To: []string{"ann@example.com"}, MessageID: "<" + id + "@app.example>"}
	}
	big := letter("big")
	big.Attach("data.bin", make([]byte, bigSize*3/4), "application/octet-stream")
	all := []*mailer.EmailMessage{big}
	for i := range small {
		all = append(all, letter(fmt.Sprint(i)))
	}
	h.sent += len(all)
	if _, err := queue.SendMessages(h.t.Context(), all); err != nil {
		h.t.Fatal(err)
	}
}

// uploader starts a worker.
func (h *house) uploader(cfg smtp.Config, change func(*tasks.WorkerConfig)) (stop func() error) {
	h.t.Helper()
	w := tasks.WorkerConfig{Connections: 2, BatchTimeout: 300 * time.Millisecond}
	change(&w)
	_, stop = h.run(cfg, w)
	return stop
}

// untroubled checks that everything was delivered once, at the first try, and nothing held.
func (h *house) untroubled(r *slowRelay) {
	h.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	h.eachOnce(r.taken)
	for _, text := range []string{"takes no mail", `"message":"retry"`, "again and again"} {
		if n := h.logged(text); n != 0 {
			h.t.Errorf("%d times in the log: %s", n, text)
		}
	}
}

var uploadWays = map[string]func(*smtp.Config){
	"pipelined": func(*smtp.Config) {},
	"chunked":   func(c *smtp.Config) { c.Chunking = smtp.Auto },
	"strict":    func(c *smtp.Config) { c.Pipelining = smtp.Off },
}

// A message that takes longer than its batch may, and than asynq's time-out of its task, is delivered at the first try. Those behind
// it go over the other connection at once, and where there is none when it is through.
func TestUpload(t *testing.T) {
	t.Parallel()
	for way, set := range uploadWays {
		for _, connections := range []int{1, 2} {
			for name, bulk := range map[string]int{"single": 1, "mass": 100} {
				t.Run(fmt.Sprintf("%s/%s/%d connections", way, name, connections), func(t *testing.T) {
					t.Parallel()
					h := newHouse(t, 1)
					r := startSlowRelay(t)
					h.upload(tasks.NewQueue(h.redis.Client(t), tasks.QueueConfig{BulkSize: bulk, TaskTimeout: time.Second}), 20)
					cfg := r.config()
					set(&cfg)
					h.uploader(cfg, func(c *tasks.WorkerConfig) {
						c.Connections = connections
						c.Observers = []tasks.Observer{{Back: func(b tasks.GivenBack) { t.Errorf("given back: %+v", b) }}}
					})
					<-r.begun
					first := time.Now()
					if connections == 2 {
						if ids := r.want(t, 20, "the small ones, while the big one waits"); strings.Contains(fmt.Sprint(ids), "big") {
							t.Errorf("arrived: %v", ids)
						}
					}
					// The batch's time and that of the task are up while it moves.
					for range bigSize/pieceSize - 8 {
						time.Sleep(time.Until(first.Add(30 * time.Millisecond)))
						first = time.Now()
						r.more <- struct{}{}
					}
					close(r.more)
					r.want(t, h.sent-20*(connections-1), "all")
					h.eventually("the tasks have ended", time.Minute, func() bool { return h.redis.Client(t).LLen(t.Context(), "asynq:{default}:active").Val() == 0 })
					h.untroubled(r)
				})
			}
		}
	}
}

// A body of which the relay takes nothing any more is cut off at the limit on progress, and that is a failed try.
func TestUpload_standsStill(t *testing.T) {
	t.Parallel()
	for way, set := range uploadWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, 1)
			r := startSlowRelay(t)
			h.upload(h.queue, 5)
			cfg := r.config()
			cfg.CommandTimeout = 3 * time.Second // which a relay that reads keeps on any machine
			set(&cfg)
			h.uploader(cfg, func(c *tasks.WorkerConfig) { c.BatchTimeout = time.Hour })
			<-r.begun
			r.want(t, 5, "the small ones")
			h.eventually("the try has failed", time.Minute, func() bool { return h.logged(`"message":"retry"`) >= 1 })
			if h.logged("the server stopped reading") == 0 {
				t.Error("the reason is not said")
			}
			close(r.more)
			r.want(t, 1, "the big one")
			if n := h.logged("takes no mail"); n != 0 {
				t.Errorf("held %d times", n)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if n := r.taken["<big@app.example>"]; n != 1 {
				t.Errorf("delivered %d times", n)
			}
		})
	}
}

// A worker that has to end cuts the message off, says so, and gives it back: it is not in doubt, for its end was not written.
func TestUpload_workerStops(t *testing.T) {
	t.Parallel()
	for way, set := range uploadWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, 1)
			r := startSlowRelay(t)
			h.upload(h.queue.With(tasks.Options{AtMostOnce: true}), 0)
			cfg := r.config()
			set(&cfg)
			stop := h.uploader(cfg, func(c *tasks.WorkerConfig) { c.ShutdownTimeout = 200 * time.Millisecond })
			<-r.begun
			if err := stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
			if n := h.logged("cut off while they were being sent"); n != 1 {
				t.Errorf("said %d times, want once", n)
			}
			close(r.more)
			h.uploader(cfg, func(*tasks.WorkerConfig) {})
			r.want(t, 1, "the big one")
			h.untroubled(r)
		})
	}
}
