package relays

import (
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
)

// While mail waits for a relay that is far away there are soon more connections, one a second, and a relay that allows
// fewer than they may become holds nothing and costs no try, wherever it says so.
func TestGrowth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		bulk    int
		queues  map[string]int
		allowed int
		refuse  refusal
		most    int // connections in the end
	}{
		{"as many as they may become", 1, nil, 0, refusal{}, 6},
		{"bulk mail, and a queue that is first", 50, map[string]int{"critical": 6, "default": 3}, 0, refusal{}, 6},
		{"refused at the greeting", 1, nil, 5, refusal{"greeting", "421 4.7.0 too many connections"}, 5},
		{"refused at MAIL", 1, nil, 5, refusal{"MAIL", "421 4.7.0 too many connections"}, 5},
		{"hung up", 50, nil, 5, refusal{"greeting", ""}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, tt.bulk)
			r := startRelay(t, &relay{allowed: tt.allowed, refuse: tt.refuse, slow: 100 * time.Millisecond})
			h.most = 6
			h.send(350, "default")
			_, stop := h.worker(smtp.Config{Addrs: []string{r.addr}}, 4, tt.queues)
			h.wait(r, 350, time.Minute)
			stop()
			h.once(r)
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.most != tt.most {
				t.Errorf("%d connections at once, want %d", r.most, tt.most)
			}
			said := 0
			if tt.allowed > 0 {
				said = 1
			}
			if n := h.logged("refuses a further connection"); n != said {
				t.Errorf("said %d times that there are fewer, want %d", n, said)
			}
			if h.logged("takes no mail") != 0 || h.logged("allows fewer") != 0 || h.logged(`"retry"`) != 0 {
				t.Error("a connection more was not only for trying")
			}
		})
	}
}
