package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// A peer is a server that follows a script: it behaves well, Postfix-like, except
// where its script says otherwise. It notes what a client must not do.
type peer struct {
	offers []string // EHLO keywords
	tls    *tls.Config
	auth   func(mech, initial string, ask func(challenge string) string) bool

	refuseAuth func(mech string) string    // instead of auth: the reply to AUTH
	prompts    []string                    // instead of auth: what it asks, as it is,
	answered   func(answers []string) bool // and whether the answers are right

	t        *testing.T
	implicit bool // TLS from the start
	lmtp     bool
	late     bool   // its replies take a moment, and come together
	noBDAT   string // the reply to BDAT, whose octets are read as commands

	// script returns what to do instead of the usual, or "": "close", "stall",
	// or else a reply, after which "421" closes. The step "body" comes up when some
	// of the body has been read.
	script func(at event) string

	mu         sync.Mutex
	conns      int
	last       net.Conn
	mails      []mail
	violations []string
	commands   []string
	plain      []string      // those in clear text
	ends       chan struct{} // closed when the test is over
	running    sync.WaitGroup
}

type event struct {
	conn int    // from 1
	step string // "greeting", "EHLO", ..., "body", "dot", "chunk", "QUIT"
	mail string // the sender
	rcpt string
}

type mail struct {
	from string
	to   []string
	body string
}

func newPeer(t *testing.T, offers ...string) *peer {
	p := &peer{t: t, offers: offers, ends: make(chan struct{})}
	t.Cleanup(func() {
		close(p.ends)
		p.running.Wait()
		for _, v := range p.violations {
			t.Errorf("the client: %s", v)
		}
	})
	return p
}

// dial is a Config.Dial that connects to the peer.
func (p *peer) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns++
	p.last = ours
	if p.tls != nil || p.late {
		ours = p.buffer(ours) // for TLS both sides may write at the same time
	}
	c := &peerConn{peer: p, conn: ours, number: p.conns}
	p.running.Go(c.serve)
	return theirs, nil
}

// bufferedConn is a connection whose writes do not wait for the reader.
type bufferedConn struct {
	net.Conn
	out  chan []byte
	once sync.Once
}

func (p *peer) buffer(c net.Conn) net.Conn {
	b := &bufferedConn{Conn: c, out: make(chan []byte, 100)}
	p.running.Go(func() {
		for chunk := range b.out {
			if p.late {
				<-time.After(time.Millisecond)
				for len(b.out) > 0 {
					chunk = append(chunk, <-b.out...)
				}
			}
			_, _ = c.Write(chunk)
		}
		_ = c.Close()
	})
	return b
}

func (b *bufferedConn) Write(p []byte) (int, error) {
	b.out <- bytes.Clone(p)
	return len(p), nil
}

// SetWriteDeadline does nothing, for tls.Conn.Close would end what is still to be written.
func (b *bufferedConn) SetWriteDeadline(time.Time) error { return nil }

func (b *bufferedConn) Close() error {
	b.once.Do(func() { close(b.out) })
	return nil
}

// drop says something on the last connection, if it is not "", and closes it.
func (p *peer) drop(words string) {
	p.mu.Lock()
	c := p.last
	p.mu.Unlock()
	if words != "" {
		_, _ = io.WriteString(c, words+"\r\n")
	}
	_ = c.Close()
}

// forgive forgets what the client did wrong, once it has done all of it.
func (p *peer) forgive() {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.violations = nil
}

func (p *peer) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.violations = append(p.violations, fmt.Sprintf(format, args...))
}

// taken returns the messages that the peer has taken, once it has done all that it was told: a connection that the client has
// given up may still be at work.
func (p *peer) taken() []mail {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mails)
}

// said returns the client's commands, in the same way.
func (p *peer) said() []string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.commands)
}

func (p *peer) senders() []string {
	var all []string
	for _, m := range p.taken() {
		all = append(all, m.from)
	}
	return all
}

type peerConn struct {
	peer   *peer
	conn   net.Conn
	r      *bufio.Reader
	number int
	hello  string
	secure bool

	open bool // a transaction is
	mail
	chunked string
	refused bool // the current BDAT message has failed
}

// stays ends a 421 after which the peer goes on.
const stays = "but I stay"

// stop is thrown by a script's "close" and "stall".
type stop struct{}

func (c *peerConn) serve() {
	defer func() {
		if r := recover(); r != nil && r != any(stop{}) {
			panic(r)
		}
	}()
	defer func() { _ = c.conn.Close() }()
	if c.peer.implicit {
		c.encrypt()
	}
	c.r = bufio.NewReader(c.conn)
	c.say(event{step: "greeting"}, "220 peer.example ESMTP")
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		line, ok := strings.CutSuffix(line, "\r\n")
		if !ok || strings.ContainsAny(line, "\r\n\x00") {
			c.peer.note("bad line %q", line)
		}
		c.peer.mu.Lock()
		c.peer.commands = append(c.peer.commands, line)
		if !c.secure {
			c.peer.plain = append(c.peer.plain, line)
		}
		c.peer.mu.Unlock()
		verb, rest, _ := strings.Cut(line, " ")
		c.command(strings.ToUpper(verb), rest)
	}
}

func (c *peerConn) encrypt() {
	if c.peer.tls == nil {
		_, _ = io.WriteString(c.conn, "250 what do you mean?\r\n")
		panic(stop{})
	}
	c.secure = true
	c.conn = tls.Server(c.conn, c.peer.tls)
	c.r = bufio.NewReader(c.conn)
}

// say gives the usual reply or what the script wants instead. It returns whether
// the reply was positive.
func (c *peerConn) say(at event, usual string) bool {
	at.conn, at.mail = c.number, c.from
	action := ""
	if c.peer.script != nil {
		action = c.peer.script(at)
	}
	switch action {
	case "close":
		panic(stop{})
	case "stall":
		<-c.peer.ends
		panic(stop{})
	case "":
		action = usual
	}
	_, _ = io.WriteString(c.conn, strings.ReplaceAll(action, "|", "\r\n")+"\r\n")
	if strings.HasPrefix(action, "421") && !strings.HasSuffix(action, stays) {
		panic(stop{})
	}
	return action[0] == '2' || action[0] == '3'
}

func (c *peerConn) command(verb, rest string) {
	switch verb {
	case "EHLO", "HELO", "LHLO":
		if c.hello != "" && !c.secure {
			c.peer.note("%s twice", verb)
		}
		c.ehlo(verb, rest)
	case "STARTTLS":
		if c.say(event{step: "STARTTLS"}, "220 go ahead") {
			if c.r.Buffered() > 0 {
				c.peer.note("plain text after STARTTLS")
			}
			c.encrypt()
		}
	case "AUTH":
		c.authenticate(rest)
	case "*": // RFC 4954, 4
		c.say(event{step: "cancel"}, "501 5.7.0 cancelled")
	case "RSET":
		c.open = false
		c.say(event{step: "RSET"}, "250 2.0.0 reset")
	case "MAIL":
		c.mailFrom(rest)
	case "RCPT":
		c.rcptTo(rest)
	case "DATA":
		c.data()
	case "BDAT":
		if c.peer.noBDAT != "" {
			c.say(event{step: "BDAT"}, c.peer.noBDAT)
			return
		}
		c.bdat(rest)
	case "QUIT":
		c.from = ""
		c.say(event{step: "QUIT"}, "221 2.0.0 bye")
		panic(stop{})
	default:
		c.peer.note("unknown command %q", verb)
		c.say(event{step: verb}, "500 5.5.2 what?")
	}
}

func (c *peerConn) authenticate(rest string) {
	if mech, _, _ := strings.Cut(rest, " "); c.peer.refuseAuth != nil {
		reply := c.peer.refuseAuth(mech)
		_, _ = io.WriteString(c.conn, reply+"\r\n")
		return
	}
	if c.peer.prompts != nil {
		reply, answers := "535 5.7.8 no", []string(nil)
		for _, prompt := range c.peer.prompts {
			answers = append(answers, c.askAs(prompt))
		}
		if c.peer.answered(answers) {
			reply = "235 2.7.0 welcome"
		}
		_, _ = io.WriteString(c.conn, reply+"\r\n")
		return
	}
	if c.peer.script != nil || c.peer.auth == nil {
		c.say(event{step: "AUTH"}, "235 2.7.0 welcome")
		return
	}
	mech, initial, _ := strings.Cut(rest, " ")
	reply := "535 5.7.8 no"
	if c.peer.auth(mech, initial, c.ask) {
		reply = "235 2.7.0 welcome"
	}
	_, _ = io.WriteString(c.conn, reply+"\r\n")
}

// ask sends a challenge and returns the answer.
func (c *peerConn) ask(challenge string) string {
	return c.askAs(base64.StdEncoding.EncodeToString([]byte(challenge)))
}

// askAs is ask with a challenge as it is.
func (c *peerConn) askAs(challenge string) string {
	_, _ = io.WriteString(c.conn, "334 "+challenge+"\r\n")
	line, err := c.r.ReadString('\n')
	if err != nil {
		panic(stop{})
	}
	return unb64(strings.TrimSuffix(line, "\r\n"))
}

func (c *peerConn) ehlo(verb, name string) {
	if verb == "HELO" {
		if c.say(event{step: "HELO"}, "250 peer.example") {
			c.hello = name
		}
		return
	}
	lines := append([]string{"peer.example"}, c.peer.offers...)
	reply := ""
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		reply += "250" + sep + l + "|"
	}
	if c.say(event{step: "EHLO"}, strings.TrimSuffix(reply, "|")) {
		c.hello = name
	}
}

func address(s string) string {
	_, s, _ = strings.Cut(s, "<")
	s, _, _ = strings.Cut(s, ">")
	return s
}

func (c *peerConn) mailFrom(rest string) {
	if c.hello == "" {
		c.peer.note("MAIL before EHLO")
	}
	if c.open {
		c.peer.note("nested MAIL")
		c.say(event{step: "MAIL"}, "503 5.5.1 nested MAIL")
		return
	}
	for _, param := range strings.Fields(rest)[1:] {
		for name, keyword := range map[string]string{"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN"} {
			offered := func(o string) bool {
				return strings.HasPrefix(o, keyword) || name == "BODY" && o == "SMTPUTF8" // RFC 6531, 3.6
			}
			if strings.HasPrefix(param, name) && !slices.ContainsFunc(c.peer.offers, offered) {
				c.peer.note("parameter %s was not offered", param)
			}
		}
	}
	c.mail, c.chunked, c.refused = mail{from: address(rest)}, "", false
	c.open = c.say(event{step: "MAIL"}, "250 2.1.0 Ok")
}

func (c *peerConn) rcptTo(rest string) {
	rcpt := address(rest)
	if !c.open {
		c.say(event{step: "RCPT without MAIL", rcpt: rcpt}, "503 5.5.1 need MAIL")
		return
	}
	if c.say(event{step: "RCPT", rcpt: rcpt}, "250 2.1.5 Ok") {
		c.to = append(c.to, rcpt)
	}
}

func (c *peerConn) data() {
	usual := "354 go ahead"
	switch {
	case !c.open:
		usual = "503 5.5.1 need RCPT"
	case len(c.to) == 0:
		usual = "554 5.5.1 no valid recipients"
	}
	if !c.say(event{step: "DATA"}, usual) {
		return
	}
	var body strings.Builder
	for first := true; ; first = false {
		line, err := c.r.ReadString('\n')
		if err != nil {
			panic(stop{})
		}
		if !strings.HasSuffix(line, "\r\n") || strings.Count(line, "\r") > 1 {
			c.peer.note("bare LF or CR in %q", line)
		}
		if line == ".\r\n" {
			break
		}
		body.WriteString(strings.TrimPrefix(line, "."))
		if first {
			c.interrupt()
		}
	}
	c.end(body.String())
}

func (c *peerConn) bdat(rest string) {
	words := strings.Fields(rest)
	n, err := strconv.Atoi(words[0])
	if err != nil {
		panic(stop{})
	}
	chunk := make([]byte, n)
	half := n / 2
	if _, err := io.ReadFull(c.r, chunk[:half]); err != nil {
		panic(stop{})
	}
	last := len(words) == 2 && words[1] == "LAST"
	if last {
		c.interrupt()
	}
	if _, err := io.ReadFull(c.r, chunk[half:]); err != nil {
		panic(stop{})
	}
	c.chunked += string(chunk)
	c.refused = c.refused || !c.open || len(c.to) == 0
	switch {
	case c.refused:
		c.say(event{step: "chunk refused"}, "554 5.5.1 no valid recipients")
	case last:
		c.end(c.chunked)
	default:
		c.refused = !c.say(event{step: "chunk"}, "250 2.0.0 go on")
	}
}

// interrupt is the script's chance to speak before the body has ended. After that the
// peer reads no more.
func (c *peerConn) interrupt() {
	said := false
	at := event{step: "body", conn: c.number, mail: c.from}
	if c.peer.script != nil {
		said = c.peer.script(at) != ""
	}
	if said {
		c.say(at, "")
		<-c.peer.ends
		panic(stop{})
	}
}

// end takes responsibility for a message, unless the script has other plans.
func (c *peerConn) end(body string) {
	done := c.mail
	done.body = body
	if !c.peer.lmtp {
		usual := "250 2.0.0 Ok: queued as " + c.from
		if len(c.to) == 0 {
			usual = "250 2.0.0 Ok: to nobody"
		}
		if c.say(event{step: "dot"}, usual) && len(c.to) > 0 {
			c.peer.keep(done)
		}
	}
	for _, rcpt := range done.to {
		if c.peer.lmtp && c.say(event{step: "dot", rcpt: rcpt}, "250 2.0.0 Ok: "+rcpt) {
			c.peer.keep(mail{from: done.from, to: []string{rcpt}, body: body})
		}
	}
	c.open = false
}

func (p *peer) keep(m mail) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mails = append(p.mails, m)
}

// on makes a script that does one thing in one step of one sender's mail.
func on(step, sender, action string) func(event) string {
	return func(at event) string {
		if at.step == step && at.mail == sender {
			return action
		}
		return ""
	}
}

// testConfig is a Config for the peer.
func testConfig(t testing.TB, p *peer) Config {
	return Config{
		Addrs: []string{"peer.example:25"}, Hostname: "client.example", Dial: p.dial,
		Trace: func(line string) { t.Log(line) },
	}
}

func newBackend(t testing.TB, cfg Config) *Backend {
	t.Helper()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// letter returns a message whose sender says who it is.
func letter(sender string, to ...string) *mailer.EmailMessage {
	if len(to) == 0 {
		to = []string{"to@example.com"}
	}
	return &mailer.EmailMessage{
		Subject: sender, Body: "Hello\n.dot\n..dots\n", FromEmail: sender, To: to,
		MessageID: "<" + strings.ReplaceAll(sender, "ü", "u") + ">", Charset: "utf-8",
		Date: time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC),
	}
}

// letters returns messages by a@x, b@x, ...
func letters(n int) []*mailer.EmailMessage {
	var all []*mailer.EmailMessage
	for i := range n {
		all = append(all, letter(string(rune('a'+i))+"@x"))
	}
	return all
}

// each makes a Batch.Report of a function that takes one result.
func each(report func(i int, r mailer.Result)) func([]mailer.Report) {
	return func(group []mailer.Report) {
		for _, r := range group {
			report(r.Index, r.Result)
		}
	}
}

// sendAll sends and returns the results, having checked that each came once.
func sendAll(t *testing.T, b *Backend, messages []*mailer.EmailMessage) []mailer.Result {
	t.Helper()
	results := make([]mailer.Result, len(messages))
	seen := make([]bool, len(messages))
	b.SendBatch(t.Context(), mailer.Batch{Messages: messages, Report: each(func(i int, r mailer.Result) {
		if seen[i] {
			t.Errorf("message %d was reported twice", i)
		}
		results[i], seen[i] = r, true
	})})
	for i, s := range seen {
		if !s {
			t.Errorf("message %d was not reported", i)
		}
	}
	return results
}

// fates puts results in one word each.
func fates(results []mailer.Result) string {
	var words []string
	for _, r := range results {
		switch {
		case r.Skipped:
			words = append(words, "skipped")
		case r.Err != nil:
			words = append(words, mailer.ClassOf(r.Err).String())
		case len(r.Refused) > 0:
			words = append(words, "partly")
		default:
			words = append(words, "sent")
		}
	}
	return strings.Join(words, " ")
}
