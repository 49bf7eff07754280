package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/mailer"
)

// call is a request of a client.
type call struct {
	*http.Request

	key     *intake.Key
	intake  *intake.Submitter
	limits  *limits
	answers *http.ResponseController
}

// limits are how much is taken in at the same time.
type limits struct {
	maxBody     int64
	bodyTimeout time.Duration
	timeout     time.Duration

	requests *turns // of each request that is under way
	big      *turns // and of each of these whose body has more than smallBody
	lookups  *turns // and of each that is about an email
}

// turns are for so many at the same time. Of several, one key has three quarters at most: its clients, who may be slow, leave some to those of
// others.
type turns struct {
	all  chan struct{}
	each int

	mu sync.Mutex
	of map[string]chan struct{} // by the name of a key
}

func newTurns(n int) *turns {
	return &turns{all: make(chan struct{}, n), each: max(n*3/4, 1), of: map[string]chan struct{}{}}
}

// ofKey are those that a key may have.
func (t *turns) ofKey(name string) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	own, ok := t.of[name]
	if !ok {
		own = make(chan struct{}, t.each)
		t.of[name] = own
	}
	return own
}

// smallBody is how many bytes a request may have that is no big one: more than most mails.
const smallBody = 1 << 20

// enter waits for the turn of a request with this key. leave is to be called when it has ended.
func (t *turns) enter(ctx context.Context, key string, patience time.Duration) (leave func(), err *apiError) {
	own := t.ofKey(key)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if take(ctx, own) {
		if take(ctx, t.all) {
			return func() { <-t.all; <-own }, nil
		}
		<-own
	}
	return nil, &apiError{StatusCode: http.StatusServiceUnavailable, Name: nameUnavailable, Message: "too many requests at the same time: try again later", retryAfter: awayFor}
}

// take waits for a place.
func take(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// handingOver is the context of a hand-over, which goes on for a while when the client has gone: it does not know then what became of it, and that
// much is better done than left half done.
func (c *call) handingOver() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(c.Context()), c.limits.timeout)
}

// The types of bodies.
const (
	typeJSON    = "application/json"
	typeMessage = "message/rfc822"
)

// mediaType is which of these types the body has. A body of none, or one that is compressed, is refused.
func (c *call) mediaType(types ...string) (string, *apiError) {
	refuse := func(header, reason string) (string, *apiError) {
		return "", &apiError{StatusCode: http.StatusUnsupportedMediaType, Name: nameMediaType, Message: header + ": " + reason, Field: header}
	}
	if encoding := c.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return refuse("Content-Encoding", "the body has to come as it is, not compressed")
	}
	given, _, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	for _, known := range types {
		if err == nil && given == known {
			return known, nil
		}
	}
	return refuse("Content-Type", "is not "+strings.Join(types, " or "))
}

// body reads the body. leave is to be called when what it has read is not needed any more.
func (c *call) body(w http.ResponseWriter) (data []byte, leave func(), failed *apiError) {
	leave = func() {}
	defer func() {
		if failed == nil { // all of it has come: the server waits for nothing more
			_ = c.answers.SetReadDeadline(time.Time{})
		}
	}()
	if c.ContentLength > c.limits.maxBody {
		return nil, leave, c.tooLarge()
	}
	body := http.MaxBytesReader(w, c.Body, c.limits.maxBody)
	if c.ContentLength <= smallBody {
		var err error
		if data, err = readAll(io.LimitReader(body, smallBody+1), max(c.ContentLength, 0)); err != nil {
			return nil, leave, c.unread(err)
		}
		if len(data) <= smallBody {
			return data, leave, nil
		}
	}
	leaveBig, failed := c.limits.big.enter(c.Context(), c.key.Name, c.limits.timeout)
	if failed != nil {
		return nil, leave, failed
	}
	rest, err := readAll(body, max(c.ContentLength, 0))
	if err != nil {
		leaveBig()
		return nil, leave, c.unread(err)
	}
	if len(data) == 0 {
		return rest, leaveBig, nil
	}
	return append(data, rest...), leaveBig, nil
}

// json reads a body of JSON into a value. leave is as with body.
func (c *call) json(w http.ResponseWriter, into any) (data []byte, leave func(), failed *apiError) {
	if _, failed = c.mediaType(typeJSON); failed != nil {
		return nil, func() {}, failed
	}
	if data, leave, failed = c.body(w); failed == nil {
		failed = decode(data, into, "")
	}
	return data, leave, failed
}

// readAll is io.ReadAll for what is said to have so many bytes.
func readAll(r io.Reader, size int64) ([]byte, error) {
	data := make([]byte, 0, max(size+1, 512))
	for {
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return data, err
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// unread is the error of a body that could not be read.
func (c *call) unread(err error) *apiError {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return c.tooLarge()
	}
	return &apiError{StatusCode: http.StatusRequestTimeout, Name: nameTimeout, Message: fmt.Sprintf("the body did not come whole within %v", c.limits.bodyTimeout)}
}

func (c *call) tooLarge() *apiError {
	return &apiError{
		StatusCode: http.StatusRequestEntityTooLarge, Name: nameTooLarge,
		Message: fmt.Sprintf("the body has more than %d bytes", c.limits.maxBody),
	}
}

// idempotencyKey is the key that the client gives, if it gives one.
func (c *call) idempotencyKey() (key string, failed *apiError) {
	values := c.Header.Values(headerKey)
	if len(values) == 0 {
		return "", nil
	}
	reason := ""
	const most = 256 // characters, as Resend has it
	switch key = values[0]; {
	case len(values) > 1:
		reason = "is there twice"
	case !utf8.ValidString(key), strings.ContainsFunc(key, unicode.IsControl):
		reason = "is not printable text"
	case strings.TrimSpace(key) == "":
		reason = "is empty"
	case utf8.RuneCountInString(key) > most:
		reason = fmt.Sprintf("has more than %d characters", most)
	}
	if reason != "" {
		return "", &apiError{StatusCode: http.StatusBadRequest, Name: nameIdempotencyKey, Message: headerKey + ": " + reason, Field: headerKey}
	}
	return key, nil
}

// created is the answer to what hands an email over.
type created struct {
	ID string `json:"id"`
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
