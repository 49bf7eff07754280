package relays

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/pages"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// A relay takes ten messages over one connection and answers each further one with 4yz: all are delivered, no try
// is spent, the limit is learned and connections are replaced before they come to it.
func TestSessionLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		verb, reply string
		learned     int // 0: it is no news that such a connection is replaced
	}{
		{"DATA", "451 4.4.5 too many messages in this session", 10},
		{"MAIL", "452 too many messages", 10},
		{"MAIL", "454 4.7.0 enough for this connection", 10},
		{"RCPT", "450 4.7.1 session limit", 10},
		{"RCPT", "421 4.7.0 closing", 0},
		{"DATA", "421 4.7.0 closing", 0},
	} {
		for _, bulk := range []int{1, 100} {
			for _, chosen := range []struct {
				name string
				smtp.Config
			}{{"pipelined", smtp.Config{}}, {"strict", smtp.Config{Pipelining: smtp.Off}}} {
				for _, connections := range []int{1, 4} {
					t.Run(fmt.Sprintf("%.3s to %s, %d a task, %s, %d connections", c.reply, c.verb, bulk, chosen.name, connections), func(t *testing.T) {
						t.Parallel()
						h := newHouse(t, bulk)
						r := startRelay(t, &relay{puts: takesSo(10, c.verb, c.reply)})
						h.send(150, "")
						cfg := chosen.Config
						cfg.Addrs = []string{r.addr}
						_, stop := h.worker(cfg, connections, nil)
						h.wait(r, 150, time.Minute)
						for range 5 { // and it goes on
							h.send(10, "")
							h.wait(r, 10, time.Minute)
						}
						stop()
						h.once(r)
						opened, transactions := r.opened(), r.got("MAIL")
						t.Logf("%d connections, %d transactions", opened, transactions)
						if most := 20 + connections; opened < 20 || opened > most {
							t.Errorf("%d connections for 200 messages, want 20 to %d", opened, most)
						}
						if n := transactions - 200; c.learned > 0 && n > 4*connections {
							t.Errorf("%d messages were put off", n)
						}
						if n := h.logged(`"message":"retry"`); n != 0 {
							t.Errorf("%d tries spent", n)
						}
						if n := h.logged("takes no mail"); n != 0 {
							t.Errorf("%d times held", n)
						}
						said := h.logged(`"level":"warn"`)
						if n := h.logged("takes only so many messages"); c.learned > 0 && (n != 1 || said != 1) || c.learned == 0 && said != 0 {
							t.Errorf("said %d times, and %d warnings", n, said)
						}
						if n := h.carries.Load(); int(n) != c.learned {
							t.Errorf("observers hear of a limit of %d messages, want %d", n, c.learned)
						}
					})
				}
			}
		}
	}
}

// A relay that puts each new sender off, over any connection, costs each message its tries as it always did, and one
// connection in all.
func TestSessionLimit_greylisting(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1)
	known := map[string]int{}
	r := startRelay(t, &relay{puts: func(verb, rest string, _ load) string {
		if verb != "MAIL" || !strings.Contains(rest, "grey") {
			return ""
		}
		if known[rest]++; known[rest] > 2 { // it is patience that is asked for, and not another connection
			return ""
		}
		return "450 4.2.0 greylisted"
	}})
	_, stop := h.worker(smtp.Config{Addrs: []string{r.addr}}, 1, nil)
	h.send(1, "")
	h.wait(r, 1, 30*time.Second)
	for range 3 {
		for range 5 {
			h.sendFrom(fmt.Sprintf("grey%d@example.com", h.sent), 1, "")
		}
		h.wait(r, 5, 30*time.Second)
	}
	stop()
	h.once(r)
	if n := h.logged(`"message":"retry"`); n < 20 || n > 30 { // two for each, but for some of the first ones, which are tried again at once
		t.Errorf("%d tries spent on 15 messages that were put off twice, want 20 to 30", n)
	}
	if r.opened() != 2 || h.logged("takes only so many") != 0 {
		t.Errorf("%d connections, want 2, and %d limits learned", r.opened(), h.logged("takes only so many"))
	}
}

// Each mailer knows of its own relay alone, and the page of the worker says what it knows.
func TestSessionLimit_twoMailers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10)
	limited := startRelay(t, &relay{puts: takesSo(10, "DATA", "451 4.4.5 too many messages in this session")})
	other := startRelay(t, &relay{})
	queue := tasks.NewQueue(h.redis.Client(t), tasks.QueueConfig{Mailers: []string{"marketing"}})
	state := pages.NewState("marketing")
	status, err := redisconn.ConnectStatus(h.redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	page, err := pages.Start(pages.Config{Addr: "127.0.0.1:0", Redis: status, State: state, Held: func() map[string]error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = page.Close()
		_ = status.Close()
	})
	log := zerolog.New(h).Level(zerolog.DebugLevel)
	w, err := tasks.NewWorker(h.redis.Client(t), tasks.WorkerConfig{
		Connect: func(name string) (mailer.Backend, error) {
			addr := other.addr
			if name == "marketing" {
				addr = limited.addr
			}
			return smtp.New(smtp.Config{Addrs: []string{addr}, Hooks: state.Hooks(name)})
		},
		Mailers: map[string]int{"marketing": 2}, Connections: 2, Logger: &log, Observers: []tasks.Observer{state.Observer()},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for i := range 150 {
		for _, using := range []string{"", "marketing"} {
			h.sent++
			m := &mailer.EmailMessage{
				Body: "It works.", FromEmail: "shop@example.com", To: []string{"ann@example.com"}, MessageID: fmt.Sprintf("<%d.%s@app.example>", i, using),
			}
			if _, err := queue.With(tasks.Options{Using: using}).Enqueue(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.wait(other, 150, time.Minute)
	h.wait(limited, 150, time.Minute)
	shown := struct {
		Mailers []struct {
			Name    string
			Carries int
		}
	}{}
	reply, err := http.Get(page.URL() + "status.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	if err := json.NewDecoder(reply.Body).Decode(&shown); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(shown.Mailers); got != "[{ 0} {marketing 10}]" {
		t.Errorf("the page shows %s, want a limit of 10 for marketing alone", got)
	}
	cancel()
	running.Wait()
	if one, two := limited.opened(), other.opened(); one < 15 || one > 17 || two > 2 {
		t.Errorf("%d connections to the relay with a limit, and %d to the other one; want about 15, and 2", one, two)
	}
	if h.logged(`"message":"retry"`) != 0 || h.logged("takes only so many") != 1 {
		t.Errorf("%d tries spent, limit said %d times", h.logged(`"message":"retry"`), h.logged("takes only so many"))
	}
	for _, r := range []*relay{limited, other} {
		r.change(func() {
			for id, n := range r.taken {
				if n != 1 {
					t.Errorf("%s was delivered %d times", id, n)
				}
			}
		})
	}
}

// A limit to recipients: what a message was accepted for stays accepted, and the others get theirs over another connection.
func TestSessionLimit_recipients(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"452 4.5.3 too many recipients in this session", "450 4.7.1 too many recipients in this session"} {
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, 10)
			got := map[string]int{}
			r := startRelay(t, &relay{puts: func(verb, rest string, carried load) string {
				switch {
				case verb != "RCPT":
					return ""
				case carried.recipients >= 10:
					return reply
				}
				got[rest]++
				return ""
			}})
			to := make([]string, 3)
			for i := range 60 {
				for n := range to {
					to[n] = fmt.Sprintf("ann%d.%d@example.com", i, n)
				}
				h.sendTo(to, tasks.Options{})
			}
			_, stop := h.worker(smtp.Config{Addrs: []string{r.addr}}, 2, nil)
			h.eventually("all recipients have their mail", time.Minute, func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return len(got) == 180
			})
			stop()
			for rest, n := range got {
				if n != 1 {
					t.Errorf("%s was asked for and taken %d times", rest, n)
				}
			}
			if n := h.logged(`"message":"retry"`); n != 0 {
				t.Errorf("%d tries spent", n)
			}
			if r.connects > 30 || h.carries.Load() != 3 {
				t.Errorf("%d connections, and a limit of %d messages; want about 20, and 3", r.connects, h.carries.Load())
			}
		})
	}
}

// Messages that have one try only, or are never to be sent twice, are no worse off.
func TestSessionLimit_oneTry(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]tasks.Options{"at most once": {AtMostOnce: true}, "no retries": {MaxRetry: new(0)}} {
		for _, verb := range []string{"MAIL", "DATA", "."} {
			for _, pipelining := range []smtp.Mode{smtp.Auto, smtp.Off} {
				t.Run(fmt.Sprint(name, ", ", verb, ", pipelining ", pipelining), func(t *testing.T) {
					t.Parallel()
					h := newHouse(t, 10)
					r := startRelay(t, &relay{puts: takesSo(10, verb, "451 4.4.5 too many messages in this session")})
					for range 60 {
						h.sendTo([]string{"ann@example.com"}, o)
					}
					_, stop := h.worker(smtp.Config{Addrs: []string{r.addr}, Pipelining: pipelining}, 2, nil)
					h.wait(r, 60, time.Minute)
					stop()
					h.once(r)
					if n, dead := h.logged(`"message":"retry"`), h.logged(`"message":"dead letter"`); n+dead != 0 {
						t.Errorf("%d tries spent, %d dead letters", n, dead)
					}
				})
			}
		}
	}
}

// A setting that replaces connections before the limit leaves nothing to learn. One beyond it is no use, and does no harm.
func TestSessionLimit_setting(t *testing.T) {
	t.Parallel()
	for most, learned := range map[int]int64{5: 0, 10: 0, 20: 10} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, 100)
			r := startRelay(t, &relay{puts: takesSo(10, "DATA", "451 4.4.5 too many messages in this session")})
			h.send(100, "")
			_, stop := h.worker(smtp.Config{Addrs: []string{r.addr}, MaxMessages: most}, 1, nil)
			h.wait(r, 100, time.Minute)
			stop()
			h.once(r)
			if got, opened := h.carries.Load(), r.opened(); got != learned || opened != 100/min(most, 10) {
				t.Errorf("a limit of %d messages, %d connections; want %d, and %d", got, opened, learned, 100/min(most, 10))
			}
			if n := h.logged(`"message":"retry"`); n != 0 {
				t.Errorf("%d tries spent", n)
			}
		})
	}
}

// Where messages are streamed, several are under way when the limit is met. They go over another connection too.
func TestSessionLimit_chunked(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 100)
	r := &streamed{carries: 10, taken: map[string]int{}, arrived: make(chan bool, 1000)}
	server := gosmtp.NewServer(r)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		running.Wait()
	})
	h.send(150, "")
	_, stop := h.worker(smtp.Config{Addrs: []string{l.Addr().String()}, Chunking: smtp.Auto}, 2, nil)
	for range 150 {
		select {
		case <-r.arrived:
		case <-time.After(time.Minute):
			t.Fatal("not all arrive")
		}
	}
	stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := h.logged(`"message":"retry"`); n != 0 || h.carries.Load() != 10 || r.sessions > 17 {
		t.Errorf("%d tries spent, a limit of %d messages, %d connections; want 0, 10, about 15", n, h.carries.Load(), r.sessions)
	}
	for id, n := range r.taken {
		if n != 1 {
			t.Errorf("%s was delivered %d times", id, n)
		}
	}
}

// streamed is a server with CHUNKING that takes so many messages over one connection.
type streamed struct {
	carries int

	mu       sync.Mutex
	sessions int
	taken    map[string]int
	arrived  chan bool
}

func (s *streamed) NewSession(*gosmtp.Conn) (gosmtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	return &streamedSession{server: s}, nil
}

type streamedSession struct {
	server  *streamed
	carried int
}

func (s *streamedSession) Mail(string, *gosmtp.MailOptions) error {
	if s.carried >= s.server.carries {
		return &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 4, 5}, Message: "too many messages in this session"}
	}
	return nil
}

func (s *streamedSession) Rcpt(string, *gosmtp.RcptOptions) error { return nil }

func (s *streamedSession) Data(body io.Reader) error {
	m, err := mail.ReadMessage(body)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, m.Body); err != nil {
		return err
	}
	s.carried++
	s.server.mu.Lock()
	s.server.taken[m.Header.Get("Message-ID")]++
	s.server.mu.Unlock()
	s.server.arrived <- true
	return nil
}

func (s *streamedSession) Reset()        {}
func (s *streamedSession) Logout() error { return nil }
