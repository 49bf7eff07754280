// Package jsonapi is a backend to start one's own from, for a provider that takes the parts of a message as JSON and makes
// the mail itself, as Resend and Postmark do:
//
//	POST /emails
//	{"from": "Shop <shop@example.com>", "to": ["ann@example.org"], "subject": "Hello", "text": "…", "html": "…"}
//
// docs/writing-a-backend.md explains it. The package worker below it is a worker that delivers with it. For a service
// that takes finished messages see the package webhook.
package jsonapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// Config says where the API is. URL and Token are required.
type Config struct {
	URL      string          // of the API, without /emails: http or https
	Token    string          // sent as "Authorization: Bearer"
	Timeout  time.Duration   // how long one request may take: 30 s if zero
	Defaults mailer.Defaults // what a message may leave out
}

// Backend hands messages to the API over one connection. One goroutine at a time may use it.
type Backend struct {
	cfg    Config
	client *http.Client
	open   bool
}

var (
	_ mailer.Backend     = (*Backend)(nil)
	_ mailer.BatchSender = (*Backend)(nil)
)

// New returns a Backend. It opens no connection.
func New(cfg Config) (*Backend, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("jsonapi: Config.URL: an address that begins with http:// or https:// is expected")
	}
	if cfg.Token == "" {
		return nil, errors.New("jsonapi: Config.Token: the token of the API is expected")
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	return &Backend{cfg: cfg, client: &http.Client{
		Transport: &http.Transport{MaxConnsPerHost: 1, Proxy: http.ProxyFromEnvironment},
		Timeout:   cmp.Or(cfg.Timeout, 30*time.Second),
		// An API that has moved is a setting to be mended, and not to be sent a token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// FromURL returns the Backend that EMAIL_URL describes, such as
//
//	jsonapi+https://TOKEN@api.example.com
//
// u is nil if there is none of ours. The error repeats no part of it.
func FromURL(u *url.URL, defaults mailer.Defaults) (*Backend, error) {
	if u == nil || u.Fragment != "" || u.RawQuery != "" {
		return nil, errURL
	}
	if _, password := u.User.Password(); password || u.User.Username() == "" {
		return nil, errURL
	}
	api := *u
	api.Scheme, api.User = strings.TrimPrefix(u.Scheme, "jsonapi+"), nil
	return New(Config{URL: api.String(), Token: u.User.Username(), Defaults: defaults})
}

var errURL = errors.New("jsonapi: an EMAIL_URL such as jsonapi+https://TOKEN@api.example.com is expected")

// Open asks for something that costs nothing and that needs the token. What it may not see it may not send either: a
// worker that holds mail probes with it.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	if b.open {
		return false, nil
	}
	response, err := b.call(ctx, http.MethodGet, "/emails?limit=1", nil, "")
	if err != nil {
		return false, unavailable(err)
	}
	defer drain(response)
	if response.StatusCode/100 != 2 {
		failure := failed(response)
		failure.Class = mailer.Unavailable // no message was spoken of: whatever it says, none would be taken
		if failure.Step == mailer.StepEnd {
			failure.Step = mailer.StepConnect
		}
		return false, failure
	}
	b.open = true
	return true, nil
}

// Close ends the connection. It never fails.
func (b *Backend) Close() error {
	b.open = false
	b.client.CloseIdleConnections()
	return nil
}

// SendMessages implements mailer.Backend.
func (b *Backend) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, b, messages)
}

// SendBatch implements mailer.BatchSender. When the API takes no mail at all, the rest of the batch does not ask it
// once more.
func (b *Backend) SendBatch(ctx context.Context, batch mailer.Batch) {
	var down *mailer.SendError
	mailer.Deliver(ctx, b, batch, b.cfg.Defaults, func(m *mailer.EmailMessage, to mailer.Envelope) mailer.Result {
		if down != nil {
			return mailer.Result{Err: down}
		}
		result := b.send(ctx, m, to)
		if failure, ok := errors.AsType[*mailer.SendError](result.Err); ok && failure.Class == mailer.Unavailable && failure.Step != mailer.StepEnd {
			down = failure
		}
		return result
	})
}

// unavailable leaves the URL out of err.
func unavailable(err error) *mailer.SendError {
	return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: fmt.Errorf("jsonapi: %w", brief(err))}
}

// brief is err without the URL.
func brief(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
