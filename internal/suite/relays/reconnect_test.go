package relays

import (
	"sync"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// rotated is a password that may change while workers run.
type rotated struct {
	mu   sync.Mutex
	text string
}

func (p *rotated) set(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
}

func (p *rotated) config(r *relay, connections int) tasks.WorkerConfig {
	logins := new(smtp.Logins)
	return tasks.WorkerConfig{Connections: connections, Queues: map[string]int{"critical": 2, "default": 1}, Connect: func(string) (mailer.Backend, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		c := account(r, p.text)
		c.Logins = logins
		return smtp.New(c)
	}}
}

func reconnect(t *testing.T, workers ...*tasks.Worker) {
	t.Helper()
	for _, w := range workers {
		if err := w.Reconnect(); err != nil {
			t.Fatal(err)
		}
	}
}

// A mailer that is held because of a refused login is tried at once when its password was read again, however long the pause is
// that the workers have agreed on.
func TestReconnect_held(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10)
	r := startRelay(t, &relay{password: "new"})
	p := &rotated{text: "old"}
	var workers []*tasks.Worker
	h.send(100, "")
	for range 2 {
		w, _ := h.run(smtp.Config{}, p.config(r, 8))
		workers = append(workers, w)
	}
	h.eventually("held", time.Minute, func() bool { return r.failures() > 0 && workers[0].Held()[""] != nil && workers[1].Held()[""] != nil })
	client := h.redis.Client(t)
	keys := client.Keys(t.Context(), "*login*").Val()
	if len(keys) != 1 {
		t.Fatalf("keys of logins: %q", keys)
	}
	if err := client.HSet(t.Context(), keys[0], "until", time.Now().Add(10*time.Minute).UnixMilli()).Err(); err != nil {
		t.Fatal(err)
	}
	refused := r.failures()

	reconnect(t, workers...) // with the same password: each asks once at most, and then they wait
	h.eventually("the old password is refused again", time.Minute, func() bool { return r.failures() > refused })
	if n := r.failures() - refused; n > 2 {
		t.Errorf("%d further logins were refused, want one for each that was asked for, at most", n)
	}
	p.set("new")
	reconnect(t, workers...)
	h.wait(r, 100, 2*time.Minute)
	h.once(r)
}

// What is on the wire goes on while the connections are replaced, also if they break right then.
func TestReconnect_underLoad(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10)
	r := startRelay(t, &relay{password: "one", slow: time.Millisecond})
	p := &rotated{text: "one"}
	w, stop := h.run(smtp.Config{}, p.config(r, 4))
	h.send(2000, "")
	h.wait(r, 200, time.Minute)
	for i, password := range []string{"two", "three", "four"} {
		p.set(password)
		r.change(func() { r.password = password })
		reconnect(t, w)
		if i == 1 {
			r.cut() // who was in the middle of a batch logs in with the new password too
		}
		h.wait(r, 300, time.Minute)
	}
	h.wait(r, 2000-200-900, time.Minute)
	h.eventually("all", time.Minute, func() bool { // of what has arrived something may have come twice, since a connection broke
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.taken) == 2000
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	r.mu.Lock()
	n, connects, delivered := len(r.failed), r.connects, len(r.taken)
	r.mu.Unlock()
	if n > 0 || delivered != 2000 {
		t.Errorf("%d logins refused, %d delivered", n, delivered)
	}
	if connects < 4*2 {
		t.Errorf("%d connections in all: none was replaced", connects)
	}
}

// A wrong password that is read again costs one refused login, and nothing is lost.
func TestReconnect_wrong(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10)
	r := startRelay(t, &relay{password: "right", slow: time.Millisecond})
	p := &rotated{text: "right"}
	w, _ := h.run(smtp.Config{}, p.config(r, 8))
	h.send(1000, "")
	h.wait(r, 100, time.Minute)
	p.set("wrong")
	reconnect(t, w)
	h.eventually("held", time.Minute, func() bool { return w.Held()[""] != nil })
	if n := r.failures(); n != 1 {
		t.Errorf("%d logins refused, want 1", n)
	}
	p.set("right")
	reconnect(t, w)
	h.wait(r, 900, 2*time.Minute)
	h.once(r)
}
