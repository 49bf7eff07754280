package httpapi

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// The names of errors. Those that Resend has mean what Resend's mean.
const (
	nameValidation          = "validation_error"
	nameMissingField        = "missing_required_field"
	nameAttachment          = "invalid_attachment"
	nameNotSupported        = "not_supported"
	nameMissingKey          = "missing_api_key"
	nameInvalidKey          = "invalid_api_key"
	nameRestrictedKey       = "restricted_api_key"
	nameNotFound            = "not_found"
	nameMethod              = "method_not_allowed"
	nameMediaType           = "unsupported_media_type"
	nameTooLarge            = "request_too_large"
	nameTimeout             = "request_timeout"
	nameIdempotencyKey      = "invalid_idempotency_key"
	nameIdempotentRequest   = "invalid_idempotent_request"
	nameTooLate             = "too_late"
	nameRate                = "rate_limit_exceeded"
	nameUnavailable         = "service_unavailable"
	nameMayBeQueued         = "may_be_queued"
	nameInternalServerError = "internal_server_error"
)

// headerKey is the field with a client's idempotency key.
const headerKey = "Idempotency-Key"

// apiError is the answer to a request that has failed.
type apiError struct {
	StatusCode int    `json:"statusCode"`
	Name       string `json:"name"`
	Message    string `json:"message"`

	// Field is what of the request is wrong: a field of its body such as to[0], in a batch [2].to[0], a query parameter, or a field of its header.
	Field string `json:"field,omitempty"`

	// Queued are the emails of a batch that were queued before one was not.
	Queued []queued `json:"queued,omitempty"`

	retryAfter time.Duration
}

// queued is an email of a batch that was queued.
type queued struct {
	Index int    `json:"index"`
	ID    string `json:"id"`
}

func (e *apiError) Error() string { return e.Name + ": " + e.Message }

// writeHeader sets what belongs to the error in the header of its answer.
func (e *apiError) writeHeader(h http.Header) {
	if e.retryAfter > 0 {
		seconds := strconv.Itoa(int(math.Ceil(e.retryAfter.Seconds())))
		h.Set("Retry-After", seconds)
		if e.StatusCode == http.StatusTooManyRequests {
			h.Set("Ratelimit-Reset", seconds)
		}
	}
	if e.StatusCode == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
}

// invalid is the error of a field that is wrong for that reason.
func invalid(field, reason string) *apiError {
	field = short(field) // a client may call it what it likes
	return &apiError{StatusCode: http.StatusUnprocessableEntity, Name: nameValidation, Message: field + ": " + reason, Field: field}
}

// short is the beginning of a text, for an error.
func short(text string) string {
	const most = 120
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

func missing(field string) *apiError {
	return &apiError{StatusCode: http.StatusUnprocessableEntity, Name: nameMissingField, Message: field + ": is missing", Field: field}
}

// notSupported is the error of something that Resend has and this API has not.
func notSupported(field, reason string) *apiError {
	return &apiError{StatusCode: http.StatusUnprocessableEntity, Name: nameNotSupported, Message: field + ": " + reason, Field: field}
}

// How long a client is to wait before it asks again: while Redis is away, and while it has no room.
const (
	awayFor = 5 * time.Second
	fullFor = 30 * time.Second
)

// failure is the answer for an error of the intake or of the queue. again reports that the request can be made again without harm, whatever
// has become of it. An error that nobody foresaw is one of the server, whose words stay here.
func failure(err error, again bool) *apiError {
	var known *apiError
	var notAllowed *intake.NotAllowedError
	var rate *intake.RateError
	var key *mailer.IdempotencyError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &notAllowed):
		name := nameRestrictedKey
		if notAllowed.Field == "from" {
			name = nameValidation // as Resend says of a domain that is not the client's
		}
		return &apiError{StatusCode: http.StatusForbidden, Name: name, Message: err.Error(), Field: notAllowed.Field}
	case errors.As(err, &rate):
		return &apiError{StatusCode: http.StatusTooManyRequests, Name: nameRate, Message: err.Error(), retryAfter: max(rate.RetryAfter, time.Second)}
	case errors.As(err, &key):
		return &apiError{StatusCode: http.StatusConflict, Name: nameIdempotentRequest, Message: "the Idempotency-Key was used for another request", Field: headerKey}
	case errors.Is(err, intake.ErrNotFound), errors.Is(err, tasks.ErrNoTask):
		return &apiError{StatusCode: http.StatusNotFound, Name: nameNotFound, Message: "there is no such email, or it has ended and is kept no longer"}
	case errors.Is(err, tasks.ErrTooLate), errors.Is(err, tasks.ErrInBulk):
		return &apiError{StatusCode: http.StatusConflict, Name: nameTooLate, Message: err.Error()}
	}
	if e := refused(err); e != nil {
		return e
	}
	return notQueued(err, again)
}

// refused is the answer for a message, or an option, that is wrong. It is nil for another error.
func refused(err error) *apiError {
	var header *mailer.BadHeaderError
	var message *mailer.InvalidMessageError
	var tag *mailer.TagError
	var name *mailer.NameError
	var unknown *mailer.UnknownMailerError
	switch {
	case errors.As(err, &header):
		return invalid(header.Field, header.Reason)
	case errors.As(err, &message):
		return invalid(message.Field, message.Reason)
	case errors.As(err, &tag):
		return invalid("tags", fmt.Sprintf("%.80q %s", tag.Tag, tag.Reason))
	case errors.As(err, &name):
		return invalid(name.What, name.Error())
	case errors.As(err, &unknown):
		return invalid("mailer", fmt.Sprintf("there is no mailer %q", unknown.Name))
	}
	if send := new(mailer.SendError); errors.As(err, &send) && send.Class == mailer.Permanent {
		return &apiError{StatusCode: http.StatusUnprocessableEntity, Name: nameValidation, Message: err.Error()}
	}
	return nil
}

// notQueued is the answer for an error that is not the client's.
func notQueued(err error, again bool) *apiError {
	if intake.IsFull(err) {
		return &apiError{StatusCode: http.StatusServiceUnavailable, Name: nameUnavailable, Message: "the queue is full: try again later", retryAfter: fullFor}
	}
	send := new(mailer.SendError)
	switch {
	case !errors.As(err, &send), send.Class == mailer.Permanent:
		return &apiError{StatusCode: http.StatusInternalServerError, Name: nameInternalServerError, Message: "something went wrong here: see the log of the server"}
	case send.Class == mailer.Unknown && !again:
		return &apiError{
			StatusCode: http.StatusGatewayTimeout, Name: nameMayBeQueued,
			Message: "the queue has not answered: it may have been queued, or not. With an Idempotency-Key the same request can be made again without sending twice",
		}
	}
	return &apiError{StatusCode: http.StatusServiceUnavailable, Name: nameUnavailable, Message: "the queue cannot be reached: try again later", retryAfter: awayFor}
}
