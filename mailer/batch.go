package mailer

import (
	"context"
	"errors"
)

// BatchSender is implemented by backends that learn a message's fate before the batch is
// through, and that can be told at the last moment not to send a message any more.
type BatchSender interface {
	// SendBatch is SendMessages with each result reported as it becomes known. Begin, Commit and
	// Report are called from one goroutine at a time, and not after SendBatch has returned.
	//
	// The end of ctx means to stop at once: a message that is under way is cut off. A worker's ctx has no deadline. That a
	// batch has taken long enough it says by the error of Begin, and the message that has begun goes on to its end, however
	// long it is. So the backend limits each of its waits itself, for a connection, for a reply, and for the next
	// hop to take more of a message, and gives up what stands still.
	SendBatch(ctx context.Context, b Batch)
}

// Batch is what a BatchSender is given. Report is required.
type Batch struct {
	Messages []*EmailMessage

	// Options say how the messages are to be handed over. A queue obeys them, with what they leave open as it is
	// configured. A backend that delivers at once has no use for them.
	Options Options

	// Begin, if not nil, is asked right before a message's turn, by its index, and returns what is sent: the message itself, or
	// another one in its place, with other recipients or other bytes, as whoever operates the sending side wants it. An error is
	// that message's result, as it is, and nothing of the message is sent; the others go on. It may be that the message
	// goes over another connection, for the one before it takes long: so a backend does not ask early.
	//
	// What a backend has made of the message before it asked, to check it or to save time, counts only if Begin returns the
	// same pointer. Another message is completed and checked as the first one was (WithDefaults, Validate).
	//
	// The messages are asked for in their order, and each once, unless the backend turns to
	// it anew: as after a connection that broke before the message can have been accepted.
	// What was accepted for some recipients goes on to the others without asking. There is
	// no need to ask for a message that cannot be sent anyway. A backend that sends several
	// messages in one call asks for those of the call before it.
	Begin func(i int) (*EmailMessage, error)

	// Commit, if not nil, is asked at the last moment before anything of a message can be accepted: for SMTP before
	// its body is written. An error is that message's result, as it is, and it must not be accepted: a backend that
	// cannot take back what it has said of the message cuts the connection. What was accepted before stays accepted, and
	// the others go on.
	//
	// Between Commit and the message's Report a process that dies leaves the message in doubt. So a backend reports what
	// it knows before it asks, asks for no more messages than it sends before it waits for a result, and asks for
	// each after its Begin. It may ask again for a message, and the last answer counts; it does so where it had to wait
	// since it asked. Commit may take as long as a round trip to a database. What was accepted for some recipients
	// goes on to the others without asking. A backend that sends several messages in one call asks for those of the call
	// before it.
	Commit func(i int) error

	// Report gets the results as they become known, each index once and all of them before
	// SendBatch returns. Results that become known together come in one call. If the process
	// dies, what was accepted and not yet reported may be sent twice, so a backend reports
	// before it sends or waits for anything else. Report must not keep group.
	Report func(group []Report)
}

// Report is the Result of the message with that index.
type Report struct {
	Index int
	Result
}

// SendBatch sends the batch through b. If b is not a BatchSender, Begin and Commit are asked for every message
// before the first one is sent, and the results are reported when all are sent. Only the end of ctx stops it then: a worker
// gives such a backend a deadline for the whole batch.
func SendBatch(ctx context.Context, b Backend, batch Batch) {
	if s, ok := b.(BatchSender); ok {
		s.SendBatch(ctx, batch)
		return
	}
	var refused, rest []Report
	messages := make([]*EmailMessage, 0, len(batch.Messages))
	for i := range batch.Messages {
		m, err := batch.begin(i)
		if err == nil {
			err = batch.commit(i)
		}
		if err != nil {
			refused = append(refused, Report{i, Result{Err: err}})
			continue
		}
		rest, messages = append(rest, Report{Index: i}), append(messages, m)
	}
	if len(refused) > 0 {
		batch.Report(refused)
	}
	if len(rest) == 0 {
		return
	}
	_, err := b.SendMessages(ctx, messages)
	for n, m := range messages {
		rest[n].Result = resultOf(ErrorAt(err, n))
		rest[n].Skipped = len(m.Recipients()) == 0
	}
	batch.Report(rest)
}

// resultOf is the result of a message that has this entry in a SendErrors: the reverse of Result.Error.
func resultOf(err error) Result {
	var e *SendError
	if errors.As(err, &e) && e.Accepted {
		return Result{Refused: e.Refused}
	}
	return Result{Err: err}
}

// begin asks Begin, if there is one, about a message, and returns what is sent.
func (b Batch) begin(i int) (*EmailMessage, error) {
	if b.Begin == nil {
		return b.Messages[i], nil
	}
	return b.Begin(i)
}

// commit asks Commit, if there is one, about a message.
func (b Batch) commit(i int) error {
	if b.Commit == nil {
		return nil
	}
	return b.Commit(i)
}

// Collect sends the messages as one batch and returns what Backend.SendMessages has to return, so
// that a BatchSender's SendMessages can be one call of it.
func Collect(ctx context.Context, s BatchSender, messages []*EmailMessage) (sent int, err error) {
	return collect(ctx, s, Batch{Messages: messages})
}

// collect is Collect of a batch without Report.
func collect(ctx context.Context, s BatchSender, batch Batch) (sent int, err error) {
	errs := make(SendErrors, len(batch.Messages))
	failed := false
	batch.Report = func(group []Report) {
		for _, r := range group {
			errs[r.Index] = r.Error()
			failed = failed || errs[r.Index] != nil
			if r.Err == nil && !r.Skipped {
				sent++
			}
		}
	}
	s.SendBatch(ctx, batch)
	if failed {
		return sent, errs
	}
	return sent, nil
}

// Deliver is the SendBatch of a backend that sends one message after the other. The backend only
// adds put, which sends one message. For each message Deliver fills in defaults, checks it, opens
// b if necessary, asks Begin and Commit, calls put with what Begin has returned and its envelope, and reports the
// result before it goes on. At the end it closes b if it was not open before.
//
// A message that cannot be sent or has no recipient does not open b and is not put. Once ctx is
// done no further message is put. b.Open is called before each message and must be quick if b is
// open. After it has failed it is not called again, and the remaining messages fail with its
// error.
func Deliver(ctx context.Context, b Backend, batch Batch, defaults Defaults, put func(m *EmailMessage, to Envelope) Result) {
	d := delivery{backend: b, batch: batch, defaults: defaults, put: put}
	defer d.close() // also if put panics
	group := make([]Report, 1)
	for i := range batch.Messages {
		group[0] = Report{i, d.deliver(ctx, i)}
		batch.Report(group)
	}
}

// delivery is one call of Deliver.
type delivery struct {
	backend  Backend
	batch    Batch
	defaults Defaults
	put      func(m *EmailMessage, to Envelope) Result

	asked  bool  // the backend has been opened before
	opened bool  // and Deliver opened it
	down   error // why it could not be opened
}

func (d *delivery) deliver(ctx context.Context, i int) Result {
	given := d.batch.Messages[i]
	m, to, err := d.ready(given)
	switch {
	case err != nil:
		return Result{Err: err}
	case len(to.To) == 0:
		return Result{Skipped: true}
	}
	if err := ContextErr(ctx); err != nil {
		return Result{Err: err}
	}
	if err := d.open(ctx); err != nil {
		return Result{Err: err}
	}
	sent, err := d.batch.begin(i)
	if err == nil && sent != given {
		m, to, err = d.ready(sent)
	}
	switch {
	case err != nil:
		return Result{Err: err}
	case len(to.To) == 0:
		return Result{Skipped: true}
	}
	if err := d.batch.commit(i); err != nil {
		return Result{Err: err}
	}
	return d.put(m, to)
}

// ready completes a message, checks it, and returns its envelope too.
func (d *delivery) ready(m *EmailMessage) (*EmailMessage, Envelope, error) {
	m = m.WithDefaults(d.defaults)
	if err := m.Validate(); err != nil {
		return nil, Envelope{}, err
	}
	to, err := m.Envelope()
	return m, to, err
}

// open makes sure that the backend is open. A backend may close itself because of a message and be
// opened again: only the first opening decides whether Deliver closes it.
func (d *delivery) open(ctx context.Context) error {
	if d.down != nil {
		return d.down
	}
	opened, err := d.backend.Open(ctx)
	if err != nil {
		d.down = err
		return err
	}
	if !d.asked {
		d.asked, d.opened = true, opened
	}
	return nil
}

// close closes the backend if it was opened here. Its error is of no interest: the next hop has
// already accepted the messages.
func (d *delivery) close() {
	if d.opened {
		_ = d.backend.Close()
	}
}
