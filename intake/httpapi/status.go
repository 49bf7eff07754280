package httpapi

import (
	"context"
	"net/http"
	"regexp"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// emailStatus is what GET /emails/{id} answers: what Resend does, as far as it is known, and what we know beside that. What is not known is null. The
// addresses of a message that has ended, and is not kept, are masked.
type emailStatus struct {
	Object      string     `json:"object"` // "email"
	ID          string     `json:"id"`
	MessageID   string     `json:"message_id"`
	From        *string    `json:"from"`
	To          []string   `json:"to"`
	Cc          []string   `json:"cc"`
	Bcc         []string   `json:"bcc"`
	ReplyTo     []string   `json:"reply_to"`
	Subject     *string    `json:"subject"`
	HTML        *string    `json:"html"`
	Text        *string    `json:"text"`
	Tags        []tag      `json:"tags"`
	CreatedAt   *time.Time `json:"created_at"`
	ScheduledAt *time.Time `json:"scheduled_at"`
	LastEvent   string     `json:"last_event"`

	State   tasks.MessageState `json:"state"`
	Reply   string             `json:"reply"` // the relay's, or why it was not sent
	Tries   int                `json:"tries"`
	EndedAt *time.Time         `json:"ended_at"`
	Parts   []statusPart       `json:"parts"`
}

// statusPart is what has come of some recipients of an email, or of a replay of it.
type statusPart struct {
	ID    string             `json:"id"`
	State tasks.MessageState `json:"state"`
	To    []string           `json:"to"`
	Reply string             `json:"reply"`
}

// lastEvents are what Resend calls the states of a message.
var lastEvents = map[tasks.MessageState]string{
	tasks.StateWaiting: "queued", tasks.StatePaused: "queued", tasks.StateInHand: "queued", tasks.StateOnWire: "queued",
	tasks.StateScheduled: "scheduled", tasks.StateRetry: "delivery_delayed",
	tasks.StateSent:      "sent", // to the relay: that somebody has it nobody knows
	tasks.StateCancelled: "canceled", tasks.StateReplayed: "queued",
	tasks.StateDead: "failed", tasks.StateSilent: "failed", tasks.StateDeleted: "failed", tasks.StateSkipped: "failed",
}

// isID is what an ID of a message looks like. A Message-ID is none: to look for that takes Redis too long.
var isID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,300}$`)

// asking is the context of a question about the email in the path, or of a change to it, when it is its turn. Few are asked at the same
// time, since an email that has ended is looked for in the history. What is no ID is not asked for.
func (c *call) asking() (ctx context.Context, id string, leave func(), failed *apiError) {
	id = c.PathValue("id")
	if !isID.MatchString(id) {
		return nil, "", nil, &apiError{StatusCode: http.StatusNotFound, Name: nameNotFound, Message: "there is no such email"}
	}
	leaveTurn, failed := c.limits.lookups.enter(c.Context(), c.key.Name, c.limits.timeout)
	if failed != nil {
		return nil, "", nil, failed
	}
	ctx, cancel := context.WithTimeout(c.Context(), c.limits.timeout)
	return ctx, id, func() { cancel(); leaveTurn() }, nil
}

// retrieve says what became of an email.
func retrieve(c *call, _ http.ResponseWriter) (any, error) {
	ctx, id, leave, failed := c.asking()
	if failed != nil {
		return nil, failed
	}
	defer leave()
	s, m, err := c.intake.Message(ctx, c.key, id)
	if err != nil {
		return nil, failure(err, true)
	}
	return statusOf(s, m, c.key.Tag()), nil
}

// statusOf is what is known of an email. m may be nil.
func statusOf(s tasks.Status, m *mailer.EmailMessage, ownTag string) emailStatus {
	e := emailStatus{
		Object: "email", ID: s.ID, MessageID: s.MessageID, To: append([]string{}, s.To...), Tags: tagsOf(s.Tags, ownTag),
		LastEvent: lastEvents[s.State], State: s.State, Reply: s.Reply, Tries: s.Tries, Parts: []statusPart{},
	}
	if m != nil {
		e.message(m)
	}
	switch {
	case s.State == tasks.StateScheduled:
		e.ScheduledAt = new(s.Due)
	case s.State == tasks.StateRetry, s.Due.IsZero():
	default:
		e.CreatedAt = new(s.Due)
	}
	if s.State.Ended() && !s.At.IsZero() {
		e.EndedAt = new(s.At)
	}
	for _, p := range s.Parts {
		e.Parts = append(e.Parts, statusPart{ID: p.ID, State: p.State, To: append([]string{}, p.To...), Reply: p.Reply})
	}
	return e
}

// message fills in what an email's message says.
func (e *emailStatus) message(m *mailer.EmailMessage) {
	e.From, e.To, e.Cc, e.Bcc, e.ReplyTo = new(m.FromEmail), append([]string{}, m.To...), m.Cc, m.Bcc, m.ReplyTo
	if len(m.Raw) > 0 {
		e.Subject = new(m.RawHeader("Subject"))
		return
	}
	e.Subject = new(m.Subject)
	if m.ContentSubtype == "html" {
		e.HTML = notEmpty(m.Body)
	} else {
		e.Text = notEmpty(m.Body)
	}
	for _, a := range m.Alternatives {
		if a.Mimetype == "text/html" {
			e.HTML = notEmpty(a.Content)
		}
	}
}

// notEmpty is a text, nil if it is empty: it is stored beside the queue then, or there is none.
func notEmpty(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// changed is the answer to what changes an email.
type changed struct {
	Object string `json:"object"` // "email"
	ID     string `json:"id"`
}

// rescheduling is what PATCH /emails/{id} takes.
type rescheduling struct {
	ScheduledAt string `json:"scheduled_at"`

	ID string `json:"id"` // some SDKs repeat it here
}

// update gives an email another time of sending.
func update(c *call, w http.ResponseWriter) (any, error) {
	var r rescheduling
	_, done, failed := c.json(w, &r)
	defer done()
	if failed != nil {
		return nil, failed
	}
	switch {
	case r.ID != "" && r.ID != c.PathValue("id"):
		return nil, invalid("id", "is another one than in the path")
	case r.ScheduledAt == "":
		return nil, missing("scheduled_at")
	}
	at, failed := when(r.ScheduledAt, time.Now())
	if failed != nil {
		return nil, failed
	}
	ctx, id, leave, failed := c.asking()
	if failed != nil {
		return nil, failed
	}
	defer leave()
	if err := c.intake.Reschedule(ctx, c.key, id, at); err != nil {
		return nil, new(email).named(failure(err, true), "")
	}
	return changed{"email", id}, nil
}

// cancel takes an email back.
func cancel(c *call, _ http.ResponseWriter) (any, error) {
	ctx, id, leave, failed := c.asking()
	if failed != nil {
		return nil, failed
	}
	defer leave()
	if err := c.intake.Cancel(ctx, c.key, id); err != nil {
		return nil, failure(err, true)
	}
	return changed{"email", id}, nil
}
