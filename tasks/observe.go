package tasks

import (
	"errors"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// Observer gets what a worker does, for metrics and pages, and for a program that wants to know what became of its messages. A
// function that is nil is not called. They are called from several goroutines, while mail is on its way: they
// must be quick, and must not change what they get. A panic of one is logged.
type Observer struct {
	Batch func(Batch) // a sender has sent a batch

	// Outcome is called when a try of a message has ended and Redis knows how, right before its task goes on. If the worker dies between
	// the two, nobody hears of that try; of a message that was sent the next worker says ActionSentBefore. So who keeps books calls
	// a message sent after either, and hears it once or, seldom, again or not at all: the history of the queue is complete.
	Outcome func(Outcome)

	Held    func(mailer string, reason error) // a mailer's relay takes no mail; nil: it does again
	Skew    func(ahead time.Duration)         // how far this machine's clock is ahead of that of Redis, measured now
	Back    func(GivenBack)                   // a task was given back untried
	Swept   func(Swept)                       // dead letters were made of what no worker had in hand
	Foreign func(Foreign)                     // a task that is not this worker's was put off

	// Connections is how many connections a mailer's relay is found to allow at once, of those that
	// the worker would open.
	Connections func(mailer string, allowed, wanted int)

	// Grown is how many connections a mailer has while there is mail, and how many these may become by themselves. One for the
	// queue of the highest weight is not among them. It is called for each mailer at first, and then when the number has changed.
	Grown func(mailer string, connections, most int)

	// Failover is how the members of a mailer are that has some. It is called at first, and when that has changed.
	Failover func(FailoverState)

	// SessionLimit is how many messages a mailer's relay is found to take over one connection; 0: there is no such
	// limit any more.
	SessionLimit func(mailer string, messages int)

	// Rate is what a mailer may send. It is called for each mailer with a rate at first, and then when the relay wants less or takes
	// more again. RateWaited is how long a sender has waited until messages of its batch might go, and Leased how many
	// connections the worker may have of those of all workers.
	Rate       func(RateState)
	RateWaited func(mailer string, waited time.Duration)
	Leased     func(mailer string, connections, all int)
}

// observers calls each of several observers.
type observers []Observer

func (l observers) batch(b Batch) {
	for _, o := range l {
		if o.Batch != nil {
			o.Batch(b)
		}
	}
}

func (l observers) outcome(out Outcome) {
	for _, o := range l {
		if o.Outcome != nil {
			o.Outcome(out)
		}
	}
}

func (l observers) held(mailer string, reason error) {
	for _, o := range l {
		if o.Held != nil {
			o.Held(mailer, reason)
		}
	}
}

func (l observers) skew(ahead time.Duration) {
	for _, o := range l {
		if o.Skew != nil {
			o.Skew(ahead)
		}
	}
}

func (l observers) back(b GivenBack) {
	for _, o := range l {
		if o.Back != nil {
			o.Back(b)
		}
	}
}

func (l observers) connections(mailer string, allowed, wanted int) {
	for _, o := range l {
		if o.Connections != nil {
			o.Connections(mailer, allowed, wanted)
		}
	}
}

func (l observers) grown(mailer string, connections, most int) {
	for _, o := range l {
		if o.Grown != nil {
			o.Grown(mailer, connections, most)
		}
	}
}

func (l observers) sessionLimit(mailer string, messages int) {
	for _, o := range l {
		if o.SessionLimit != nil {
			o.SessionLimit(mailer, messages)
		}
	}
}

func (l observers) failover(s FailoverState) {
	for _, o := range l {
		if o.Failover != nil {
			o.Failover(s)
		}
	}
}

func (l observers) rate(s RateState) {
	for _, o := range l {
		if o.Rate != nil {
			o.Rate(s)
		}
	}
}

func (l observers) rateWaited(mailer string, waited time.Duration) {
	for _, o := range l {
		if o.RateWaited != nil {
			o.RateWaited(mailer, waited)
		}
	}
}

func (l observers) leased(mailer string, connections, all int) {
	for _, o := range l {
		if o.Leased != nil {
			o.Leased(mailer, connections, all)
		}
	}
}

func (l observers) swept(s Swept) {
	for _, o := range l {
		if o.Swept != nil {
			o.Swept(s)
		}
	}
}

func (l observers) foreign(why Foreign) {
	for _, o := range l {
		if o.Foreign != nil {
			o.Foreign(why)
		}
	}
}

// RateState is what a mailer may send, all workers together.
type RateState struct {
	Mailer                        string  // "" for the default one
	Messages, Recipients, Domains string  // as settings have them, "" for none
	Connections                   int     // 0: no limit
	PerSecond                     float64 // messages, by the lowest of the limits in the long run; 0: no limit
	Factor                        float64 // the part of the rate there is: below 1 while the relay wants less
}

// Foreign is why a task is not this worker's.
type Foreign string

// The reasons.
const (
	ForeignType    Foreign = "type"    // it is no task of ours
	ForeignVersion Foreign = "version" // its payload is of a newer version
)

// Swept is tasks of which a worker has made dead letters where they waited in Redis.
type Swept struct {
	Queue  string // as the producer named it
	Mailer string // "" for the default one
	Why    string // "expired": their time was up; "lost": no list of their queue named them
	Tasks  int
}

// GivenBack is a task that a worker gave back untried, or a bulk task that it did not end.
type GivenBack struct {
	Reason BackReason
	TaskID string
	Queue  string
	Mailer string // "" for the default one
}

// Batch is what one sender sent at once.
type Batch struct {
	Mailer   string // "" for the default one
	Sender   int    // which of the worker's, from 1: each has one connection at a time
	Size     int    // messages
	Accepted int    // of which the relay took this many
	Duration time.Duration
}

// Action is what a worker did with a message in the end.
type Action string

// The actions.
const (
	ActionSent       Action = "sent"            // the relay has accepted it
	ActionSentBefore Action = "sent before"     // an earlier try was accepted, it was not sent again
	ActionSkipped    Action = "skipped"         // it has no recipients
	ActionSilent     Action = "failed silently" // its one try has failed, and it was handed over so (FailSilently)
	ActionRetry      Action = "retry"
	ActionDead       Action = "dead letter"
	ActionCancelled  Action = "cancelled"
	ActionForwarded  Action = "forwarded" // to the queue of the mailer that it names
)

// Outcome is how one try of a message has ended.
type Outcome struct {
	Action    Action
	MessageID string
	TaskID    string // the message's, as Enqueue has returned it
	Queue     string // as the producer named it
	Shard     int    // the part of the queue, from 1; 0 if that is in one piece
	Mailer    string // "" for the default one
	Member    string // the mailer that it went with, if Mailer has members and it came to one
	Sender    int    // which of the worker's; 0 if it came to none
	Conn      string // the connection that it was sent over, if the backend says
	Try       int    // from 1
	Tags      []string
	Mailing   string

	Reply   string              // the relay's, to an accepted message
	Refused []*mailer.SendError // recipients refused though it was accepted for others
	Err     error               // why it failed; mailer.ClassOf tells its class
	RetryIn time.Duration       // for ActionRetry

	Waited time.Duration // from the time when it was due until this worker took it
	Took   time.Duration // from then until now

	// Recipients are who the try was for, as they were written: all of the message's, or those that were left of them. They are nil
	// if the task could not be read.
	Recipients []string
}

// action is what observers hear of an outcome.
func (o outcome) action() Action {
	switch o.verdict.Action {
	case retry:
		return ActionRetry
	case deadLetter:
		return ActionDead
	case drop:
		return ActionCancelled
	case complete, hold:
	}
	switch {
	case o.verdict.Reason != nil:
		return ActionSilent
	case o.forwarded:
		return ActionForwarded
	case o.again:
		return ActionSentBefore
	case o.result.Skipped:
		return ActionSkipped
	}
	return ActionSent
}

// reporter reports how tries of messages have ended: to the trace, the log and the observers.
type reporter struct {
	view      redact.View // how whoever reads the log sees addresses and texts of servers
	log       zerolog.Logger
	observers observers
}

// ended reports how a try of a message has ended.
func (r reporter) ended(t *taskMessage, end outcome) {
	o := t.report(end)
	t.span.done(string(o.Action), o.Err)
	r.logOutcome(o)
	defer func() {
		if p := recover(); p != nil {
			r.log.Error().Bytes("stack", debug.Stack()).Msg("an observer panicked: " + redact.Panic(p))
		}
	}()
	r.observers.outcome(o)
}

// logOutcome writes the one line that each try of a message leaves, and one for each
// recipient who was refused alone.
func (r reporter) logOutcome(o Outcome) {
	line := r.log.WithLevel(o.Action.level())
	if !line.Enabled() {
		return
	}
	about := func(e *zerolog.Event) *zerolog.Event {
		e.Str("message_id", redact.Reason(o.MessageID, true)).Str("task", o.TaskID).Str("queue", o.Queue).Str("mailer", o.Mailer)
		if o.Mailing != "" {
			e.Str("mailing", o.Mailing)
		}
		if len(o.Tags) > 0 {
			e.Strs("tags", o.Tags)
		}
		return e
	}
	about(line).Int("try", o.Try)
	if o.Recipients != nil {
		line.Strs("to", r.view.Mailboxes(o.Recipients))
		if len(o.Recipients) > redact.MaxMailboxes {
			line.Int("recipients", len(o.Recipients))
		}
	}
	if o.Sender != 0 {
		line.Int("sender", o.Sender)
	}
	if o.Member != "" {
		line.Str("member", o.Member)
	}
	if o.Conn != "" {
		line.Str("connection", o.Conn)
	}
	line.Str("waited", withUnit(o.Waited)).Str("took", withUnit(o.Took))
	if o.Action == ActionRetry {
		line.Str("retry_in", withUnit(o.RetryIn))
	}
	switch {
	case o.Err != nil:
		addFailure(r.view, line, o.Err)
	case o.Reply != "":
		code, enhanced := codes(o.Reply)
		addCodes(line, code, enhanced).Str("reply", r.view.Reason(o.Reply))
	}
	for _, e := range o.Refused {
		if refused := r.log.Warn(); refused.Enabled() {
			addFailure(r.view, about(refused).Strs("to", r.view.Mailboxes([]string{e.Recipient})), e).Msg("recipient refused")
		}
	}
	line.Msg(string(o.Action))
}

// withUnit writes a duration as settings are written, "1.5s", without digits that tell nothing.
func withUnit(d time.Duration) string {
	if d < time.Second {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// addFailure adds what is known of a failure. error is the whole text, code and enhanced those
// of the server's reply, if there was one.
func addFailure(v redact.View, line *zerolog.Event, err error) *zerolog.Event {
	line.Str("class", mailer.ClassOf(err).String())
	for cause := err; cause != nil; {
		var e *mailer.SendError
		if !errors.As(cause, &e) {
			break
		}
		if e.Code != 0 {
			addCodes(line.Str("step", string(e.Step)), e.Code, e.Enhanced)
			break
		}
		cause = e.Err
	}
	return line.Str("error", v.Reason(err.Error()))
}

func addCodes(line *zerolog.Event, code int, enhanced string) *zerolog.Event {
	if code != 0 {
		line.Int("code", code)
	}
	if enhanced != "" {
		line.Str("enhanced", enhanced)
	}
	return line
}

// codes finds the codes in the reply to an accepted message: "250 2.0.0 Ok" has 250 and 2.0.0.
func codes(reply string) (code int, enhanced string) {
	first, rest, _ := strings.Cut(reply, " ")
	n, err := strconv.Atoi(first)
	if err != nil || n < 200 || n > 599 {
		return 0, ""
	}
	second, _, _ := strings.Cut(rest, " ")
	if strings.Count(second, ".") == 2 && strings.Trim(second, "0123456789.") == "" && strings.HasPrefix(second, first[:1]+".") {
		enhanced = second
	}
	return n, enhanced
}

func (a Action) level() zerolog.Level {
	switch a {
	case ActionDead:
		return zerolog.ErrorLevel
	case ActionRetry, ActionSilent:
		return zerolog.WarnLevel
	}
	return zerolog.InfoLevel
}

// report makes of the outcome of a try what log and observers get.
func (t *taskMessage) report(o outcome) Outcome {
	out := Outcome{
		Action: o.action(), TaskID: t.id, Queue: t.name.Queue, Shard: t.name.Shard, Mailer: t.name.Mailer, Try: t.retried + 1, Sender: o.sender, Conn: o.result.Connection,
		Reply: o.result.Reply, Refused: o.result.Refused, Err: o.verdict.Reason, RetryIn: o.verdict.Delay,
		Took: time.Since(t.started),
	}
	out.Member = o.member(t.name.Mailer)
	if p := t.payload; p != nil {
		if out.Recipients = p.Recipients; len(out.Recipients) == 0 {
			out.Recipients = p.Message.Recipients()
		}
		out.MessageID, out.Try, out.Waited = p.Message.MessageID, t.tries()+1, max(t.started.Sub(p.DueAt), 0)
		out.Tags, out.Mailing = p.Tags, p.Mailing
	}
	return out
}
