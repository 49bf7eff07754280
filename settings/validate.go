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
	s.checkNames(problems)
	s.checkMessage(problems)
	s.checkQueues(problems)
	s.HTTP.check(problems)
	for _, m := range s.mailers() {
		m.checkOwn(problems)
		m.checkDelivery(problems)
		m.checkSMTP(problems)
		m.checkTimes(problems)
		if s.Delivery.Backend != queueName {
			m.checkHost(problems)
			m.SMTP.checkFiles(problems, m.variable)
		}
	}
}

// queueName is the backend of a program that leaves its mail to a worker. It has no
// need of the mailers' servers and files, which are checked only by way of warning:
// one environment serves the worker too.
const queueName = "queue"

// checkOwn checks each value of a mailer that is not the default one. What it has from
// that is checked there.
func (s Settings) checkOwn(p *Problems) {
	if s.Using == "" {
		return
	}
	for _, f := range s.readable() {
		if s.variable(f.key) == f.name && !p.concern(f.name) {
			f.check(p)
		}
	}
}

func (s Settings) checkDelivery(p *Problems) {
	if s.Worker.Backend == queueName {
		name := queueBackendVariable
		if s.Using != "" {
			name = s.variable(backendVariable)
		}
		p.add(name, "a worker cannot deliver into the queue that it takes mail from; name another backend, such as smtp")
	}
	filebased := slices.Contains([]string{s.Delivery.Backend, s.Worker.Backend}, "filebased")
	if filebased && s.Delivery.FilePath == "" {
		p.add(s.variable("EMAIL_FILE_PATH"), "the filebased backend needs a directory here")
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
	c, v := s.SMTP, s.variable
	for _, host := range c.Hosts {
		if err := checkHost(host); err != nil && !p.concern(v("EMAIL_HOST")) {
			p.add(v("EMAIL_HOST"), "%v", err)
		}
	}
	if c.UseTLS && c.UseSSL {
		p.add(v("EMAIL_USE_TLS"), "excludes %[1]s: set the one that the server wants, most often %[2]s on port 587 or %[1]s on port 465", v("EMAIL_USE_SSL"), v("EMAIL_USE_TLS"))
	}
	switch {
	case c.CertFile != "" && c.KeyFile == "":
		p.add(v("EMAIL_SSL_KEYFILE"), "the certificate in %s needs its key here", v("EMAIL_SSL_CERTFILE"))
	case c.CertFile == "" && c.KeyFile != "":
		p.add(v("EMAIL_SSL_CERTFILE"), "the key in %s needs its certificate here", v("EMAIL_SSL_KEYFILE"))
	}
}

// checkFiles reports the files of keys and certificates that cannot be read.
func (c SMTP) checkFiles(p *Problems, variable func(string) string) {
	for _, file := range []struct{ name, path string }{
		{variable("EMAIL_SSL_CERTFILE"), c.CertFile},
		{variable("EMAIL_SSL_KEYFILE"), c.KeyFile},
		{variable("EMAIL_SSL_CAFILE"), c.CAFile},
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
	timeout, dataTimeout := s.variable("EMAIL_TIMEOUT"), s.variable("EMAIL_DATA_TIMEOUT")
	less(timeout, command, "EMAIL_BATCH_TIMEOUT", batch)
	less("EMAIL_BATCH_TIMEOUT", batch, "EMAIL_SHUTDOWN_TIMEOUT", s.Worker.ShutdownTimeout)
	if s.SMTP.DataTimeout < command && !p.concern(timeout, dataTimeout) {
		p.add(dataTimeout, "%s cannot be shorter than %s, which is %s", showDuration(s.SMTP.DataTimeout), timeout, showDuration(command))
	}
	// A message waits for one batch to end, rides in the next, and may be the last
	// of it, whose reply is waited for whatever the batch's time.
	task := 2*batch + s.SMTP.DataTimeout
	if s.Queue.TaskTimeout < task && !p.concern("EMAIL_TASK_TIMEOUT", "EMAIL_BATCH_TIMEOUT", dataTimeout) {
		p.add("EMAIL_TASK_TIMEOUT", "%s has to be at least %s and twice EMAIL_BATCH_TIMEOUT, together %s", showDuration(s.Queue.TaskTimeout), dataTimeout, showDuration(task))
	}
	if s.Worker.RetryMin > s.Worker.RetryMax && !p.concern("EMAIL_RETRY_MIN", "EMAIL_RETRY_MAX") {
		p.add("EMAIL_RETRY_MIN", "%s cannot be longer than EMAIL_RETRY_MAX, which is %s", showDuration(s.Worker.RetryMin), showDuration(s.Worker.RetryMax))
	}
}

// hasControl refuses what could end a header field or an SMTP command, or is no text.
func hasControl(text string) bool {
	return !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl)
}
