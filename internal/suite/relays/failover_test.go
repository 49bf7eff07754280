package relays

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/testserver/postfix"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// pair are two Postfix, members of the mailer "main", and what a worker has said of its mail.
type pair struct {
	*house
	a, b *postfix.Server

	mu      sync.Mutex
	sent    map[string][]time.Time // when which member has accepted something
	inDoubt map[string]bool        // the messages whose final reply was cut off
	others  []tasks.Outcome        // that are neither
}

func newPair(t *testing.T, data time.Duration) *pair {
	t.Helper()
	p := &pair{
		house: newHouse(t, 50), a: postfix.Start(t, postfix.Options{}), b: postfix.Start(t, postfix.Options{}),
		sent: map[string][]time.Time{}, inDoubt: map[string]bool{},
	}
	p.queue = tasks.NewQueue(p.redis.Client(t), tasks.QueueConfig{BulkSize: 50, Mailers: []string{"main", "a", "b"}}).With(tasks.Options{Using: "main"})
	addrs := map[string]string{"": p.b.Addr(), "a": p.a.Addr(), "b": p.b.Addr()}
	_, stop := p.run(smtp.Config{}, tasks.WorkerConfig{
		Connect: func(name string) (mailer.Backend, error) {
			return smtp.New(smtp.Config{Addrs: []string{addrs[name]}, Hostname: "worker.example", ConnectTimeout: 5 * time.Second, CommandTimeout: 5 * time.Second, DataTimeout: data})
		},
		Mailers:   map[string]int{"main": 0, "a": 3, "b": 3},
		Failover:  map[string]tasks.Failover{"main": {Members: []tasks.Member{{Mailer: "a", Weight: 1}, {Mailer: "b", Weight: 1}}}},
		Observers: []tasks.Observer{{Outcome: p.outcome}},
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return p
}

func (p *pair) outcome(o tasks.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case o.Action == tasks.ActionSent:
		p.sent[o.Member] = append(p.sent[o.Member], time.Now())
	case o.Action == tasks.ActionRetry && mailer.ClassOf(o.Err) == mailer.Unknown:
		p.inDoubt[o.MessageID] = true
	default:
		p.others = append(p.others, o)
	}
}

// accepted is how many messages a member has accepted, or all have if it is "".
func (p *pair) accepted(member string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, times := range p.sent {
		if member == "" || member == name {
			n += len(times)
		}
	}
	return n
}

// until waits.
func (p *pair) until(what string, ok func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 4*time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("never: %s; a has accepted %d, b %d", what, p.accepted("a"), p.accepted("b"))
		}
	}
}

var (
	messageIDs = regexp.MustCompile(`(?mi)^Message-ID: (<[^>]+>)`)
	queueIDs   = regexp.MustCompile(`\sid (\w+)`)
)

// balance checks that each of n messages is there, and twice only if its final reply was cut off. A Postfix that was killed when it
// had delivered a message, and not noted that, delivers it again: it was handed over once all the same.
func (p *pair) balance(n int) {
	p.t.Helper()
	if err := p.b.Drain(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	// What a had begun to write and not accepted when it was killed stays in its queue for an hour, and is no message.
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	if err := p.a.Drain(ctx); err != nil {
		p.t.Log(err)
	}
	count := map[string]int{}
	look := func() bool {
		clear(count)
		for _, s := range []*postfix.Server{p.a, p.b} {
			seen := map[[2]string]bool{}
			for _, m := range s.Messages() {
				id, queued := string(messageIDs.FindSubmatch(m.Raw)[1]), queueIDs.FindStringSubmatch(m.Received)
				if queued == nil {
					p.t.Fatalf("no queue ID in %q", m.Received)
				}
				if one := [2]string{id, queued[1]}; !seen[one] {
					seen[one] = true
					count[id]++
				}
			}
		}
		return len(count) >= n
	}
	for tries := 0; !look() && tries < 60; tries++ {
		time.Sleep(time.Second) // a may be slow to deliver what it has
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	twice := 0
	for i := range n {
		id := fmt.Sprintf("<%d@app.example>", i+1)
		switch times := count[id]; {
		case times == 0:
			p.t.Errorf("%s is lost", id)
		case times > 2 || times == 2 && !p.inDoubt[id]:
			p.t.Errorf("%s arrived %d times, and was not in doubt", id, times)
		case times == 2:
			twice++
		}
	}
	for _, o := range p.others {
		p.t.Errorf("%s %s with %q: %v", o.MessageID, o.Action, o.Member, o.Err)
	}
	p.t.Logf("%d messages, %d in doubt, of which %d arrived twice; a accepted %d, b %d", n, len(p.inDoubt), twice, len(p.sent["a"]), len(p.sent["b"]))
}

// back is how long after a moment the rate of all members was half of what it was before, over a quarter of a second, and when the
// first message was accepted.
func (p *pair) back(since time.Time) (first, rate time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	const window = 250 * time.Millisecond
	before := 0
	for _, at := range p.sent["a"] {
		if since.Sub(at) < 4*window && at.Before(since) {
			before++
		}
	}
	after := slices.Clone(p.sent["b"])
	if len(after) == 0 {
		return time.Hour, time.Hour
	}
	slices.SortFunc(after, time.Time.Compare)
	for i, at := range after {
		n := 0
		for _, later := range after[i:] {
			if later.Sub(at) < window {
				n++
			}
		}
		if n >= before/8 {
			return after[0].Sub(since), at.Sub(since)
		}
	}
	return after[0].Sub(since), time.Hour
}

// The first of two Postfix is killed under load: nothing is lost, and only what was in doubt may arrive twice. It serves again
// when it is back.
func TestFailover_killed(t *testing.T) {
	p := newPair(t, 30*time.Second)
	for range 3 {
		p.send(200, "default")
	}
	p.until("a takes mail", func() bool { return p.accepted("a") >= 100 })
	killed := time.Now()
	p.a.Kill()
	p.send(50, "default") // a may have taken all the others
	sent := 650
	p.until("all is accepted", func() bool { return p.accepted("") >= sent })
	first, rate := p.back(killed)
	t.Logf("b has accepted mail %v after a was killed, at half the rate from before after %v", first.Round(time.Millisecond), rate.Round(time.Millisecond))
	if first > 30*time.Second {
		t.Errorf("b has accepted nothing for %v", first)
	}
	p.a.Restart()
	before := p.accepted("a")
	p.until("a serves again", func() bool {
		p.send(10, "default")
		sent += 10
		p.until("these are accepted", func() bool { return p.accepted("") >= sent })
		return p.accepted("a") > before
	})
	p.balance(sent)
}

// The first of two Postfix stands still under load, with its connections open. What is on the wire waits for its reply, and all else
// goes on with the other one.
func TestFailover_stopped(t *testing.T) {
	p := newPair(t, 15*time.Second)
	for range 3 {
		p.send(200, "default")
	}
	p.until("a takes mail", func() bool { return p.accepted("a") >= 100 })
	stopped := time.Now()
	if err := p.a.Pause(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.a.Resume() })
	p.send(50, "default") // a may have taken all the others
	p.until("b takes mail", func() bool { return p.accepted("b") > 0 })
	p.until("all is accepted", func() bool { return p.accepted("") >= 650 })
	first, rate := p.back(stopped)
	t.Logf("b has accepted mail %v after a was stopped, at half the rate from before after %v", first.Round(time.Millisecond), rate.Round(time.Millisecond))
	if err := p.a.Resume(); err != nil {
		t.Fatal(err)
	}
	p.balance(650)
}
