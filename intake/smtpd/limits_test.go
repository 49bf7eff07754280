package smtpd_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/intake/smtpd"
)

// counts is what Hooks were told.
type counts struct {
	mu       sync.Mutex
	open     int
	away     []smtpd.Reason
	logins   []bool
	messages []int
}

func (n *counts) hooks() smtpd.Hooks {
	note := func(do func()) {
		n.mu.Lock()
		defer n.mu.Unlock()
		do()
	}
	return smtpd.Hooks{
		Opened:     func() { note(func() { n.open++ }) },
		Closed:     func() { note(func() { n.open-- }) },
		TurnedAway: func(reason smtpd.Reason) { note(func() { n.away = append(n.away, reason) }) },
		Login:      func(ok bool) { note(func() { n.logins = append(n.logins, ok) }) },
		Message:    func(code, _ int, _ time.Duration) { note(func() { n.messages = append(n.messages, code) }) },
	}
}

func (n *counts) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprint(n.open, n.away, n.logins, n.messages)
}

// until waits until the hooks were told that, since a client may know first.
func (n *counts) until(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); n.String() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("hooks were told %s, want %s", n, want)
		}
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	n := &counts{}
	cfg := trusting()
	cfg.MaxConnections, cfg.Hooks = 2, n.hooks()
	s := serve(t, &desk{}, cfg)
	first := dial(t, s)
	dial(t, s)
	c := dialAddr(t, s.Addrs()[0])
	c.expect("421 4.7.0")
	c.expect("")
	first.talk("> QUIT\n221\nhangs up")
	n.until(t, "1 [connections] [] []")
	dial(t, s)
}

func TestConnections_perAddress(t *testing.T) {
	t.Parallel()
	n := &counts{}
	_, _, config := certificate(t)
	s := serve(t, &desk{}, smtpd.Config{TLS: config, MaxPerAddress: 1, Hooks: n.hooks()})
	first := dial(t, s)
	dialAddr(t, s.Addrs()[0]).expect("421 4.7.0")
	first.talk("> QUIT\n221\nhangs up")
	n.until(t, "0 [address] [] []")
	dial(t, s)

	cfg := trusting()
	cfg.MaxPerAddress = 1
	s = serve(t, &desk{}, cfg)
	dial(t, s)
	dial(t, s) // who is trusted is not counted
}

func TestCommands(t *testing.T) {
	t.Parallel()
	n := &counts{}
	_, _, config := certificate(t)
	c := dial(t, serve(t, &desk{}, smtpd.Config{TLS: config, MaxCommands: 3, Hooks: n.hooks()}))
	c.talk("> EHLO client\n250\n> NOOP\n250\n> NOOP\n250\n> NOOP\n421 4.7.0\nhangs up")
	n.until(t, "0 [commands] [] []")
	cfg := trusting()
	cfg.MaxCommands = 3
	c = dial(t, serve(t, &desk{}, cfg))
	c.talk("> EHLO client\n250\n> NOOP\n250\n> NOOP\n250\n> NOOP\n250")
}

func TestErrors(t *testing.T) {
	t.Parallel()
	n := &counts{}
	cfg := trusting()
	cfg.MaxErrors, cfg.Hooks = 3, n.hooks()
	c := dial(t, serve(t, &desk{}, cfg))
	c.talk("> EHLO client\n250\n> FOO\n500\n> FOO\n500")
	c.begin()
	c.send(message + ".\r\n")
	c.expect("250") // and the errors before are forgotten
	c.talk("> FOO\n500\n> FOO\n500\n> FOO\n500\n421 4.7.0\nhangs up")
	n.until(t, "0 [errors] [] [250]")
}

func TestRecipients(t *testing.T) {
	t.Parallel()
	d := &desk{}
	cfg := trusting()
	cfg.MaxRecipients = 100
	c := dial(t, serve(t, d, cfg))
	c.talk("> EHLO client\n250\n> MAIL FROM:<ann@example.com>\n250")
	for i := range 100 {
		c.talk(fmt.Sprintf("> RCPT TO:<bob%d@example.org>\n250", i))
	}
	for range 2 * 20 { // they are no errors, for the client will send to them later
		c.talk("> RCPT TO:<bob100@example.org>\n452 4.5.3")
	}
	c.talk("> DATA\n354")
	c.send(message + ".\r\n")
	c.expect("250")
	if n := len(d.one(t).message.To); n != 100 {
		t.Errorf("%d recipients", n)
	}
}

// A message that is too big is read to its end, and the conversation goes on.
func TestSize(t *testing.T) {
	t.Parallel()
	n, d := &counts{}, &desk{}
	cfg := trusting()
	cfg.MaxMessageSize, cfg.Hooks = 10_000, n.hooks()
	c := dial(t, serve(t, d, cfg))
	const head = "Subject: x\r\n\r\n"
	body := func(size int) string {
		return head + strings.Repeat(strings.Repeat("x", 98)+"\r\n", size/100)[len(head):]
	}
	c.begin()
	c.send(body(10_000) + ".\r\n")
	c.expect("250")
	c.begin()
	c.send(body(10_100) + ".\r\n")
	c.expect("552 5.3.4")
	c.talk("> MAIL FROM:<ann@example.com>\n250\n> RCPT TO:<bob@example.org>\n250")
	c.send("BDAT 10000\r\n" + body(10_000))
	c.expect("250")
	c.send("BDAT 1\r\nx")
	c.expect("552 5.3.4")
	c.send("BDAT 2 LAST\r\n\r\n")
	c.expect("503")
	c.talk("> NOOP\n250\n> QUIT\n221\nhangs up")
	if got := len(d.one(t).raw()); got != 10_000 {
		t.Errorf("%d bytes", got)
	}
	n.until(t, "0 [] [] [250 552 552]")
}

// Messages that are being received take no more memory together than they may.
func TestBytes(t *testing.T) {
	t.Parallel()
	cfg := trusting()
	cfg.MaxMessageSize, cfg.MaxBytes = 100_000, 128<<10
	s := serve(t, &desk{}, cfg)
	big := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 98)+"\r\n", 900)
	first, second := dial(t, s), dial(t, s)
	first.talk("> EHLO client\n250\n> MAIL FROM:<ann@example.com>\n250\n> RCPT TO:<bob@example.org>\n250")
	first.send(fmt.Sprintf("BDAT %d\r\n%s", len(big), big))
	first.expect("250") // the server holds it
	second.begin()
	second.send(big + ".\r\n")
	second.expect("452 4.3.1")
	first.send("BDAT 0 LAST\r\n")
	first.expect("250")
	second.begin()
	second.send(big + ".\r\n")
	second.expect("250")
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	_, _, config := certificate(t)
	for _, tt := range []struct {
		name string
		set  func(cfg *smtpd.Config, limit time.Duration)
		data bool
	}{
		{"idle", func(cfg *smtpd.Config, limit time.Duration) { cfg.Timeout = limit }, false},
		{"in a message", func(cfg *smtpd.Config, limit time.Duration) { cfg.Timeout = limit }, true},
		{"before the login", func(cfg *smtpd.Config, limit time.Duration) {
			cfg.Networks, cfg.TLS, cfg.LoginTimeout = nil, config, limit
		}, false},
		{"a whole message", func(cfg *smtpd.Config, limit time.Duration) { cfg.MessageTimeout = limit }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limit := 50 * time.Millisecond
			for !timesOut(t, tt.data, func(cfg *smtpd.Config) { tt.set(cfg, limit) }) {
				limit *= 2 // the machine is too busy
			}
		})
	}
}

// timesOut waits for a server to end a conversation, in the middle of a message if data is set. It is false if it ended before that.
func timesOut(t *testing.T, data bool, set func(cfg *smtpd.Config)) bool {
	t.Helper()
	n, d, cfg := &counts{}, &desk{}, trusting()
	cfg.Hooks = n.hooks()
	set(&cfg)
	c := dial(t, serve(t, d, cfg))
	if data {
		c.send("EHLO client\r\nMAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: x\r\n")
		for _, want := range []string{"250", "250", "250", "354"} {
			if got := c.reply(); strings.HasPrefix(got, "421") {
				return false
			} else if !strings.HasPrefix(got, want) {
				t.Fatalf("reply %q, want %q", got, want)
			}
		}
	}
	c.expect("421 4.4.2")
	c.expect("")
	n.until(t, "0 [timeout] [] []")
	if len(d.taken()) > 0 {
		t.Error("half a message was taken")
	}
	return true
}

// Half a message is none, whenever the client hangs up.
func TestHangUp(t *testing.T) {
	t.Parallel()
	n, d := &counts{}, &desk{}
	cfg := trusting()
	cfg.Hooks = n.hooks()
	s := serve(t, d, cfg)
	for _, half := range []string{"", "DATA\r\nSubject: x\r\n", "DATA\r\nSubject: x\r\n.", "DATA\r\nSubject: x\r\n.\r", "BDAT 12\r\nSubject: x\r\n", "BDAT 12 LAST\r\nSubject: x\r"} {
		c := dial(t, s)
		c.send("EHLO client\r\nMAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.org>\r\n" + half)
		for range 3 {
			c.expect("250")
		}
		_ = c.conn.Close()
	}
	n.until(t, "0 [] [] []")
	if len(d.taken()) > 0 {
		t.Errorf("taken: %q", d.taken()[0].message.Raw)
	}
}

func TestStart_refused(t *testing.T) {
	t.Parallel()
	tcp := []smtpd.Listener{{Network: "tcp", Address: "127.0.0.1:0"}}
	for want, cfg := range map[string]smtpd.Config{
		"nothing to listen on": {},
		"no host name":         {Listeners: tcp, Networks: local(), Hostname: "a b"},
		"nobody can hand in":   {Listeners: tcp, TrustSockets: true},
		"takes a certificate":  {Listeners: []smtpd.Listener{{Network: "tcp", Address: "127.0.0.1:0", ImplicitTLS: true}}, Networks: local()},
		"too few":              {Listeners: tcp, Networks: local(), MaxRecipients: 99},
		"less than one":        {Listeners: tcp, Networks: local(), MaxBytes: 1},
		"smtp+unix:///":        {Listeners: append(tcp, smtpd.Listener{Network: "unix", Address: "/nowhere/at/all"}), Networks: local(), TrustSockets: true},
	} {
		s, err := smtpd.Start(&desk{}, cfg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start(%+v) = %v, %v, want %q", cfg, s, err, want)
		}
	}
}

// A socket that nobody listens on is replaced, and one of a server that runs is not.
func TestSocket(t *testing.T) {
	t.Parallel()
	path := socket(t)
	cfg := smtpd.Config{TrustSockets: true, Listeners: []smtpd.Listener{{Network: "unix", Address: path}}}
	s := serve(t, &desk{}, cfg)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	if _, err := smtpd.Start(&desk{}, cfg); err == nil {
		t.Fatal("a second server took the socket")
	}
	dial(t, s)
	abandon(t, path+"2")
	cfg.Listeners = []smtpd.Listener{{Network: "unix", Address: path + "2", Mode: 0o600}}
	dial(t, serve(t, &desk{}, cfg))
	if info, err := os.Stat(path + "2"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path+"3", []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Listeners[0].Address = path + "3"
	if _, err := smtpd.Start(&desk{}, cfg); err == nil {
		t.Error("a file was replaced")
	}
}

// Trust is by address.
func TestNetworks(t *testing.T) {
	t.Parallel()
	_, _, config := certificate(t)
	cfg := smtpd.Config{TLS: config, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	dial(t, serve(t, &desk{}, cfg)).talk("> EHLO client\n250\n> MAIL FROM:<ann@example.com>\n530")
	cfg.Listeners = []smtpd.Listener{{Network: "tcp", Address: "[::]:0"}} // clients come as ::ffff:127.0.0.1
	cfg.Networks = local()
	s := serve(t, &desk{}, cfg)
	_, port, _ := strings.Cut(s.Addrs()[0].String(), "]:")
	c := dialAddr(t, addr("127.0.0.1:"+port))
	c.expect("220")
	c.talk("> EHLO client\n250\n> MAIL FROM:<ann@example.com>\n250")
}

type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }
