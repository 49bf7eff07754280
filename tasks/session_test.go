package tasks

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/mailer"
)

// carrier sends messages over a connection of its own, as a sender does, to a relay that a test makes up.
type carrier struct {
	t       *testing.T
	session session
	answer  func(carried int, d *delivery) error
	number  *atomic.Int32 // of connections
	id      string
	carried int

	sent, charged, asked int
}

// crew returns carriers that share what they know, and what that says.
func crew(t *testing.T, n int, answer func(carried int, d *delivery) error) (all []*carrier, log *bytes.Buffer, heard *[]int) {
	t.Helper()
	log, heard = &bytes.Buffer{}, &[]int{}
	limits := newSessions("", zerolog.New(log), observers{{SessionLimit: func(_ string, n int) { *heard = append(*heard, n) }}})
	number := &atomic.Int32{}
	for range n {
		c := &carrier{t: t, session: session{all: limits}, answer: answer, number: number}
		c.connect()
		all = append(all, c)
	}
	return all, log, heard
}

func (c *carrier) connect() {
	c.id, c.carried = fmt.Sprint("connection ", c.number.Add(1)), 0
}

// send sends messages until each is accepted or has cost a try, and settles what is left when nothing follows.
func (c *carrier) send(names ...string) {
	c.t.Helper()
	var batch []*delivery
	for _, name := range names {
		batch = append(batch, &delivery{key: name})
	}
	for len(batch) > 0 {
		n, replace := c.session.room(len(batch))
		if replace {
			c.connect()
			c.session.begin("")
		}
		var held []*delivery
		for _, d := range batch[:n] {
			if c.session.replace {
				held = append(held, d)
				continue
			}
			c.asked++
			err := c.answer(c.carried, d)
			if err == nil {
				c.carried++
			}
			known, _ := c.session.sift(d, mailer.Result{Err: err, Connection: c.id})
			c.judge(known)
		}
		batch = append(held, batch[n:]...)
		c.session.endTrial()
		judged, again := c.session.decide(c.t.Context())
		c.judge(judged)
		batch = append(deliveriesOf(again), batch...)
	}
	c.judge(c.session.alone())
}

func (c *carrier) judge(list []tried) {
	for _, t := range list {
		if t.result.Err == nil {
			c.sent++
		} else {
			c.charged++
		}
	}
}

func names(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(prefix, i)
	}
	return all
}

func putOff(step mailer.Step, code int, enhanced string) error {
	return &mailer.SendError{Class: mailer.Temporary, Step: step, Code: code, Enhanced: enhanced}
}

// carries is a relay that takes so many messages over one connection.
func carriesAtMost(most *int) func(int, *delivery) error {
	return func(carried int, _ *delivery) error {
		if carried >= *most {
			return putOff(mailer.StepData, 451, "4.4.5")
		}
		return nil
	}
}

// The limit is learned from two messages, and no try is spent. It is looked at after pauses that double, and forgotten when
// a connection has carried more.
func TestSession_learns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		most := 10
		all, log, heard := crew(t, 1, carriesAtMost(&most))
		c := all[0]
		c.send(names("a", 150)...)
		if c.sent != 150 || c.charged != 0 || c.number.Load() != 15 || c.asked != 152 {
			t.Errorf("%d sent, %d tries spent, over %d connections in %d attempts; want 150, 0, 15, 152", c.sent, c.charged, c.number.Load(), c.asked)
		}
		var looks []time.Duration
		for began := time.Now(); time.Since(began) < 24*time.Hour; time.Sleep(time.Minute) {
			asked := c.asked
			c.send(names("b", 10)...)
			if c.asked > asked+10 {
				looks = append(looks, time.Since(began))
			}
		}
		if want := []time.Duration{1, 3, 7, 15, 31, 63, 127, 255, 511, 871, 1231}; len(looks) != len(want) || looks[0] != time.Minute || looks[3] != 15*time.Minute ||
			looks[10]-looks[9] != 6*time.Hour {
			t.Errorf("the limit was looked at after %v, want about %v minutes", looks, want)
		}
		if c.charged != 0 {
			t.Errorf("%d tries spent", c.charged)
		}
		most = 25
		time.Sleep(6 * time.Hour)
		c.send(names("c", 100)...)
		if c.charged != 0 || !slices.Contains(*heard, 0) || (*heard)[len(*heard)-1] != 25 {
			t.Errorf("%d tries spent, limits %v, want one of 10, none, and one of 25", c.charged, *heard)
		}
		for _, most = range []int{4, 2, 1} {
			c.send(names("d", 100)...)
			if c.charged != 0 || (*heard)[len(*heard)-1] != most {
				t.Errorf("%d tries spent, limits %v, want one of %d in the end", c.charged, *heard, most)
			}
		}
		if n := strings.Count(log.String(), `"warn"`); n != 2 { // 10, and 25
			t.Errorf("%d warnings, want 2:\n%s", n, log)
		}
	})
}

// A reply that a new connection repeats is that of the messages. It is tried so once in ten minutes, then twenty, and so on,
// and another reply for itself.
func TestSession_greylisting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all, log, heard := crew(t, 1, func(_ int, d *delivery) error {
			switch d.key[0] {
			case 'g':
				return putOff(mailer.StepRcpt, 450, "4.2.0")
			case 'h':
				return putOff(mailer.StepRcpt, 451, "4.2.0")
			}
			return nil
		})
		c := all[0]
		for _, grey := range []string{"g", "h"} {
			var fresh []time.Duration
			for began := time.Now(); time.Since(began) < 24*time.Hour; time.Sleep(time.Minute) {
				n := c.number.Load()
				c.send("ok")
				c.send(names(grey, 5)...)
				if c.number.Load() > n {
					fresh = append(fresh, time.Since(began).Round(time.Minute)/time.Minute)
				}
			}
			if want := []time.Duration{0, 10, 30, 70, 150, 310, 630, 990, 1350}; !slices.Equal(fresh, want) {
				t.Errorf("%s was tried over a new connection after %d minutes, want %d", grey, fresh, want)
			}
		}
		if want := 2 * 24 * 60 * 5; c.charged != want {
			t.Errorf("%d tries spent, want %d", c.charged, want)
		}
		if len(*heard) > 0 || strings.Contains(log.String(), "only so many") {
			t.Errorf("limits %v, log:\n%s", *heard, log)
		}
	})
}

// Connections that meet the same at the same time wait for the one that is tried, and go on as that one.
func TestSession_oneTrial(t *testing.T) {
	t.Parallel()
	for _, grey := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			atOnce, most := 0, 0
			all, _, heard := crew(t, 5, nil)
			for i, c := range all {
				c.answer = func(carried int, d *delivery) error {
					if strings.HasPrefix(d.key, "ok") {
						return nil
					}
					if d.fresh {
						atOnce++
						most = max(most, atOnce)
						time.Sleep(time.Second)
						atOnce--
					}
					if grey || carried >= 10 {
						return putOff(mailer.StepMail, 452, "")
					}
					return nil
				}
				c.send(names(fmt.Sprint("ok", i, "-"), 10)...)
			}
			done := make(chan bool)
			for i, c := range all {
				go func() {
					c.send(names(fmt.Sprint(i, "-"), 10)...)
					done <- true
				}()
			}
			for range all {
				<-done
			}
			charged, asked := 0, 0
			for _, c := range all {
				charged, asked = charged+c.charged, asked+c.asked
			}
			switch {
			case grey && (charged != 50 || all[0].number.Load() != 6 || most != 1):
				t.Errorf("greylisting: %d tries spent over %d connections, %d tried at once; want 50, 6, 1", charged, all[0].number.Load(), most)
			case !grey && (charged != 0 || all[0].number.Load() != 10 || !slices.Equal(*heard, []int{10})):
				t.Errorf("%d tries spent over %d connections, limits %v; want 0, 10, one of 10", charged, all[0].number.Load(), *heard)
			}
		})
	}
}

// One that is put off alone costs a try, as ever; the next one that is told the same, over the same connection, is the second in a row.
func TestSession_littleMail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		most := 10
		all, _, heard := crew(t, 1, carriesAtMost(&most))
		c := all[0]
		for _, name := range append(names("a", 11), names("b", 30)...) {
			c.send(name)
			time.Sleep(10 * time.Second)
		}
		if c.charged != 1 || c.sent != 40 || !slices.Contains(*heard, 10) {
			t.Errorf("%d sent, %d tries spent, limits %v; want 40, 1, one of 10", c.sent, c.charged, *heard)
		}
		c.send("x")
		for range 3 { // one message again is not two messages
			before := c.number.Load()
			c.session.all.most, c.carried, c.session.whole = 0, 20, 20
			c.send("same")
			if c.number.Load() != before {
				t.Error("tried over a new connection because of one message")
			}
		}
	})
}

// Of two messages in a row the first may be known of last: some of its recipients were put off, and asked for again. Neither costs a
// try, also if the limit becomes known in between.
func TestSession_partlyLast(t *testing.T) {
	t.Parallel()
	for _, learned := range []int{0, 2, 3} {
		t.Run(fmt.Sprint("a limit of ", learned), func(t *testing.T) {
			t.Parallel()
			all, _, _ := crew(t, 1, func(int, *delivery) error { return nil })
			c := all[0]
			c.send(names("a", 3)...)
			later := putOff(mailer.StepRcpt, 452, "4.5.3")
			whole, partly := &delivery{key: "whole"}, &delivery{key: "partly"}
			if known, kept := c.session.sift(whole, mailer.Result{Err: later, Connection: c.id}); len(known) > 0 || !kept {
				t.Fatalf("%d are judged at once", len(known))
			}
			if reply, _ := replyOf(later); learned > 0 {
				c.session.all.mu.Lock()
				c.session.all.learn(reply, learned)
				c.session.all.mu.Unlock()
			}
			refusal, _ := errors.AsType[*mailer.SendError](later)
			known, _ := c.session.sift(partly, mailer.Result{Refused: []*mailer.SendError{refusal}, Connection: c.id})
			if len(known) != 1 || known[0].delivery != partly || !partly.soon {
				t.Errorf("%d are judged, its other recipients at once: %v; want one, and that", len(known), partly.soon)
			}
			if judged, again := c.session.decide(t.Context()); len(judged) != 0 || len(again) != 1 || again[0].delivery != whole {
				t.Errorf("%d judged, %d over another connection; want 0, 1", len(judged), len(again))
			}
		})
	}
}

// What comes between two replies, and what is no reply to a message, says nothing of the connection.
func TestSession_notInARow(t *testing.T) {
	t.Parallel()
	permanent := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550}
	later := putOff(mailer.StepData, 451, "4.4.5")
	for name, replies := range map[string][]error{
		"accepted in between":  {nil, later, nil, later, nil},
		"another reply":        {nil, later, putOff(mailer.StepMail, 451, "4.4.5"), later, putOff(mailer.StepData, 452, "4.4.5"), later},
		"nothing accepted yet": {later, later, later},
		"refused for good":     {nil, permanent, permanent, permanent},
		"a 421 that closes":    {nil, putOff(mailer.StepMail, 421, "4.3.2"), putOff(mailer.StepMail, 421, "4.3.2")},
		"no reply":             {nil, &mailer.SendError{Step: mailer.StepData}, &mailer.SendError{Step: mailer.StepData}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _, _ := crew(t, 1, func(int, *delivery) error {
				err := replies[0]
				replies = replies[1:]
				return err
			})
			c := all[0]
			n := len(replies)
			c.send(names("a", n)...)
			if c.asked != n || c.number.Load() != 1 || c.sent+c.charged != n {
				t.Errorf("%d attempts over %d connections, %d results; want %d over one", c.asked, c.number.Load(), c.sent+c.charged, n)
			}
		})
	}
}
