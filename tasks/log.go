package tasks

import (
	"errors"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
)

// ended tells the trace, the log and the observers how a try of a message has ended.
func (w *Worker) ended(t *ticket, end outcome) {
	o := t.ended(end)
	t.span.done(o.Action, o.Err)
	w.logOutcome(t, o)
	observers(w.cfg.Observers).outcome(o)
}

// veil shows addresses and texts of servers to who reads the log.
type veil struct{ addresses bool }

func (w *Worker) veil() veil { return veil{w.cfg.ShowAddresses} }

// text is a text of a server's or a backend's, fit for a line.
func (v veil) text(s string) string { return redact.Text(s, maxReason, v.addresses) }

// to is whom a message is for: the first of them, without their names.
func (v veil) to(recipients []string) []string {
	recipients = recipients[:min(len(recipients), maxLogged)]
	shown := make([]string, len(recipients))
	for i, r := range recipients {
		switch at := strings.LastIndexByte(r, '<'); {
		case !v.addresses:
			shown[i] = redact.Address(r)
		case at >= 0:
			shown[i] = redact.Line(strings.TrimRight(r[at+1:], "> "))
		default:
			shown[i] = redact.Line(r)
		}
	}
	return shown
}

// maxLogged is how many recipients of a message are named. Beyond that there is their number.
const maxLogged = 10

// logOutcome writes the one line that each try of a message leaves, and one for each
// recipient who was refused alone. Durations are in milliseconds.
func (w *Worker) logOutcome(t *ticket, o Outcome) {
	line := w.log.WithLevel(o.Action.level())
	if !line.Enabled() {
		return
	}
	v := w.veil()
	about := func(e *zerolog.Event) *zerolog.Event {
		return e.Str("message_id", redact.Text(o.MessageID, maxReason, true)).Str("task", o.TaskID).Str("queue", o.Queue).Str("mailer", o.Mailer)
	}
	about(line).Int("try", o.Try)
	if t.payload != nil {
		recipients := t.payload.Recipients
		if len(recipients) == 0 {
			recipients = t.payload.Message.Recipients()
		}
		line.Strs("to", v.to(recipients))
		if len(recipients) > maxLogged {
			line.Int("recipients", len(recipients))
		}
	}
	if o.Sender != 0 {
		line.Int("sender", o.Sender)
	}
	if o.Conn != "" {
		line.Str("connection", o.Conn)
	}
	line.Dur("waited", o.Waited).Dur("took", o.Took)
	if o.Action == ActionRetry {
		line.Dur("retry_in", o.RetryIn)
	}
	switch {
	case o.Err != nil:
		v.failure(line, o.Err)
	case o.Reply != "":
		code, enhanced := codes(o.Reply)
		addCodes(line, code, enhanced).Str("reply", v.text(o.Reply))
	}
	for _, r := range o.Refused {
		if refused := w.log.Warn(); refused.Enabled() {
			v.failure(about(refused).Strs("to", v.to([]string{r.Recipient})), r).Msg("recipient refused")
		}
	}
	line.Msg(string(o.Action))
}

// failure adds what is known of a failure. error is the whole text, code and enhanced those
// of the server's reply, if there was one.
func (v veil) failure(line *zerolog.Event, err error) *zerolog.Event {
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
	return line.Str("error", v.text(err.Error()))
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
