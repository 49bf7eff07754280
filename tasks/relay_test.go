package tasks

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"

	"github.com/mailpouch/mailpouch/mailer"
)

// relay is a mail server without a wire: all backends of a worker deliver to it, and
// a test says what becomes of each message.
type relay struct {
	// answer, if not nil, decides; it may block.
	answer func(ctx context.Context, m *mailer.EmailMessage) mailer.Result
	// down, if not nil, is the error of Open.
	down func() error
	// gone, if set, says goodbye to each message before it is spoken of, and closes.
	gone atomic.Bool
	// probed, if not nil, is called then.
	probed func()

	mu       sync.Mutex
	received []received
	opens    int
	arrived  chan struct{} // gets a token for each message received
}

type received struct {
	id   string // Message-ID
	to   []string
	data []byte
}

func newRelay() *relay { return &relay{arrived: make(chan struct{}, 100_000)} }

func (r *relay) connect(string) (mailer.Backend, error) { return &line{relay: r}, nil }

// ids returns how often each Message-ID was accepted.
func (r *relay) ids() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := map[string]int{}
	for _, m := range r.received {
		count[m.id]++
	}
	return count
}

func (r *relay) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.received...)
}

func (r *relay) accept(m *mailer.EmailMessage) mailer.Result {
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		return mailer.Result{Err: err}
	}
	envelope, err := m.Envelope()
	if err != nil {
		return mailer.Result{Err: err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received = append(r.received, received{m.MessageID, envelope.To, b.Bytes()})
	r.arrived <- struct{}{}
	return mailer.Result{Reply: "250 2.0.0 Ok: " + m.MessageID}
}

// goesAway has the relay put off each message with a 421, and let nobody in after the first one, until back is called: so no probe takes a
// message meanwhile. tried gets a token for each message.
func (r *relay) goesAway() (tried <-chan struct{}, back func()) {
	tokens := make(chan struct{}, 1000)
	var away, up atomic.Bool
	r.answer = func(context.Context, *mailer.EmailMessage) mailer.Result {
		if up.Load() {
			return mailer.Result{}
		}
		away.Store(true)
		tokens <- struct{}{}
		return mailer.Result{Err: sendError(mailer.Unavailable, 421, "busy")}
	}
	r.down = func() error {
		if away.Load() && !up.Load() {
			return errRefused
		}
		return nil
	}
	return tokens, func() { up.Store(true) }
}

// line is one worker connection to a relay.
type line struct {
	relay *relay
	open  bool
}

func (l *line) Open(context.Context) (bool, error) {
	if l.open {
		return false, nil
	}
	if l.relay.down != nil {
		if err := l.relay.down(); err != nil {
			return false, err
		}
	}
	l.relay.mu.Lock()
	defer l.relay.mu.Unlock()
	l.relay.opens++
	l.open = true
	return true, nil
}

func (l *line) Close() error {
	l.open = false
	return nil
}

func (l *line) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, l, messages)
}

func (l *line) SendBatch(ctx context.Context, b mailer.Batch) {
	for i, m := range b.Messages {
		b.Report([]mailer.Report{{Index: i, Result: l.send(ctx, b, i, m)}})
	}
}

func (l *line) send(ctx context.Context, b mailer.Batch, i int, m *mailer.EmailMessage) (r mailer.Result) {
	if ctx.Err() != nil {
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepMail, Err: ctx.Err()}}
	}
	if l.relay.gone.Load() {
		if l.open = false; l.relay.probed != nil {
			l.relay.probed()
		}
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepReset, Code: 421, Text: "closing"}}
	}
	if b.Begin != nil {
		var err error
		if m, err = b.Begin(i); err != nil {
			return mailer.Result{Err: err}
		}
	}
	if b.Commit != nil {
		if err := b.Commit(i); err != nil {
			return mailer.Result{Err: err}
		}
	}
	if l.relay.answer != nil {
		r = l.relay.answer(ctx, m)
	}
	if r.Err == nil {
		refused := r.Refused
		r = l.relay.accept(m)
		r.Refused = refused
	}
	return r
}

var _ mailer.BatchSender = (*line)(nil)

func sendError(class mailer.Class, code int, text string) *mailer.SendError {
	return &mailer.SendError{Class: class, Step: mailer.StepEnd, Code: code, Text: text}
}
