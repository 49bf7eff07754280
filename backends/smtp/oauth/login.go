package oauth

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/oauth2"
)

// DeviceCode is what a person needs to agree, at whatever machine has a browser (RFC 8628, 3.2).
type DeviceCode struct {
	URL     string // to open
	Code    string // to enter there
	Expires time.Time
}

// LoginByDevice asks a person to agree that mail is sent in their name, and returns the refresh token (RFC 8628). show is
// called with what the person needs. It waits until the person has agreed, or has refused, or the code has expired, or ctx has ended. Google
// does not allow mail this way.
func LoginByDevice(ctx context.Context, cfg Config, show func(DeviceCode)) (refreshToken string, err error) {
	cfg, err = cfg.complete()
	if err != nil {
		return "", err
	}
	if cfg.DeviceURL == "" {
		return "", errors.New("oauth: config: DeviceURL is missing")
	}
	ctx = withClient(ctx, cfg.Client)
	client := cfg.client()
	code, err := client.DeviceAuth(ctx)
	if err != nil {
		return "", failed(ctx, cfg, err)
	}
	if code.Expiry.IsZero() {
		code.Expiry = time.Now().Add(longestPause) // RFC 8628, 3.2 requires it
	}
	url := code.VerificationURI
	if code.UserCode == "" || CheckURL(url) != nil {
		return "", &Error{Provider: cfg.Provider, Err: errors.New("it has given no code, or no address to enter it at")}
	}
	show(DeviceCode{URL: url, Code: code.UserCode, Expires: code.Expiry})
	until, cancel := context.WithDeadline(ctx, code.Expiry)
	defer cancel()
	got, err := poll(withClient(until, cfg.Client), client, code)
	switch {
	case err == nil:
		return refreshTokenOf(got)
	case ctx.Err() == nil && until.Err() != nil:
		return "", &Error{Provider: cfg.Provider, Refused: true, Code: "expired_token", Text: "nobody has entered the code in time"}
	}
	return "", failed(ctx, cfg, err)
}

// poll waits for the person, also while the endpoint does not answer: more slowly then (RFC 8628, 3.5).
func poll(ctx context.Context, client *oauth2.Config, code *oauth2.DeviceAuthResponse) (*oauth2.Token, error) {
	const usual, slowest = 5, 60 // seconds
	if code.Interval <= 0 {
		code.Interval = usual
	}
	for {
		got, err := client.DeviceAccessToken(ctx, code)
		var answer *oauth2.RetrieveError
		if err == nil || ctx.Err() != nil || errors.As(err, &answer) && answer.Response.StatusCode < http.StatusInternalServerError {
			return got, err
		}
		code.Interval = min(2*code.Interval, slowest)
	}
}

// LoginByBrowser is LoginByDevice for Google: the person agrees in a browser on this machine, which then calls us at
// a port of it (RFC 8252, 7.3; RFC 7636). show is called with the address to open. port is 0 for any.
func LoginByBrowser(ctx context.Context, cfg Config, port int, show func(url string)) (refreshToken string, err error) {
	cfg, err = cfg.complete()
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)) //nolint:noctx // it does not block
	if err != nil {
		return "", err
	}
	client, state, verifier := cfg.client(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	client.RedirectURL = "http://" + listener.Addr().String()
	answers := make(chan answer, 1)
	server := &http.Server{ReadHeaderTimeout: requestTimeout, Handler: callback(state, answers)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // the page is still to be shown
		defer cancel()
		_ = server.Shutdown(stop)
		_ = server.Close()
		<-ended
	}()
	show(client.AuthCodeURL(state, oauth2.AccessTypeOffline, oauth2.ApprovalForce, oauth2.S256ChallengeOption(verifier)))
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case a := <-answers:
		if a.code == "" {
			return "", &Error{Provider: cfg.Provider, Refused: true, Code: clean(a.refusal, nil)}
		}
		got, err := client.Exchange(withClient(ctx, cfg.Client), a.code, oauth2.VerifierOption(verifier))
		if err != nil {
			return "", failed(ctx, cfg, err)
		}
		return refreshTokenOf(got)
	}
}

// answer is what the browser brings: a code, or why there is none.
type answer struct{ code, refusal string }

// callback takes the first answer that knows the state.
func callback(state string, answers chan<- answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			http.NotFound(w, r) // a browser asks for its icon too
			return
		}
		a := answer{q.Get("code"), q.Get("error")}
		if a.code == "" && a.refusal == "" {
			a.refusal = "no code"
		}
		const page = "Mailpouch has the answer. You may close this page.\n"
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(page)))
		_, _ = io.WriteString(w, page)
		_ = http.NewResponseController(w).Flush() // the server ends soon after the answer is there
		select {
		case answers <- a:
		default:
		}
	})
}

func refreshTokenOf(got *oauth2.Token) (string, error) {
	if got.RefreshToken == "" {
		return "", errNoRefreshToken
	}
	return got.RefreshToken, nil
}

// failed is why a login has failed.
func failed(ctx context.Context, cfg Config, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return asError(cfg.Provider, err, cfg.ClientSecret)
}
