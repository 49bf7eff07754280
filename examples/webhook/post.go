package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// post hands one message over and says what became of it.
func (b *Backend) post(ctx context.Context, m *mailer.EmailMessage, envelope mailer.Envelope) mailer.Result {
	body, err := encode(m, envelope)
	if err != nil {
		return mailer.Result{Err: err}
	}
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	request, err := b.request(httptrace.WithClientTrace(ctx, trace), http.MethodPost, body)
	if err != nil {
		return mailer.Result{Err: unavailable(err)}
	}
	request.Header.Set("Idempotency-Key", idempotencyKey(m, envelope))
	response, err := b.client.Do(request)
	switch {
	case err != nil && connected.Load():
		// Something of it was sent, and nobody said what became of it.
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: fmt.Errorf("webhook: %w", brief(err))}}
	case err != nil:
		return mailer.Result{Err: unavailable(err)}
	}
	defer func() { _ = response.Body.Close() }()
	reply, _ := io.ReadAll(io.LimitReader(response.Body, 1000)) // a text for people: half of it will do
	line, _, _ := strings.Cut(strings.TrimSpace(string(reply)), "\n")
	if response.StatusCode/100 == 2 {
		return mailer.Result{Reply: fmt.Sprintf("%d %s", response.StatusCode, line)}
	}
	return mailer.Result{Err: failed(response, line)}
}

// failed is an answer other than 2xx.
func failed(response *http.Response, text string) *mailer.SendError {
	class, step := classify(response.StatusCode)
	return &mailer.SendError{
		Class: class, Step: step, Code: response.StatusCode, Text: text,
		RetryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now()),
	}
}

// classify says what an answer other than 2xx means for the message, and whether it is about the message at all. With a
// step before StepMail it is not: the mailer is held at once, and the message has spent no try.
func classify(code int) (mailer.Class, mailer.Step) {
	switch code {
	case http.StatusUnauthorized: // our token
		return mailer.Unavailable, mailer.StepAuth
	case http.StatusNotFound, http.StatusMethodNotAllowed, // our URL
		http.StatusTooManyRequests, http.StatusServiceUnavailable: // the service wants less
		return mailer.Unavailable, mailer.StepConnect
	case http.StatusForbidden: // our account, or this sender: it takes three messages to tell
		return mailer.Unavailable, mailer.StepEnd
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return mailer.Unknown, mailer.StepEnd // what a proxy says: the service behind it may have the message
	case http.StatusRequestTimeout:
		return mailer.Temporary, mailer.StepEnd
	}
	switch code / 100 {
	case 3:
		return mailer.Unavailable, mailer.StepConnect
	case 4:
		return mailer.Permanent, mailer.StepEnd
	}
	return mailer.Temporary, mailer.StepEnd
}

// retryAfter reads the header of that name (RFC 9110, 10.2.3): seconds, or a date. What it cannot read is 0.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), 7*24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// idempotencyKey is the same at every try. The recipients are in it: a message that was accepted for some of them is tried
// again for the others with the same Message-ID, and is no repetition.
func idempotencyKey(m *mailer.EmailMessage, envelope mailer.Envelope) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", envelope.To))
	return strings.Trim(m.MessageID, "<>") + "/" + hex.EncodeToString(sum[:8])
}

// request has no body if there is none to send.
func (b *Backend) request(ctx context.Context, method string, body []byte) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, b.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if b.cfg.Token != "" {
		request.Header.Set("Authorization", "Bearer "+b.cfg.Token)
	}
	return request, nil
}

// encode renders the message: the same message gives the same bytes.
func encode(m *mailer.EmailMessage, envelope mailer.Envelope) ([]byte, error) {
	var message bytes.Buffer
	if _, err := m.WriteTo(&message); err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		From    string   `json:"from"`
		To      []string `json:"to"`
		Message []byte   `json:"message"`
	}{envelope.From, envelope.To, message.Bytes()})
}

// brief is err without the URL, which may hold a secret.
func brief(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
