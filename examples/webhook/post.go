package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

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
	request.Header.Set("Idempotency-Key", m.MessageID) // the same at every try
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
	return mailer.Result{Err: &mailer.SendError{
		Class: classify(response.StatusCode), Step: mailer.StepEnd, Code: response.StatusCode, Text: line,
	}}
}

// classify says what an answer other than 2xx means for the message.
func classify(code int) mailer.Class {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, // our settings
		http.StatusTooManyRequests, http.StatusServiceUnavailable: // the service wants less
		return mailer.Unavailable
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return mailer.Unknown // what a proxy says: the service behind it may have the message
	case http.StatusRequestTimeout:
		return mailer.Temporary
	}
	switch code / 100 {
	case 3:
		return mailer.Unavailable
	case 4:
		return mailer.Permanent
	}
	return mailer.Temporary
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
