// Package webhook is a backend to start one's own from: it hands each message to an
// HTTP service, as providers of mail have them, in a JSON object
//
//	{"from": "shop@example.com", "to": ["ann@example.org"], "message": "<base64 of RFC 5322>"}
//
// docs/writing-a-backend.md explains it. The package worker below it is a worker that
// delivers with it.
package webhook

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

// Config says where messages go. URL is required.
type Config struct {
	URL      string          // of the service: http or https
	Token    string          // sent as "Authorization: Bearer", if not empty
	Timeout  time.Duration   // how long one request may take: 30 s if zero
	Defaults mailer.Defaults // what a message may leave out
}

// Backend hands messages to an HTTP service over one connection. One goroutine at a time
// may use it.
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
		return nil, errors.New("webhook: Config.URL: an address that begins with http:// or https:// is expected")
	}
	return &Backend{cfg: cfg, client: &http.Client{
		Transport: &http.Transport{MaxConnsPerHost: 1, Proxy: http.ProxyFromEnvironment},
		Timeout:   cmp.Or(cfg.Timeout, 30*time.Second),
		// A service that has moved is a setting to be mended, and not to be sent a token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// FromURL returns the Backend that EMAIL_URL describes, such as
//
//	webhook+https://TOKEN@mail.example.com/v1/send
//
// u is nil if there is none of ours. The error repeats no part of it.
func FromURL(u *url.URL, defaults mailer.Defaults) (*Backend, error) {
	if u == nil || u.Fragment != "" {
		return nil, errURL
	}
	if _, password := u.User.Password(); password {
		return nil, errURL
	}
	service := *u
	service.Scheme, service.User = strings.TrimPrefix(u.Scheme, "webhook+"), nil
	return New(Config{URL: service.String(), Token: u.User.Username(), Defaults: defaults})
}

var errURL = errors.New("webhook: an EMAIL_URL such as webhook+https://TOKEN@mail.example.com/v1/send is expected")

// Open asks whether the service is there and takes our token. A worker that holds mail
// probes with it, so it must not succeed while no mail would be taken.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	if b.open {
		return false, nil
	}
	request, err := b.request(ctx, http.MethodHead, nil)
	if err != nil {
		return false, unavailable(err)
	}
	response, err := b.client.Do(request)
	if err != nil {
		return false, unavailable(err)
	}
	_ = response.Body.Close()
	failure := failed(response, http.StatusText(response.StatusCode))
	switch code := response.StatusCode; {
	case code == http.StatusMethodNotAllowed: // it is there, and knows no HEAD; that it takes our token the first message shows
	case failure.Class == mailer.Unavailable, code >= http.StatusInternalServerError:
		failure.Class = mailer.Unavailable
		if failure.Step == mailer.StepEnd {
			failure.Step = mailer.StepConnect // no message was spoken of
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

// SendBatch implements mailer.BatchSender. When the service takes no mail at all, the rest of the batch does not ask it
// once more.
func (b *Backend) SendBatch(ctx context.Context, batch mailer.Batch) {
	var down *mailer.SendError
	mailer.Deliver(ctx, b, batch, b.cfg.Defaults, func(m *mailer.EmailMessage, envelope mailer.Envelope) mailer.Result {
		if down != nil {
			return mailer.Result{Err: down}
		}
		result := b.post(ctx, m, envelope)
		if failure, ok := errors.AsType[*mailer.SendError](result.Err); ok && failure.Class == mailer.Unavailable && failure.Step != mailer.StepEnd {
			down = failure
		}
		return result
	})
}

// unavailable leaves the URL out of err, which may hold a secret.
func unavailable(err error) error {
	return &mailer.SendError{Class: mailer.Unavailable, Step: mailer.StepConnect, Err: fmt.Errorf("webhook: %w", brief(err))}
}
