package smtpd

import (
	"context"
	"crypto/rand"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/mailer"
)

// envelope is who a message is from and who gets it (RFC 5321, 2.3.1).
type envelope struct {
	from string // "" is the null sender
	to   []string
}

// origin is where a message has come from.
type origin struct {
	key      *intake.Key // nil for a trusted client without one
	helo     string
	addr     netip.Addr
	protocol string
}

// handover gives whole messages to the queue. Several goroutines use it.
type handover struct {
	submitter Submitter
	hostname  string
	timeout   time.Duration
	hooks     Hooks
	log       zerolog.Logger
	away      atomic.Bool // the queue, as the log knows
}

// give hands a message over and returns the reply to it.
func (h *handover) give(ctx context.Context, e envelope, from origin, b *body) reply {
	began := time.Now()
	r := b.fault
	if r == "" {
		r = h.submit(ctx, e, from, b.buf, began)
	}
	h.hooks.message(r.code(), b.size, time.Since(began))
	return r
}

func (h *handover) submit(ctx context.Context, e envelope, from origin, message []byte, now time.Time) reply {
	head := readHeader(message)
	if head.hops > maxHops {
		return replyLoop
	}
	o, r := head.options(from.key)
	if r != "" {
		return r
	}
	if err := o.Validate(); err != nil {
		return answer("550 5.6.0", "%v", err)
	}
	trace := received{helo: from.helo, from: from.addr, by: h.hostname, with: from.protocol, id: rand.Text(), at: now.UTC()}
	m := &mailer.EmailMessage{FromEmail: e.from, To: e.to, Raw: head.raw(trace.String())}
	if e.from == "" {
		m.Headers = map[string]string{"Return-Path": "<>"}
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	id, err := h.submitter.Submit(ctx, from.key, m, o)
	h.note(err)
	if err != nil {
		return answerError(err)
	}
	return answer("250 2.0.0", "Ok: queued as %s", id)
}

// note has the log say when the queue is away, and when it is there again.
func (h *handover) note(err error) {
	away := err != nil
	if away && mailer.ClassOf(err) != mailer.Unavailable && mailer.ClassOf(err) != mailer.Unknown {
		return // the message's fault, which says nothing of the queue
	}
	if h.away.Load() == away || !h.away.CompareAndSwap(!away, away) {
		return
	}
	if away {
		h.log.Error().Err(err).Msg("smtpd: the queue takes no mail: clients are told to try again later")
	} else {
		h.log.Info().Msg("smtpd: the queue takes mail again")
	}
}
