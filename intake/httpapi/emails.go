package httpapi

import (
	"errors"
	"net/http"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// created is the answer to what hands an email over.
type created struct {
	ID string `json:"id"`
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

// send hands an email over.
func send(c *call, w http.ResponseWriter) (any, error) {
	key, failed := c.idempotencyKey()
	if failed != nil {
		return nil, failed
	}
	if _, failed = c.mediaType(typeJSON); failed != nil {
		return nil, failed
	}
	data, leave, failed := c.body(w)
	defer leave()
	if failed != nil {
		return nil, failed
	}
	var e email
	if failed := decode(data, &e, ""); failed != nil {
		return nil, failed
	}
	m, o, failed := e.message(time.Now())
	if failed != nil {
		return nil, failed
	}
	o.IdempotencyKey = key
	id, failed := c.submit(m, o)
	if failed != nil {
		return nil, e.named(failed, "")
	}
	return created{id}, nil
}

// submit hands a message over. What was handed over before with the same key is the same, whatever became of it.
func (c *call) submit(m *mailer.EmailMessage, o mailer.Options) (id string, failed *apiError) {
	ctx, cancel := c.handingOver()
	defer cancel()
	id, err := c.intake.Submit(ctx, c.key, m, o)
	if err == nil {
		return id, nil
	}
	if id, ok := sameAsBefore(err); ok {
		return id, nil
	}
	return "", failure(err, o.IdempotencyKey != "")
}

// sameAsBefore is the ID of a message that was handed over with the same key, and has become a dead letter.
func sameAsBefore(err error) (id string, ok bool) {
	if dead := new(mailer.DeadLetterError); errors.As(err, &dead) {
		return dead.ID, true
	}
	return "", false
}
