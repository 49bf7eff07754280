package settings

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Validate checks settings that a program has changed after Load. The error, if not
// nil, is a Problems.
func (s Settings) Validate() error {
	var problems Problems
	s.check(&problems)
	return problems.err()
}

// check adds to the problems that are already known: those of variables that could not
// be read, and have their defaults here.
func (s Settings) check(problems *Problems) {
	for _, f := range fields(&s) {
		f.check(problems)
	}
	s.checkDelivery(problems)
	s.checkMessage(problems)
	s.checkSMTP(problems)
	s.checkQueues(problems)
	s.checkTimes(problems)
}

func (s Settings) checkDelivery(p *Problems) {
	if s.Worker.Backend == "queue" {
		p.add("EMAIL_QUEUE_BACKEND", "a worker cannot deliver into the queue that it takes mail from; name another backend, such as smtp")
	}
	filebased := slices.Contains([]string{s.Delivery.Backend, s.Worker.Backend}, "filebased")
	if filebased && s.Delivery.FilePath == "" {
		p.add("EMAIL_FILE_PATH", "the filebased backend needs a directory here")
	}
}

func (s Settings) checkMessage(p *Problems) {
	for _, sender := range []struct{ name, address string }{
		{"DEFAULT_FROM_EMAIL", s.Message.DefaultFrom},
		{"SERVER_EMAIL", s.Message.ServerEmail},
	} {
		if p.concern(sender.name) {
			continue
		}
		if err := checkAddress(sender.address); err != nil {
			p.add(sender.name, "%v", err)
		}
	}
	host := s.Message.Hostname
	if host != "" && !p.concern("EMAIL_HOSTNAME") && !isHostname(host) && !isAddressLiteral(host) {
		p.add("EMAIL_HOSTNAME", "%q is neither a host name nor an address literal, such as [192.0.2.1]", host)
	}
}

// isAddressLiteral accepts what may stand in EHLO for a machine without a name (RFC
// 5321, 4.1.3).
func isAddressLiteral(s string) bool {
	inner, ok := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !ok || !closed {
		return false
	}
	six, isSix := strings.CutPrefix(inner, "IPv6:")
	addr, err := netip.ParseAddr(six)
	return err == nil && addr.Zone() == "" && addr.Is4() != isSix
}

func (s Settings) checkSMTP(p *Problems) {
	c := s.SMTP
	for _, host := range c.Hosts {
		if err := checkHost(host); err != nil && !p.concern("EMAIL_HOST") {
			p.add("EMAIL_HOST", "%v", err)
		}
	}
	if c.UseTLS && c.UseSSL {
		p.add("EMAIL_USE_TLS", "excludes EMAIL_USE_SSL: set the one that the server wants, most often EMAIL_USE_TLS on port 587 or EMAIL_USE_SSL on port 465")
	}
	switch {
	case c.CertFile != "" && c.KeyFile == "":
		p.add("EMAIL_SSL_KEYFILE", "the certificate in EMAIL_SSL_CERTFILE needs its key here")
	case c.CertFile == "" && c.KeyFile != "":
		p.add("EMAIL_SSL_CERTFILE", "the key in EMAIL_SSL_KEYFILE needs its certificate here")
	}
	if s.Delivery.Backend != "queue" {
		c.checkFiles(p)
	}
}

// checkFiles reports the files of keys and certificates that cannot be read.
func (c SMTP) checkFiles(p *Problems) {
	for _, file := range []struct{ name, path string }{
		{"EMAIL_SSL_CERTFILE", c.CertFile},
		{"EMAIL_SSL_KEYFILE", c.KeyFile},
		{"EMAIL_SSL_CAFILE", c.CAFile},
	} {
		if file.path == "" || p.concern(file.name) {
			continue
		}
		if err := readable(file.path); err != nil {
			p.add(file.name, "cannot be read: %v", err)
		}
	}
}

// readable reads one octet: a directory can be opened, but not read.
func readable(path string) error {
	f, err := os.Open(path) //nolint:gosec // the administrator names the file
	if err != nil {
		return err
	}
	_, err = f.Read(make([]byte, 1))
	if closeErr := f.Close(); err == nil || errors.Is(err, io.EOF) {
		return closeErr
	}
	return err
}

func (s Settings) checkQueues(p *Problems) {
	if !p.concern("EMAIL_QUEUE") {
		if err := checkQueueName(s.Queue.Name); err != nil {
			p.add("EMAIL_QUEUE", "%v", err)
		}
	}
	if len(s.Worker.Queues) == 0 && !p.concern("EMAIL_QUEUES") {
		p.add("EMAIL_QUEUES", "names no queue")
	}
}

// checkTimes holds the order of the times: each has to leave room for what happens
// inside it, or the outer one cuts the inner one off in the middle of a message.
func (s Settings) checkTimes(p *Problems) {
	command, batch := time.Duration(s.SMTP.Timeout), s.Worker.BatchTimeout
	less := func(small string, a time.Duration, large string, b time.Duration) {
		if a >= b && !p.concern(small, large) {
			p.add(large, "%s has to be longer than %s, which is %s", showDuration(b), small, showDuration(a))
		}
	}
	less("EMAIL_TIMEOUT", command, "EMAIL_BATCH_TIMEOUT", batch)
	less("EMAIL_BATCH_TIMEOUT", batch, "EMAIL_SHUTDOWN_TIMEOUT", s.Worker.ShutdownTimeout)
	if s.SMTP.DataTimeout < command && !p.concern("EMAIL_TIMEOUT", "EMAIL_DATA_TIMEOUT") {
		p.add("EMAIL_DATA_TIMEOUT", "%s cannot be shorter than EMAIL_TIMEOUT, which is %s", showDuration(s.SMTP.DataTimeout), showDuration(command))
	}
	// A message waits for one batch to end, rides in the next, and may be the last
	// of it, whose reply is waited for whatever the batch's time.
	task := 2*batch + s.SMTP.DataTimeout
	if s.Queue.TaskTimeout < task && !p.concern("EMAIL_TASK_TIMEOUT", "EMAIL_BATCH_TIMEOUT", "EMAIL_DATA_TIMEOUT") {
		p.add("EMAIL_TASK_TIMEOUT", "%s has to be at least EMAIL_DATA_TIMEOUT and twice EMAIL_BATCH_TIMEOUT, together %s", showDuration(s.Queue.TaskTimeout), showDuration(task))
	}
	if s.Worker.RetryMin > s.Worker.RetryMax && !p.concern("EMAIL_RETRY_MIN", "EMAIL_RETRY_MAX") {
		p.add("EMAIL_RETRY_MIN", "%s cannot be longer than EMAIL_RETRY_MAX, which is %s", showDuration(s.Worker.RetryMin), showDuration(s.Worker.RetryMax))
	}
}

// hasControl refuses what could end a header field or an SMTP command, or is no text.
func hasControl(text string) bool {
	return !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl)
}
