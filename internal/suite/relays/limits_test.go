package relays

import (
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
	postfixtest "github.com/mailpouch/mailpouch/internal/testserver/postfix"
)

// A relay allows fewer connections than the worker wants: the mail goes over those that it allows, no try
// is spent, nothing is held, and this is said once.
func TestLimit(t *testing.T) {
	t.Parallel()
	const slow = 20 * time.Millisecond
	for name, refuse := range map[string]refusal{
		"421 at the greeting":   {"greeting", "421 4.7.0 too many connections"},
		"450 at the greeting":   {"greeting", "450 4.3.2 try again later"},
		"554 at the greeting":   {"greeting", "554 5.7.1 no more"},
		"close at the greeting": {"greeting", ""},
		"421 at EHLO":           {"EHLO", "421 4.7.0 too many connections"},
		"421 at MAIL":           {"MAIL", "421 4.7.0 too many connections"},
	} {
		for _, allowed := range []int{1, 3} {
			t.Run(name+", allowed "+string(rune('0'+allowed)), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, 100)
				r := startRelay(t, &relay{allowed: allowed, refuse: refuse, slow: slow})
				h.send(200, "")
				_, stop := h.worker(smtp.Config{Addrs: []string{r.addr}}, 4, nil)
				took := h.wait(r, 200, time.Minute)
				h.send(20, "") // and it goes on
				h.wait(r, 20, 30*time.Second)
				stop()
				h.once(r)
				t.Logf("%v, %d connects, %d transactions", took, r.opened(), r.got("MAIL"))
				if limit := 200*slow/time.Duration(allowed) + 10*time.Second; took > limit {
					t.Errorf("200 mails took %v, want about %v", took, 200*slow/time.Duration(allowed))
				}
				if r.opened() > 12 {
					t.Errorf("%d connections opened", r.opened())
				}
				if n := h.allowed.Load(); n != int64(allowed) {
					t.Errorf("observers hear that %d connections are allowed, want %d", n, allowed)
				}
				if n := h.logged("takes no mail"); n != 0 {
					t.Errorf("%d times held", n)
				}
				if n := h.logged("allows fewer connections"); n != 1 {
					t.Errorf("said %d times that the relay allows fewer connections, want once", n)
				}
				if n := h.logged(`"message":"retry"`); n != 0 {
					t.Errorf("%d tries spent", n)
				}
			})
		}
	}
}

// Where the one connection that is allowed is that of the priority queue it takes all mail, and where another one
// has it, that one does.
func TestLimit_priority(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"critical", "default"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, 100)
			r := startRelay(t, &relay{allowed: 1, refuse: refusal{"greeting", "421 4.7.0 too many connections"}})
			_, stop := h.worker(smtp.Config{Addrs: []string{r.addr}}, 4, map[string]int{"critical": 6, "default": 3})
			h.send(1, first)
			h.wait(r, 1, 30*time.Second)
			for range 3 {
				h.send(50, "default")
				h.send(3, "critical")
				h.wait(r, 53, 30*time.Second)
			}
			stop()
			h.once(r)
			if n := h.logged("takes no mail"); n != 0 || r.opened() > 12 {
				t.Errorf("%d times held, %d connections opened", n, r.opened())
			}
		})
	}
}

// Single mails do not wait for a connection that the relay does not allow.
func TestLimit_singleMails(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1)
	r := startRelay(t, &relay{allowed: 3, refuse: refusal{"greeting", "421 4.7.0 too many connections"}, slow: 30 * time.Millisecond})
	_, stop := h.worker(smtp.Config{Addrs: []string{r.addr}}, 4, nil)
	var longest time.Duration
	for range 40 {
		h.send(3, "")
		longest = max(longest, h.wait(r, 3, 30*time.Second))
	}
	stop()
	h.once(r)
	t.Logf("longest wait %v, %d connects", longest, r.opened())
	if longest > 10*time.Second || h.logged("takes no mail") != 0 {
		t.Errorf("a mail waited %v", longest)
	}
}

// Postfix counts the connections of a client, and greets one that is too many with a refusal.
func TestLimit_postfix(t *testing.T) {
	t.Parallel()
	p := postfixtest.Start(t, postfixtest.Options{Main: []string{"smtpd_client_connection_count_limit = 3", "smtpd_client_event_limit_exceptions ="}})
	h := newHouse(t, 100)
	_, stop := h.worker(smtp.Config{Addrs: []string{p.Addr()}}, 5, nil)
	h.send(400, "")
	began := time.Now()
	if err := p.Wait(t.Context(), 400); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	time.Sleep(time.Second) // what was learned of the limit is believed then
	h.send(1, "")
	if err := p.Wait(t.Context(), 401); err != nil {
		t.Fatal(err)
	}
	stop() // before Connections opens one more
	n, err := p.Connections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v, %d connections", took, n)
	if strings.Count(p.Log(), "concurrency limit exceeded") == 0 {
		t.Error("Postfix refused nothing")
	}
	if n > 15 || h.logged("takes no mail") != 0 || h.logged("allows fewer connections") != 1 {
		t.Errorf("%d connections opened, held %d times, said %d times", n, h.logged("takes no mail"), h.logged("allows fewer connections"))
	}
}
