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

// view is how whoever reads the log sees addresses and texts of servers.
func (w *Worker) view() redact.View { return redact.View{Addresses: w.cfg.ShowAddresses} }

// shownTo is whom a message is for: the first of them, without their names.
func shownTo(v redact.View, recipients []string) []string {
	recipients = recipients[:min(len(recipients), maxLogged)]
	shown := make([]string, len(recipients))
	for i, r := range recipients {
		shown[i] = v.Mailbox(r)
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
	v := w.view()
	about := func(e *zerolog.Event) *zerolog.Event {
		return e.Str("message_id", redact.Reason(o.MessageID, true)).Str("task", o.TaskID).Str("queue", o.Queue).Str("mailer", o.Mailer)
	}
	about(line).Int("try", o.Try)
	if t.payload != nil {
		recipients := t.payload.Recipients
		if len(recipients) == 0 {
			recipients = t.payload.Message.Recipients()
		}
		line.Strs("to", shownTo(v, recipients))
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
		addFailure(v, line, o.Err)
	case o.Reply != "":
		code, enhanced := codes(o.Reply)
		addCodes(line, code, enhanced).Str("reply", v.Reason(o.Reply))
	}
	for _, r := range o.Refused {
		if refused := w.log.Warn(); refused.Enabled() {
			addFailure(v, about(refused).Strs("to", shownTo(v, []string{r.Recipient})), r).Msg("recipient refused")
		}
	}
	line.Msg(string(o.Action))
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
