package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/publicaddr"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

const (
	mostRead = 16 << 10    // bytes of an answer: a connection whose answer is not read to its end is not used again
	readFor  = time.Second // from its header on: who takes long to say more is not listened to
	mostTold = 200         // characters of it, in an error

	// An HTTP/2 connection over which nothing has come for so long is asked whether it is alive, and given up if it does not say so in time. A post that
	// has no answer does not end it, so that all others would go the same way until the system gives up, a quarter of an hour later.
	silentFor = 10 * time.Second
	pongFor   = 5 * time.Second
)

// StatusError is an answer other than 2xx.
type StatusError struct {
	Code int
	Text string // the beginning of the answer, one line without addresses

	// Ahead is how far the endpoint's clock is ahead of this machine's, where it has said the time and they differ by a minute or more. Most receivers refuse
	// what was signed more than five minutes ago, or later than now.
	Ahead time.Duration
}

func (e *StatusError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Code, http.StatusText(e.Code)))
	switch {
	case e.Code/100 == 3:
		text += "; redirects are not followed: set the URL that it leads to"
	case e.Text != "":
		text += ": " + e.Text
	}
	switch {
	case e.Ahead > 0:
		text += fmt.Sprintf(" (its clock is %v ahead of ours)", e.Ahead)
	case e.Ahead < 0:
		text += fmt.Sprintf(" (its clock is %v behind ours)", -e.Ahead)
	}
	return text
}

// answer is what became of a post.
type answer struct {
	code  int   // of HTTP; 0: there was no answer
	err   error // nil: it was taken
	after time.Duration
}

// ends reports whether the endpoint wants no posts any more.
func (a answer) ends() bool { return a.code == http.StatusGone }

// failure is what the answer says of the endpoint. again says that the event has failed before.
func (a answer) failure(again bool) failure {
	slow := a.code == http.StatusTooManyRequests || a.after > 0
	return failure{known: again && a.code != 0 && !slow, slow: slow, after: a.after}
}

// newClient returns the client that all endpoints share.
func newClient(private bool, config *tls.Config, perHost int) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if !private {
		dialer.Control = publicaddr.Control
	}
	return &http.Client{
		Transport: &http.Transport{
			// A proxy would look up names and connect itself, to whatever address: no variable of the environment chooses one.
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: silentFor, PingTimeout: pongFor},
			MaxIdleConnsPerHost:    perHost,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post posts the bytes of an event once.
func post(ctx context.Context, client *http.Client, to target.Target, id string, body []byte) answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL(), bytes.NewReader(body))
	if err != nil {
		return answer{err: brief(err)}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "mailpouch")
	// Not sent. It tells the client that it may post again over a new connection where an idle one turns out to have ended: the receiver knows
	// the event by its ID.
	request.Header["Idempotency-Key"] = nil
	to.Sign(request.Header, id, time.Now(), body)
	response, err := client.Do(request)
	if err != nil {
		return answer{err: brief(err)}
	}
	now := time.Now()
	defer func() { _ = response.Body.Close() }()
	enough := time.AfterFunc(readFor, cancel)
	defer enough.Stop()
	text, _ := io.ReadAll(io.LimitReader(response.Body, mostRead)) // half a text will do
	a := answer{code: response.StatusCode}
	if a.code/100 != 2 {
		a.err = &StatusError{a.code, strings.TrimSpace(redact.Text(to.Hide(string(text)), mostTold, false)), ahead(response.Header.Get("Date"), now)}
		a.after = retryAfter(response.Header.Get("Retry-After"), now)
	}
	return a
}

// retryAfter reads the header of that name (RFC 9110, 10.2.3): seconds, or a date. What it cannot read is 0.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil || errors.Is(err, strconv.ErrRange) { // then it is the most that fits
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// ahead is how far the time of a Date field (RFC 9110, 6.6.1) is ahead of now; 0 if it is about the same, or cannot be read.
func ahead(date string, now time.Time) time.Duration {
	at, err := http.ParseTime(date)
	if d := at.Sub(now).Round(time.Second); err == nil && d.Abs() >= time.Minute {
		return d
	}
	return 0
}

// brief is err without the URL, which may hold a secret.
func brief(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errTimeout
	}
	if text := err.Error(); len(text) > mostTold { // of an answer that is none it has all
		return errors.New(redact.Text(text, mostTold, false))
	}
	return err
}

var errTimeout = errors.New("no answer in time")
