package smtpd_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/intake/smtpd"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// site is a server with a Redis and a worker behind it, which delivers to a mail server that keeps what it gets.
type site struct {
	t      *testing.T
	redis  *redistest.Server
	queue  *tasks.Queue
	server *smtpd.Server
	relay  *catcher.Server
	caFile string
	secret string // of a key that may be from example.com and choose tags
}

// newSite starts a site. The server takes mail with the key over TLS, and from networks that cfg trusts.
func newSite(t *testing.T, opts redistest.Options, cfg smtpd.Config) *site {
	t.Helper()
	_, ca, config := certificate(t)
	relay, err := catcher.Start(catcher.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	s := &site{t: t, redis: redistest.Start(t, opts), relay: relay, caFile: ca.CAFile()}
	client := s.redis.Client(t)
	s.queue = tasks.NewQueue(client, tasks.QueueConfig{})
	key, secret := intake.NewKey("shop")
	hash, _ := key.Hash.MarshalText()
	keys, err := intake.ReadKeys(strings.NewReader(fmt.Sprintf(`{"name":"shop","hash":%q,"from":["example.com"],"choices":["tags"]}`, hash)))
	if err != nil {
		t.Fatal(err)
	}
	s.secret = secret
	cfg.TLS, cfg.Hostname = config, "mx.example.com"
	s.server = serve(t, intake.New(client, s.queue, keys), cfg)
	return s
}

// port is that of the first listener.
func (s *site) port() string {
	_, port, _ := net.SplitHostPort(s.server.Addrs()[0].String())
	return port
}

// work starts a worker.
func (s *site) work() {
	s.t.Helper()
	log := zerolog.Nop()
	w, err := tasks.NewWorker(s.redis.Client(s.t), tasks.WorkerConfig{Logger: &log, Connect: func(string) (mailer.Backend, error) {
		return smtp.New(smtp.Config{Addrs: []string{s.relay.Addr()}})
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := w.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	})
	s.t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
}

// delivered waits until the relay has n messages, and returns them in the order of their Message-IDs.
func (s *site) delivered(n int) []catcher.Message {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 4*testserver.Timeout)
	defer cancel()
	if err := s.relay.Wait(ctx, n); err != nil {
		s.t.Fatal(err)
	}
	all := s.relay.Messages()
	if len(all) != n {
		s.t.Fatalf("%d messages were delivered, want %d", len(all), n)
	}
	return all
}

// checkDelivered checks that a message was delivered as it was handed in, with nothing but a Received field in front.
func (s *site) checkDelivered(m catcher.Message, raw string) {
	s.t.Helper()
	field, rest := cutReceived(string(m.Raw))
	if !strings.HasPrefix(field, "Received: from ") || !strings.Contains(field, "by mx.example.com (Mailpouch) with ") {
		s.t.Errorf("field %q", field)
	}
	if rest != raw {
		at := len(raw)
		for i := range min(len(raw), len(rest)) {
			if raw[i] != rest[i] {
				at = i
				break
			}
		}
		s.t.Errorf("delivered %d bytes, handed in %d; from byte %d on %.60q, want %.60q", len(rest), len(raw), at, rest[min(at, len(rest)):], raw[at:])
	}
}

// everything is a message with much in it that programs on its way like to change.
func everything() string {
	var b bytes.Buffer
	b.WriteString("DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=x;\r\n\th=from:to:subject;  bh=abc=;\r\n b=def=\r\n" +
		"From: Ann <ann@example.com>\r\nTo:   bob@example.org ,eve@example.org\r\nSubject: a  b\tc   \r\n\t folded\r\n" +
		"Date: Fri, 27 Nov 2026 06:00:00 +0000\r\nMessage-ID: <everything@example.com>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nX-Empty:\r\n\r\n" +
		".\r\n..\r\n. \r\nFrom here on\r\n\r\n\ttabs and trailing blanks \t \r\nGrüße, Ω\r\n" + strings.Repeat("x", 990) + "\r\n")
	for i := range 500 {
		fmt.Fprintf(&b, "%d %s\r\n", i, strings.Repeat(".", i%70))
	}
	b.WriteString("\r\n\r\n.\r\n\r\n")
	return b.String()
}
