package relays

import (
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
)

func account(r *relay, password string) smtp.Config {
	return smtp.Config{Addrs: []string{r.addr}, Username: "shop", Password: password}
}

// A wrong password costs one refused login for all workers, however many connections they want, and the next
// one comes after a pause. When it is right they all go on.
func TestLogin_wrongPassword(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10)
	r := startRelay(t, &relay{password: "new"})
	h.send(500, "")
	for range 3 {
		h.worker(account(r, "old"), 50, map[string]int{"critical": 2, "default": 1})
	}
	h.eventually("a refused login", 30*time.Second, func() bool { return r.failures() > 0 })
	time.Sleep(5 * time.Second)
	if n := r.failures(); n != 1 {
		t.Errorf("%d logins refused in the first seconds, want 1", n)
	}
	r.change(func() { r.password = "old" })
	h.wait(r, 500, 2*time.Minute)
	h.once(r)
	if n := r.failures(); n != 1 {
		t.Errorf("%d logins refused, want 1", n)
	}
}

// A worker with a password that the relay refuses does not stop one that is logged in, also when that has to
// log in again.
func TestLogin_othersGoOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10)
	r := startRelay(t, &relay{password: "right"})
	_, stop := h.worker(account(r, "right"), 4, nil)
	h.send(1, "")
	h.wait(r, 1, 30*time.Second) // logged in
	stale := newHouseOn(h)
	stale.worker(account(r, "stale"), 4, map[string]int{"other": 1})
	stale.send(10, "other")
	h.eventually("a refused login", 30*time.Second, func() bool { return r.failures() > 0 })
	for range 3 {
		r.cut()
		h.send(100, "")
		if took := h.wait(r, 100, 30*time.Second); took > 10*time.Second {
			t.Errorf("100 mails took %v", took)
		}
	}
	if n := r.failures(); n != 1 {
		t.Errorf("%d logins refused, want 1", n)
	}
	stop()
}

// While a relay takes no mail, a probe opens one connection and sends one message.
func TestProbe_oneConnection(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 100)
	r := startRelay(t, &relay{wantsTLS: true})
	h.send(400, "")
	h.worker(smtp.Config{Addrs: []string{r.addr}, MaxMessages: 10}, 4, nil)
	h.eventually("the relay is held", 30*time.Second, func() bool { return h.logged("relay takes no mail") > 0 })
	h.eventually("a probe", 30*time.Second, func() bool { return h.logged("relay still takes no mail") > 0 })
	r.mu.Lock()
	connects, mails := r.connects, r.commands["MAIL"]
	r.mu.Unlock()
	h.eventually("two more probes", time.Minute, func() bool { return h.logged("relay still takes no mail") >= 3 })
	r.mu.Lock()
	connects, mails = r.connects-connects, r.commands["MAIL"]-mails
	r.mu.Unlock()
	if connects > 2 || mails > 2 {
		t.Errorf("two probes opened %d connections and began %d messages, want 2 at most", connects, mails)
	}
	r.change(func() { r.wantsTLS = false })
	h.wait(r, 400, time.Minute)
	h.once(r)
}
