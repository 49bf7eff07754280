package relays

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// refusal is how a relay refuses a connection that is one too many.
type refusal struct {
	at    string // "greeting", "EHLO" or "MAIL"
	reply string // "": it hangs up
}

// load is what a connection has carried.
type load struct{ messages, recipients int }

// takesSo returns what puts a relay is to have that takes so many messages over one connection, and answers each further
// one with reply at verb, as Stalwart does. 421 closes.
func takesSo(many int, verb, reply string) func(string, string, load) string {
	return func(v, _ string, carried load) string {
		if v == verb && carried.messages >= many {
			return reply
		}
		return ""
	}
}

// relay is a mail server with limits. Its fields may be changed while it runs, under mu.
type relay struct {
	mu       sync.Mutex
	allowed  int           // connections at once; 0: any number
	refuse   refusal       // of those that are too many
	password string        // "": nobody need log in
	wantsTLS bool          // it takes no mail, and has no STARTTLS either
	slow     time.Duration // before the reply to a message

	// puts returns the reply to a command that puts its message or recipient off, or "". carried is what the
	// connection has carried.
	puts func(verb, rest string, carried load) string

	addr     string
	open     int
	most     int // open at once, of those that it has allowed
	connects int
	commands map[string]int
	failed   []time.Time    // refused logins
	taken    map[string]int // Message-IDs
	arrived  chan string
	conns    map[net.Conn]bool
}

func startRelay(t *testing.T, r *relay) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	r.taken, r.commands, r.conns = map[string]int{}, map[string]int{}, map[net.Conn]bool{}
	r.arrived = make(chan string, 100_000)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.cut()
		running.Wait()
	})
	return r
}

// cut ends all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
}

func (r *relay) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// enter counts a connection, and reports whether it is one too many.
func (r *relay) enter(c net.Conn) (tooMany bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = true
	r.connects++
	r.open++
	tooMany = r.allowed > 0 && r.open > r.allowed
	if !tooMany {
		r.most = max(r.most, r.open)
	}
	return tooMany
}

func (r *relay) leave(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	r.open--
}

func (r *relay) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	tooMany := r.enter(c)
	defer r.leave(c)
	in := bufio.NewReader(c)
	say := func(line string) bool {
		_, err := fmt.Fprint(c, line+"\r\n")
		return err == nil
	}
	refused := func(at string) bool {
		if !tooMany || r.refuse.at != at {
			return false
		}
		if r.refuse.reply != "" {
			say(r.refuse.reply)
		}
		return true
	}
	if refused("greeting") || !say("220 relay.example ESMTP") {
		return
	}
	loggedIn, carried, mail, recipients := false, load{}, false, 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		r.change(func() { r.commands[verb]++ })
		if refused(verb) {
			return
		}
		reply := "250 2.0.0 Ok"
		if verb == "MAIL" {
			mail, recipients = false, 0
		}
		if off := r.putsOff(verb, rest, carried); off != "" {
			if !say(off) || strings.HasPrefix(off, "421") {
				return
			}
			continue
		}
		switch verb {
		case "EHLO":
			reply = "250-relay.example\r\n250-PIPELINING\r\n250 AUTH PLAIN"
		case "AUTH":
			if loggedIn = r.login(rest); loggedIn {
				reply = "235 2.7.0 welcome"
			} else {
				reply = "535 5.7.8 authentication failed"
			}
		case "MAIL":
			if r.refusesMail(loggedIn) {
				reply = "530 5.7.0 Must issue a STARTTLS command first"
			}
			mail = true
		case "RCPT":
			if !mail {
				reply = "503 5.5.1 MAIL first"
				break
			}
			recipients++
			carried.recipients++
		case "DATA":
			if recipients == 0 {
				reply = "554 5.5.1 no valid recipients"
				break
			}
			if r.refusesMail(loggedIn) {
				reply = "503 5.5.1 MAIL first"
				break
			}
			if !say("354 go on") {
				return
			}
			off, ok := r.message(in, carried)
			if !ok {
				return
			}
			if off != "" {
				reply = off
				break
			}
			carried.messages++
		case "QUIT":
			say("221 2.0.0 Bye")
			return
		}
		if !say(reply) {
			return
		}
	}
}

func (r *relay) putsOff(verb, rest string, carried load) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.puts == nil {
		return ""
	}
	return r.puts(verb, rest, carried)
}

func (r *relay) refusesMail(loggedIn bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wantsTLS || r.password != "" && !loggedIn
}

func (r *relay) login(rest string) bool {
	_, initial, _ := strings.Cut(rest, " ")
	plain, _ := base64.StdEncoding.DecodeString(initial)
	parts := strings.Split(string(plain), "\x00")
	r.mu.Lock()
	defer r.mu.Unlock()
	if parts[len(parts)-1] == r.password {
		return true
	}
	r.failed = append(r.failed, time.Now())
	return false
}

// message reads one, and takes it, or puts it off.
func (r *relay) message(in *bufio.Reader, carried load) (off string, ok bool) {
	id := ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", false
		}
		if name, value, _ := strings.Cut(line, ": "); strings.EqualFold(name, "Message-ID") && id == "" {
			id = strings.TrimSpace(value)
		}
		if line == ".\r\n" {
			break
		}
	}
	r.mu.Lock()
	slow := r.slow
	r.mu.Unlock()
	time.Sleep(slow)
	if off := r.putsOff(".", "", carried); off != "" {
		return off, true
	}
	r.change(func() { r.taken[id]++ })
	r.arrived <- id
	return "", true
}

// failures is how many logins were refused.
func (r *relay) failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failed)
}

// opened is how many connections there were.
func (r *relay) opened() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.connects
}

// got is how often a command came.
func (r *relay) got(verb string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.commands[verb]
}
