package harness

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// MailServer takes the mails.
type MailServer interface {
	// Addr is where it listens.
	Addr() string
	// Taken is how many mails it has taken so far.
	Taken() int
	// CPU is the processor time that it has used so far.
	CPU(b *Bench) time.Duration
}

// SMTPSink is Postfix's smtp-sink: a mail server that was not written for this project. It
// takes everything, offers PIPELINING and no CHUNKING, and is a process of its own.
type SMTPSink struct {
	addr    string
	process *Process
	counts  *os.File // what it says: "sess=1 quit=0 mesg=7\r" with each mail
}

// StartSMTPSink starts it. The measurement is skipped where it is not installed.
func StartSMTPSink(b *Bench) *SMTPSink {
	b.Helper()
	path := FindPostfix(b, "smtp-sink")
	counts, err := os.CreateTemp(b.TempDir(), "counts")
	b.Check(err)
	b.Cleanup(func() { _ = counts.Close() })
	s := &SMTPSink{addr: testserver.FreeAddr(b), counts: counts}
	cmd := exec.Command(path, "-c", s.addr, "1024") //nolint:gosec // the program that was found
	withoutRoot(cmd)                                // it does not want to be root
	s.process = start(b, cmd, counts)
	s.process.Listens(b, s.addr)
	return s
}

// Addr is where it listens.
func (s *SMTPSink) Addr() string { return s.addr }

// CPU is the processor time of its process.
func (s *SMTPSink) CPU(b *Bench) time.Duration { return s.process.CPU(b) }

// Taken reads the last count that it has written whole.
func (s *SMTPSink) Taken() int {
	info, err := s.counts.Stat()
	if err != nil {
		return 0
	}
	const enough = 128 // bytes for a count
	tail := make([]byte, min(info.Size(), enough))
	if _, err := s.counts.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		return 0
	}
	return lastCount(string(tail))
}

// lastCount reads 7 from "…sess=1 quit=0 mesg=7\rsess=1 qu".
func lastCount(said string) int {
	whole := said[:strings.LastIndexByte(said, '\r')+1]
	_, number, _ := strings.Cut(whole[max(strings.LastIndex(whole, "mesg="), 0):], "=")
	n, err := strconv.Atoi(strings.TrimRight(number, "\r\n"))
	if err != nil {
		return 0
	}
	return n
}

// FindPostfix finds a program that comes with Postfix. The measurement is skipped where it
// is not installed.
func FindPostfix(b *Bench, name string) string {
	b.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	b.Skipf("%s is not installed (Debian: apt-get install postfix)", name)
	return ""
}
