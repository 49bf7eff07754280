package httpapi

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/mailpouch/mailpouch/intake"
)

// headerValidation is the field that says what becomes of a batch with an email that is wrong.
const headerValidation = "X-Batch-Validation"

// Its values.
const (
	strict     = "strict"     // no email of the batch is handed over; what is so if nothing is said
	permissive = "permissive" // all others are
)

// maxBatch is how many emails a batch may have.
const maxBatch = 100

// batchAnswer is the answer to a batch: the emails that were handed over, in their order, and in a permissive one those that are wrong.
type batchAnswer struct {
	Data   []created    `json:"data"`
	Errors []batchError `json:"errors,omitzero"`
}

// batchError is what is wrong with an email of a batch.
type batchError struct {
	Index   int    `json:"index"`
	Message string `json:"message"`
	Name    string `json:"name"`
	Field   string `json:"field,omitempty"`
}

// batch is a request with several emails.
type batch struct {
	*call

	key      string // the idempotency key, "" if there is none
	lenient  bool
	canon    []byte // the whole body, written in the one way that is the same for all
	emails   []*email
	items    []intake.Item
	index    []int       // in emails, of each item
	failures []*apiError // of each of emails
	due      time.Time   // when the last one is
}

// sendBatch hands emails over.
func sendBatch(c *call, w http.ResponseWriter) (any, error) {
	b := &batch{call: c}
	var failed *apiError
	if b.key, failed = c.idempotencyKey(); failed != nil {
		return nil, failed
	}
	switch validation := c.Header.Get(headerValidation); validation {
	case "", strict:
	case permissive:
		b.lenient = true
	default:
		return nil, invalid(headerValidation, fmt.Sprintf("is %.40q, not %s or %s", validation, strict, permissive))
	}
	var list []jsontext.Value
	data, leave, failed := c.json(w, &list)
	defer leave()
	if failed != nil {
		return nil, failed
	}
	if failed = b.read(data, list); failed != nil {
		return nil, failed
	}
	return b.handOver()
}

// read reads the emails of a list, which is the whole body.
func (b *batch) read(body []byte, list []jsontext.Value) *apiError {
	switch {
	case len(list) == 0:
		return invalid("body", "has no email")
	case len(list) > maxBatch:
		return invalid("body", fmt.Sprintf("has %d emails, at most %d are allowed", len(list), maxBatch))
	}
	if b.key != "" {
		canon := jsontext.Value(body)
		if err := canon.Canonicalize(); err != nil { // it was read before
			return invalid("body", "has a number that is none of JSON's")
		}
		b.canon = canon
	}
	now := time.Now()
	b.emails, b.failures = make([]*email, len(list)), make([]*apiError, len(list))
	for i, value := range list {
		e, in := new(email), fmt.Sprintf("[%d]", i)
		b.emails[i] = e
		if b.failures[i] = decode(value, e, in); b.failures[i] != nil {
			continue
		}
		m, o, failed := e.message(now)
		if failed != nil {
			b.failures[i] = e.named(failed, in)
			continue
		}
		if b.key != "" {
			o.IdempotencyKey = intake.OneOf(b.key, i)
		}
		if o.ProcessAt.After(b.due) {
			b.due = o.ProcessAt
		}
		b.items, b.index = append(b.items, intake.Item{Message: m, Options: o}), append(b.index, i)
	}
	return nil
}

// handOver hands the emails over. With a key it is noted first what that stands for, and each email has a key of its own that derives from it.
func (b *batch) handOver() (any, error) {
	ctx, cancel := b.handingOver()
	defer cancel()
	ready := b.intake.Prepare(ctx, b.call.key, b.items)
	b.note(ready.Results())
	if failed := b.first(); failed != nil && !b.lenient {
		return nil, failed
	}
	if b.key != "" {
		if err := b.intake.Claim(ctx, b.call.key, b.key, b.canon, b.due); err != nil {
			return nil, failure(err, true)
		}
	}
	if err := ready.Submit(ctx); err != nil {
		return nil, failure(err, true)
	}
	return b.answer(ready.Results())
}

// note keeps what is wrong with the emails that could be read.
func (b *batch) note(results []intake.Result) {
	for n, r := range results {
		if i := b.index[n]; r.Err != nil {
			b.failures[i] = b.emails[i].named(failure(r.Err, b.key != ""), fmt.Sprintf("[%d]", i))
		}
	}
}

// first is the first failure.
func (b *batch) first() *apiError {
	for _, failed := range b.failures {
		if failed != nil {
			return failed
		}
	}
	return nil
}

// answer says what became of the emails. Those that the queue did not take, though nothing is wrong with them, make the whole a failure: it names those
// that were queued.
func (b *batch) answer(results []intake.Result) (any, error) {
	answer := batchAnswer{Data: []created{}}
	var done []queued
	var failed *apiError // the worst one
	for n, r := range results {
		i := b.index[n]
		if id, ok := sameAsBefore(r.Err); ok {
			r = intake.Result{ID: id}
		}
		switch {
		case r.Err == nil:
			answer.Data, done = append(answer.Data, created{r.ID}), append(done, queued{i, r.ID})
		case b.failures[i] == nil:
			e := b.emails[i].named(failure(r.Err, b.key != ""), fmt.Sprintf("[%d]", i))
			if failed == nil || e.Name == nameMayBeQueued {
				failed = e
			}
		}
	}
	if failed != nil {
		whole := *failed
		if whole.Queued = done; len(done) > 0 {
			whole.Message = fmt.Sprintf("%s (%d of %d were queued)", failed.Message, len(done), len(b.emails))
		}
		if len(done) > 0 && b.key == "" { // to make the request again would send these twice
			whole.StatusCode, whole.Name, whole.retryAfter = http.StatusGatewayTimeout, nameMayBeQueued, 0
		}
		return nil, &whole
	}
	if b.lenient {
		answer.Errors = []batchError{}
		for i, e := range b.failures {
			if e != nil {
				answer.Errors = append(answer.Errors, batchError{i, e.Message, e.Name, e.Field})
			}
		}
	}
	return answer, nil
}
