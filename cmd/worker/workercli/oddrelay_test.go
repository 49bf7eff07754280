package workercli

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// oddRelay is a mail server that offers what it is told to, and answers each message with what answer returns.
type oddRelay struct {
	net.Listener

	offers []string
	answer func() string

	mu    sync.Mutex
	conns []net.Conn
	tries int // messages answered
	taken int // of them with 250
}

func startOddRelay(t *testing.T, answer func() string, offers ...string) *oddRelay {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &oddRelay{Listener: l, offers: offers, answer: answer}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, c)
			r.mu.Unlock()
			all.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		all.Wait()
	})
	return r
}

func (r *oddRelay) serve(c net.Conn) {
	in := bufio.NewScanner(c)
	say := func(line string) { _, _ = fmt.Fprint(c, line+"\r\n") }
	say("220 odd.example")
	for body := false; in.Scan(); {
		line := in.Text()
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch {
		case body && line == ".":
			body = false
			reply := r.answer()
			r.mu.Lock()
			r.tries++
			if strings.HasPrefix(reply, "250") {
				r.taken++
			}
			r.mu.Unlock()
			say(reply)
		case body:
		case verb == "EHLO":
			say("250-odd.example")
			for _, o := range r.offers {
				say("250-" + o)
			}
			say("250 HELP")
		case verb == "DATA":
			body = true
			say("354 go on")
		default:
			say("250 ok")
		}
	}
}

// counts returns how many messages were tried and taken.
func (r *oddRelay) counts() (tries, taken int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries, r.taken
}

// until waits for something.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// work starts a worker for the relay and hands it messages.
func (r *oddRelay) work(t *testing.T, messages int) *running {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	host, port, _ := net.SplitHostPort(r.Addr().String())
	for name, value := range map[string]string{
		"REDIS_URL": server.URL(), "EMAIL_HTTP_ADDR": "off", "LOG_FORMAT": "json", "EMAIL_HOST": host, "EMAIL_PORT": port, "EMAIL_HOSTNAME": "client.example",
	} {
		t.Setenv(name, value)
	}
	w := start(t, backends.Builtin())
	w.says("worker started")
	queue := tasks.NewQueue(server.Client(t), tasks.QueueConfig{BulkSize: 1, Defaults: mailer.Defaults{Hostname: "client.example"}})
	var all []*mailer.EmailMessage
	for i := range messages {
		all = append(all, &mailer.EmailMessage{
			Subject: fmt.Sprintf("number %d", i), Body: "x", FromEmail: "a@example.com", To: []string{fmt.Sprintf("to%d@example.com", i)},
		})
	}
	if _, err := queue.SendMessages(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestRun_oddSize: a limit that cannot be meant keeps no message back, and is spoken of once, however many connections
// there are.
func TestRun_oddSize(t *testing.T) {
	r := startOddRelay(t, func() string { return "250 ok" }, "SIZE 35 MB")
	t.Setenv("EMAIL_CONNECTION_MAX_MESSAGES", "1")
	w := r.work(t, 5)
	until(t, "5 messages", func() bool { _, taken := r.counts(); return taken == 5 })
	w.end()
	if n := strings.Count(w.log.String(), "that cannot be meant"); n != 1 || !strings.Contains(w.log.String(), `"size":"35 MB"`) {
		t.Errorf("said %d times:\n%s", n, w.log.String())
	}
}

// TestRun_dailyLimit: no message dies of a daily limit. The mailer is held after a few of them, and goes on when the
// limit is lifted.
func TestRun_dailyLimit(t *testing.T) {
	for _, tt := range []struct{ name, reply, rules string }{
		{"known", "550 5.4.5 Daily user sending limit exceeded.", ""},
		{"told", "554 5.7.0 You have sent too many messages", "550 5.1.90, 554 5.7.0 *too many*"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			limited := true
			r := startOddRelay(t, func() string {
				mu.Lock()
				defer mu.Unlock()
				if limited {
					return tt.reply
				}
				return "250 ok"
			})
			t.Setenv("EMAIL_TEMPORARY_REPLIES", tt.rules)
			t.Setenv("EMAIL_RETRY_MAX", "6s")
			const messages = 30
			w := r.work(t, messages)
			w.says("relay takes no mail")
			w.says("relay still takes no mail")
			if tries, _ := r.counts(); tries >= messages {
				t.Errorf("%d tries until the mailer was held", tries)
			}
			mu.Lock()
			limited = false
			mu.Unlock()
			until(t, "all messages", func() bool { _, taken := r.counts(); return taken == messages })
			w.end()
			if strings.Contains(w.log.String(), "dead letter") {
				t.Error(w.log.String())
			}
		})
	}
}
