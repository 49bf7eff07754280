package rules

import (
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a mail server that keeps what it takes, and answers to recipients as it is told.
type server struct {
	smtp *gosmtp.Server
	addr string

	mu    sync.Mutex
	mails []mail
	asked []string // all recipients in RCPT, taken or not
	rcpt  func(to string) *gosmtp.SMTPError
	data  func(n int) *gosmtp.SMTPError // of the nth message, from 1
	heard int                           // messages read whole
}

// mail is a message that was read whole.
type mail struct {
	from  string
	to    []string
	data  string
	taken bool
}

func (m mail) fields(name string) (values []string) {
	header, _, _ := strings.Cut(m.data, "\r\n\r\n")
	for line := range strings.SplitSeq(header, "\r\n") {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			values = append(values, value)
		}
	}
	return values
}

func startServer(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	s.smtp = gosmtp.NewServer(s)
	s.smtp.Domain, s.smtp.ErrorLog = "mx.example.com", quiet{}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.smtp.Serve(l) }()
	t.Cleanup(func() {
		_ = s.smtp.Close()
		<-served
	})
	return s
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// all is what was read whole.
func (s *server) all() []mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// taken is what was accepted.
func (s *server) taken() []mail {
	return slices.DeleteFunc(s.all(), func(m mail) bool { return !m.taken })
}

// wasAsked are all recipients that anybody has named, without repetitions.
func (s *server) wasAsked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(s.asked)))
}

func (s *server) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &session{server: s}, nil }

type session struct {
	server *server
	mail   mail
}

func (s *session) Mail(from string, _ *gosmtp.MailOptions) error {
	s.mail = mail{from: from}
	return nil
}

func (s *session) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.asked = append(s.server.asked, to)
	if s.server.rcpt != nil {
		if no := s.server.rcpt(to); no != nil {
			return no
		}
	}
	s.mail.to = append(s.mail.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.heard++
	m := s.mail
	m.data, m.taken = string(data), true
	var no *gosmtp.SMTPError
	if s.server.data != nil {
		no = s.server.data(s.server.heard)
	}
	m.taken = no == nil
	s.server.mails = append(s.server.mails, m)
	if no != nil {
		return no
	}
	return nil
}

func (s *session) Reset()        { s.mail = mail{} }
func (s *session) Logout() error { return nil }

func reply(code int, enhanced gosmtp.EnhancedCode, text string) *gosmtp.SMTPError {
	return &gosmtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
}
