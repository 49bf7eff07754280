package oauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/mailpouch/mailpouch/internal/replacefile"
)

// How early a token is replaced: a fifth of its life before its end, and five minutes at most.
const (
	earliest = 5 * time.Minute
	lifePart = 5
)

// The pauses after an attempt that brought no token. They double. Whoever changes what was shown to the provider need not wait.
const (
	refusedPause = time.Minute // it said no
	awayPause    = time.Second // it did not answer
	longestPause = 15 * time.Minute
	longestAway  = time.Minute
)

// freshFor is how long a token is so new that another one would be refused like it.
const freshFor = time.Minute

// requestTimeout is how long an attempt may take.
const requestTimeout = 20 * time.Second

// Source gives access tokens. It implements smtp.TokenSource, and is for all connections of a user.
type Source struct {
	cfg  Config
	turn chan struct{} // is full while one asks the provider

	// mu guards what follows. It is not held while the provider is asked.
	mu      sync.Mutex
	token   token
	failed  failure
	rotated rotated
	watch   []func(Event)
}

// token is an access token.
type token struct {
	text     string
	got, end time.Time // end is zero where the provider does not say
}

func (t token) usable(now time.Time) bool {
	return t.text != "" && (t.end.IsZero() || now.Before(t.end))
}

// due reports whether it is time for another one.
func (t token) due(now time.Time) bool {
	return !t.usable(now) || !t.end.IsZero() && !now.Before(t.end.Add(-min(earliest, t.end.Sub(t.got)/lifePart)))
}

// failure is the last attempt, if it brought no token.
type failure struct {
	err   *Error
	of    [sha256.Size]byte // a digest of what was shown to the provider
	until time.Time         // when the next attempt may be
	pause time.Duration
}

// rotated is a refresh token that could not be written into the file of the one whose place it takes.
type rotated struct{ from, to string }

// Event is what an attempt to get a token has led to.
type Event struct {
	Took    time.Duration
	Expires time.Time // of the new token; zero if the provider does not say
	Err     *Error    // why there is no new one

	// NotKept is why another refresh token could not be written into its file. It is used until the process ends. The
	// one in the file may be of no more use.
	NotKept error
}

// New returns a source. It asks for no token yet. The error names what is wrong with cfg.
func New(cfg Config) (*Source, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if cfg.KeyFile != "" {
		if _, err := cfg.serviceAccount(); err != nil {
			return nil, err
		}
	}
	return &Source{cfg: cfg, turn: make(chan struct{}, 1)}, nil
}

// Watch makes the source tell f of each attempt to get a token, one after the other. f must be quick, and must not use the
// source.
func (s *Source) Watch(f func(Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = append(s.watch, f)
}

// Token returns the token that is there, or a new one if that is near its end. Of several callers one asks the provider; the others use the
// old token meanwhile or, where there is none, wait. The error is an *Error, or that of ctx.
func (s *Source) Token(ctx context.Context) (string, error) {
	text, err, known := s.known()
	if known {
		return text, err
	}
	if text != "" {
		select {
		case s.turn <- struct{}{}:
		default:
			return text, nil // another one has seen that it is near its end
		}
	} else {
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	defer func() { <-s.turn }()
	if text, err, known := s.known(); known {
		return text, err
	}
	return s.renew(ctx)
}

// Refused implements smtp.TokenSource: the next Token is another one, unless this one is new itself.
func (s *Source) Refused(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.text == text && wall().Sub(s.token.got) >= freshFor {
		s.token = token{}
	}
}

// wall is the time by the clock on the wall: the time that a machine was suspended counts.
func wall() time.Time { return time.Now().Round(0) }

// known returns the token if it is not due for another one, or why there is none. Otherwise known is false; then text is a token that may
// still be used, "" if there is none.
func (s *Source) known() (text string, err error, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := wall()
	if !s.token.due(now) {
		return s.token.text, nil, true
	}
	if s.token.usable(now) {
		text = s.token.text
	}
	f := s.failed
	if f.err == nil || !now.Before(f.until) || f.of != s.shown() {
		return text, nil, false
	}
	if text != "" {
		return text, nil, true
	}
	return "", f.err, true
}

// shown is a digest of what is shown to the provider, to see when somebody has changed it.
func (s *Source) shown() (digest [sha256.Size]byte) {
	h := sha256.New()
	_, _ = io.WriteString(h, s.cfg.ClientSecret+"\x00")
	for _, path := range []string{s.cfg.RefreshTokenFile, s.cfg.KeyFile} {
		text, err := os.ReadFile(path) //nolint:gosec // the files of the configuration
		if err != nil {
			_, _ = io.WriteString(h, "no file")
		}
		_, _ = h.Write(append(text, 0))
	}
	h.Sum(digest[:0])
	return digest
}

// renew asks for a new token. The caller has the turn.
func (s *Source) renew(ctx context.Context) (string, error) {
	start, of := time.Now(), s.shown()
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	got, notKept, err := s.request(limited)
	switch {
	case err != nil && ctx.Err() != nil:
		return "", context.Cause(ctx) // it was not the provider that ended it
	case err == nil && !isToken(got.AccessToken):
		err = errors.New("what it has given is no access token")
	}
	event := Event{Took: time.Since(start), NotKept: notKept}
	s.mu.Lock()
	watch := s.watch
	var text string
	if err == nil {
		s.token = token{text: got.AccessToken, got: wall(), end: got.Expiry.Round(0)}
		s.failed = failure{}
		text, event.Expires = s.token.text, s.token.end
	} else {
		event.Err = asError(s.cfg.Provider, err, s.cfg.ClientSecret)
		s.fails(event.Err, of)
		if s.token.usable(wall()) {
			text = s.token.text
		}
	}
	s.mu.Unlock()
	for _, f := range watch {
		f(event)
	}
	if text == "" {
		return "", event.Err
	}
	return text, nil
}

// isToken reports whether a text may be a bearer token (RFC 6750, 2.1): nothing in it can end what it is written into.
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// fails notes that an attempt has brought no token. s.mu is held.
func (s *Source) fails(err *Error, of [sha256.Size]byte) {
	shortest, longest := awayPause, longestAway
	if err.Refused {
		shortest, longest = refusedPause, longestPause
	}
	before := s.failed
	f := failure{err: err, of: of, pause: shortest}
	if before.err != nil && before.err.Refused == err.Refused && before.of == of {
		f.pause = min(2*before.pause, longest)
	}
	f.until = wall().Add(max(f.pause, err.after))
	s.failed = f
}

// request asks the provider.
func (s *Source) request(ctx context.Context) (got *oauth2.Token, notKept, err error) {
	ctx = withClient(ctx, s.cfg.Client)
	switch {
	case s.cfg.KeyFile != "":
		account, err := s.cfg.serviceAccount() // anew each time: keys are replaced
		if err != nil {
			return nil, nil, s.nothing(err)
		}
		got, err = account.TokenSource(ctx).Token()
		return got, nil, err
	case s.cfg.RefreshTokenFile != "":
		return s.refresh(ctx)
	}
	got, err = s.cfg.credentials().Token(ctx)
	return got, nil, err
}

// nothing is the error of a source that has nothing to show to the provider.
func (s *Source) nothing(err error) *Error {
	return &Error{Provider: s.cfg.Provider, Refused: true, Err: err}
}

// refresh is RFC 6749, 6.
func (s *Source) refresh(ctx context.Context) (got *oauth2.Token, notKept, err error) {
	path := s.cfg.RefreshTokenFile
	// A provider that takes each refresh token but once would refuse the second of two processes.
	unlock, err := replacefile.Lock(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	stored, err := ReadTokenFile(path)
	if err != nil {
		return nil, nil, s.nothing(err)
	}
	current := stored
	if s.rotated.from == stored {
		current = s.rotated.to
	}
	got, err = s.cfg.client().TokenSource(ctx, &oauth2.Token{RefreshToken: current}).Token()
	if err != nil {
		return nil, nil, asError(s.cfg.Provider, err, s.cfg.ClientSecret, current)
	}
	if got.RefreshToken == "" || got.RefreshToken == current {
		return got, nil, nil
	}
	if notKept = WriteTokenFile(path, got.RefreshToken); notKept != nil {
		s.rotated = rotated{from: stored, to: got.RefreshToken}
	}
	return got, notKept, nil
}

// withClient makes the requests of x/oauth2 end with ctx, and go nowhere else: where a secret was sent to, a redirection must not
// lead it on.
func withClient(ctx context.Context, client *http.Client) context.Context {
	c := *client
	c.Transport = bound{ctx, client.Transport}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return context.WithValue(ctx, oauth2.HTTPClient, &c)
}

// bound ends requests with a context.
type bound struct {
	ctx  context.Context //nolint:containedctx // x/oauth2 does not hand it on everywhere
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b bound) RoundTrip(r *http.Request) (*http.Response, error) {
	next := b.next
	if next == nil {
		next = http.DefaultTransport
	}
	r = r.WithContext(b.ctx)
	r.Header = r.Header.Clone()
	r.Header.Set("User-Agent", "mailpouch")
	return next.RoundTrip(r)
}

// Mechanisms are the SASL mechanisms to use with the provider's servers, in order of preference.
func (s *Source) Mechanisms() []string { return s.cfg.Provider.Mechanisms() }

// Endpoint is where the tokens come from, for people.
func (s *Source) Endpoint() string { return s.cfg.TokenURL }

var errNoRefreshToken = errors.New("the provider has given no refresh token: the scope has to have offline_access in it, or what the provider calls it")
