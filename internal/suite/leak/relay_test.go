package leak

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// relay is a mail server that repeats what it should not. What it does with a message its
// first recipient says: ok.subject.x@example.com is accepted with the subject in the reply,
// never.login.x@... refused with the password, and rcpt.login.x@... already at RCPT.
type relay struct {
	refuseLogin bool
	listener    net.Listener
	serving     sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func startRelay(t *testing.T, refuseLogin bool) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{refuseLogin: refuseLogin, listener: l}
	r.serving.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		r.serving.Wait()
	})
	return r
}

// env is how a worker finds the relay.
func (r *relay) env() []string {
	host, port, _ := net.SplitHostPort(r.listener.Addr().String())
	return []string{"EMAIL_HOST=" + host, "EMAIL_PORT=" + port, "EMAIL_HOST_USER=shop", "EMAIL_HOST_PASSWORD=" + string(password)}
}

func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns = append(r.conns, c)
		r.mu.Unlock()
		r.serving.Go(func() {
			defer func() { _ = c.Close() }()
			r.serve(c)
		})
	}
}

// encodedPassword is what a careless server writes into its reply.
func encodedPassword() string {
	return base64.StdEncoding.EncodeToString([]byte("\x00shop\x00"+string(password))) + " " +
		base64.StdEncoding.EncodeToString([]byte(password)) + " " + string(password)
}

func (r *relay) serve(c net.Conn) {
	in := bufio.NewReader(c)
	say := func(line string) { _, _ = fmt.Fprintf(c, "%s\r\n", line) }
	say("220 relay.example.com ESMTP")
	verdict, repeat, to := "", "", ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case "EHLO":
			say("250-relay.example.com\r\n250-8BITMIME\r\n250 AUTH PLAIN")
		case "AUTH":
			if r.refuseLogin {
				say("535 5.7.8 no such login: " + line + " " + encodedPassword())
				continue
			}
			say("235 2.7.0 welcome " + encodedPassword())
		case "MAIL":
			verdict = ""
			say("250 2.1.0 Ok")
		case "RCPT":
			addr := line[strings.IndexByte(line, '<')+1 : strings.LastIndexByte(line, '>')]
			if words := strings.Split(addr, "."); verdict == "" && len(words) > 2 {
				verdict, repeat, to = words[0], words[1], addr
			}
			if verdict == "rcpt" && addr == to {
				say("550 5.1.1 <" + addr + ">: unknown: " + repeated(repeat, "", addr))
				continue
			}
			say("250 2.1.5 Ok")
		case "DATA":
			say("354 go ahead")
			data := readData(in)
			codes := map[string]string{"ok": "250 2.0.0 Ok: ", "later": "451 4.7.1 not now: ", "never": "550 5.7.1 never: ", "rcpt": "250 2.0.0 Ok: "}
			say(codes[verdict] + repeated(repeat, data, to))
		case "QUIT":
			say("221 2.0.0 bye")
			return
		default:
			say("250 2.0.0 Ok")
		}
	}
}

func readData(in *bufio.Reader) string {
	var data strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == ".\r\n" {
			return data.String()
		}
		data.WriteString(line)
	}
}

// repeats are what there is to repeat.
func repeats() []string {
	return []string{"subject", "encodedsubject", "body", "html", "header", "name", "bytes", "wire", "raw", "login", "address"}
}

// repeated is what a filter might quote, read by itself or as it was sent.
func repeated(what, data, to string) string {
	switch what {
	case "subject":
		return "the subject '" + subjectText() + "' is on a list of subjects"
	case "encodedsubject":
		_, rest, _ := strings.Cut(data, "\r\nSubject: ")
		line, _, _ := strings.Cut(rest, "\r\nDate:")
		return "the subject " + strings.ReplaceAll(line, "\r\n ", " ") + " is on a list of subjects, which is kept at https://relay.example.com/"
	case "body":
		return "it says " + bodyText() + " which is bad"
	case "html":
		return "it says " + htmlText() + " which is bad"
	case "header":
		return "X-Code: " + headerText()
	case "name":
		return "attachments such as " + fileText() + " are refused"
	case "bytes":
		return "a file has " + bytesText() + " in it"
	case "wire": // its last lines: an attachment in base64
		lines := strings.Split(strings.TrimSpace(data), "\r\n")
		return "refused because of these lines " + strings.Join(lines[max(len(lines)-4, 0):], " ")
	case "raw":
		return "X-Raw: " + rawHeaderText() + ", and " + rawBodyText()
	case "login":
		return "you are " + encodedPassword()
	case "address":
		return "<" + to + "> and " + strings.ReplaceAll(to, "@", "%40") + " and " + string(blindCopy) + "@example.org, see https://relay.example.com/?id=" + string(author) + "%40example.com"
	}
	return "nothing"
}
