package jsonapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// answer is what the API says: an ID, or why not.
type answer struct {
	ID       string `json:"id"`
	Message  string `json:"message"`
	Rejected []struct {
		Email  string `json:"email"`
		Reason string `json:"reason"`
	} `json:"rejected"` // recipients, while the others get the message
}

// send hands one message over and says what became of it.
func (b *Backend) send(ctx context.Context, m *mailer.EmailMessage, envelope mailer.Envelope) mailer.Result {
	body, err := encode(m, envelope)
	if err != nil {
		return mailer.Result{Err: err}
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	response, err := b.call(ctx, http.MethodPost, "/emails", body, idempotencyKey(m, envelope))
	switch {
	case err != nil && connected.Load():
		// Something of it was sent, and nobody said what became of it.
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: fmt.Errorf("jsonapi: %w", brief(err))}}
	case err != nil:
		return mailer.Result{Err: unavailable(err)}
	}
	defer drain(response)
	if response.StatusCode/100 != 2 {
		return mailer.Result{Err: failed(response)}
	}
	said := read(response)
	var refused []*mailer.SendError
	for _, r := range said.Rejected {
		// By the address that the envelope has the worker knows the recipient.
		if i := slices.IndexFunc(envelope.To, func(to string) bool { return strings.EqualFold(to, r.Email) }); i >= 0 {
			refused = append(refused, &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Text: r.Reason, Recipient: envelope.To[i]})
		}
	}
	if len(refused) == len(envelope.To) {
		return mailer.Result{Err: &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Refused: refused}}
	}
	return mailer.Result{Reply: fmt.Sprintf("%d %s", response.StatusCode, said.ID), Refused: refused}
}

func (b *Backend) call(ctx context.Context, method, path string, body []byte, key string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, b.cfg.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+b.cfg.Token)
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	return b.client.Do(request)
}

// failed is an answer other than 2xx.
func failed(response *http.Response) *mailer.SendError {
	class, step := classify(response.StatusCode)
	return &mailer.SendError{
		Class: class, Step: step, Code: response.StatusCode, Text: read(response).Message,
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
		http.StatusTooManyRequests, http.StatusServiceUnavailable: // the API wants less
		return mailer.Unavailable, mailer.StepConnect
	case http.StatusForbidden: // our account, or this sender: it takes three messages to tell
		return mailer.Unavailable, mailer.StepEnd
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return mailer.Unknown, mailer.StepEnd // what a proxy says: the API behind it may have the message
	case http.StatusRequestTimeout, http.StatusConflict: // the first try with this key is still under way
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

// read reads an answer. Of one that is none of the API's, as a proxy's page, the first line will do.
func read(response *http.Response) answer {
	data, _ := io.ReadAll(io.LimitReader(response.Body, 1e6))
	var a answer
	if json.Unmarshal(data, &a) != nil {
		a.Message, _, _ = strings.Cut(strings.TrimSpace(string(data[:min(len(data), 1000)])), "\n")
	}
	return a
}

// drain lets the connection be used again.
func drain(response *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1e6))
	_ = response.Body.Close()
}
