package relays

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
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
						t.Logf("%d connections, %d transactions", r.connects, r.commands["MAIL"])
						if most := 20 + connections; r.connects < 20 || r.connects > most {
							t.Errorf("%d connections for 200 messages, want 20 to %d", r.connects, most)
						}
						if n := r.commands["MAIL"] - 200; c.learned > 0 && n > 4*connections {
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
	r := startRelay(t, &relay{puts: func(verb, rest string, _ int) string {
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
	if n := h.logged(`"message":"retry"`); n < 20 || n > 28 { // two for each, but for the first ones, which were tried again at once
		t.Errorf("%d tries spent on 15 messages that were put off twice, want 20 to 28", n)
	}
	if r.connects != 2 || h.logged("takes only so many") != 0 {
		t.Errorf("%d connections, want 2, and %d limits learned", r.connects, h.logged("takes only so many"))
	}
}
