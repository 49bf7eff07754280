// Package httpapi is a JSON API over HTTP through which programs in any language hand their mail to the queue. It speaks the dialect of Resend's
// API, so that SDKs for that work with another base URL, and takes our own JSON and finished messages too:
//
//	POST  /emails               an email, as Resend has it
//	POST  /emails/batch         up to 100 of them
//	GET   /emails/{id}          what became of it
//	PATCH /emails/{id}          another time of sending
//	POST  /emails/{id}/cancel   takes it back
//	POST  /messages             a message as mailer.EmailMessage writes it, or message/rfc822
//	GET   /openapi.json         all this for programs
//
// A client shows the secret of an intake.Key (Authorization: Bearer), and has to do with its own mail alone. That a request is answered with
// success means that Redis has the mail. With an Idempotency-Key a request may be made again, whatever became of it: the same
// one gives the same IDs, and another one is refused.
//
// An error is an object with statusCode, a name, a message and, where a part of the request is wrong, the field. What Resend has and this API has not
// is refused by name, and so is what is unknown: nothing is left out in silence.
package httpapi

import (
	"cmp"
	_ "embed"
	"errors"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/redact"
)

// Config configures a Handler. The zero value is usable, but for Log, which writes nothing then.
type Config struct {
	// MaxBody is how many bytes the body of a request may have: 64 MiB if zero. A file has a third more as base64, and
	// nearly four times as many as a list of bytes, as some SDKs send it.
	MaxBody int64

	// Requests are how many are under way at the same time, at most: 64 if zero. BigRequests are how many of these may have a body of more than a
	// megabyte: 4 if zero. One key has three quarters of them at most. What comes beyond waits, for Timeout at most.
	Requests    int
	BigRequests int

	BodyTimeout time.Duration // how long a client may take to send a body: a minute if zero
	Timeout     time.Duration // how long a hand-over may take: 30 s if zero

	Log zerolog.Logger // what went wrong here, each once for each request

	// Observe, if not nil, is told of each request that has been answered. Several goroutines call it.
	Observe func(Request)
}

// Request is a request that has been answered.
type Request struct {
	Route  string // as in the package's list, such as "POST /emails": "" for what is not there
	Status int    // of the answer
	Key    string // the name of the client's key, "" if it has shown none that is known
	Took   time.Duration
}

// Handler answers requests. It may be used by several goroutines.
type Handler struct {
	intake *intake.Submitter
	cfg    Config
	limits limits
	mux    *http.ServeMux
}

// New returns a Handler that gives what is handed in to a Submitter.
func New(s *intake.Submitter, cfg Config) *Handler {
	h := &Handler{intake: s, cfg: cfg, mux: http.NewServeMux(), limits: limits{
		maxBody: cmp.Or(cfg.MaxBody, 64<<20), bodyTimeout: cmp.Or(cfg.BodyTimeout, time.Minute), timeout: cmp.Or(cfg.Timeout, 30*time.Second),
		requests: newTurns(cmp.Or(cfg.Requests, 64)), big: newTurns(cmp.Or(cfg.BigRequests, 4)), lookups: newTurns(4),
	}}
	for path, methods := range routes() {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, path, methods) })
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.serve(w, r, "", nil)
	})
	return h
}

// Server returns a server for the handler, with limits for what comes before a request. Where it listens is the caller's to say.
func (h *Handler) Server() *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
	}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// handle answers a call: with an object, or with an error.
type handle func(c *call, w http.ResponseWriter) (any, error)

// routes are the paths, and what answers each method there.
func routes() map[string]map[string]handle {
	return map[string]map[string]handle{
		"/emails":             {http.MethodPost: send},
		"/emails/batch":       {http.MethodPost: sendBatch},
		"/emails/{id}":        {http.MethodGet: retrieve, http.MethodPatch: update},
		"/emails/{id}/cancel": {http.MethodPost: cancel},
		"/messages":           {http.MethodPost: sendMessage},
		"/openapi.json":       {http.MethodGet: nil}, // which is for everybody
	}
}

//go:embed openapi.json
var openAPI []byte

// serve answers a request for one of the paths.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, path string, methods map[string]handle) {
	began, seen := time.Now(), Request{}
	if r.ContentLength != 0 { // also where the body is not read here, for then the server reads some of it to be rid of it
		_ = http.NewResponseController(w).SetReadDeadline(began.Add(h.limits.bodyTimeout)) // where the server has none it is the server's to say
	}
	header := w.Header()
	header.Set("Content-Type", typeJSON)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	var body any
	var failed *apiError
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	answer, known := methods[method]
	switch {
	case path == "":
		failed = &apiError{StatusCode: http.StatusNotFound, Name: nameNotFound, Message: "there is no such path here: this API hands mail over (see /openapi.json)"}
	case !known:
		header.Set("Allow", strings.Join(slices.Sorted(maps.Keys(methods)), ", "))
		failed = &apiError{StatusCode: http.StatusMethodNotAllowed, Name: nameMethod, Message: method + " is not supported for this path"}
	case answer == nil:
		seen.Route = method + " " + path
		body = openAPI
	default:
		seen.Route = method + " " + path
		body, seen.Key, failed = h.answer(w, r, answer)
	}
	if seen.Key == "" { // a connection that stays open takes a key: others could hold all that there are
		header.Set("Connection", "close")
	}
	seen.Status = http.StatusOK
	if failed != nil {
		seen.Status, body = failed.StatusCode, failed
		failed.writeHeader(header)
		if failed.StatusCode == http.StatusRequestTimeout {
			header.Set("Connection", "close") // there is no telling what comes next
		}
	}
	h.write(w, seen.Status, body)
	if h.cfg.Observe != nil {
		seen.Took = time.Since(began)
		h.cfg.Observe(seen)
	}
}

// answer lets a client that may ask be answered.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, answer handle) (body any, keyName string, failed *apiError) {
	defer func() {
		if p := recover(); p != nil {
			h.cfg.Log.Error().Str("panic", redact.Panic(p)).Bytes("stack", debug.Stack()).Str("path", r.URL.Path).Msg("a request to the API has failed")
			body, failed = nil, failure(errors.New("panic"), false)
		}
	}()
	key, failed := h.authenticate(r)
	if failed != nil {
		return nil, "", failed
	}
	leave, failed := h.limits.requests.enter(r.Context(), key.Name, h.limits.timeout)
	if failed != nil {
		return nil, key.Name, failed
	}
	defer leave()
	c := &call{Request: r, key: key, intake: h.intake, limits: &h.limits, answers: http.NewResponseController(w)}
	body, err := answer(c, w)
	if err != nil {
		failed = failure(err, false)
		if failed.StatusCode == http.StatusInternalServerError {
			h.cfg.Log.Error().Str("error", redact.Reason(err.Error(), false)).Str("key", key.Name).Str("path", r.URL.Path).Msg("a request to the API has failed")
		}
		return nil, key.Name, failed
	}
	return body, key.Name, nil
}

// authenticate returns the key whose secret the client shows.
func (h *Handler) authenticate(r *http.Request) (*intake.Key, *apiError) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if secret = strings.TrimSpace(secret); !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return nil, &apiError{StatusCode: http.StatusUnauthorized, Name: nameMissingKey, Message: "Authorization: is missing: show an API key, as in Authorization: Bearer mp_...", Field: "Authorization"}
	}
	key := h.intake.Find(secret)
	if key == nil {
		return nil, &apiError{StatusCode: http.StatusForbidden, Name: nameInvalidKey, Message: "Authorization: the API key is not known here", Field: "Authorization"}
	}
	return key, nil
}

// write writes an answer.
func (h *Handler) write(w http.ResponseWriter, status int, body any) {
	const writeTimeout = 30 * time.Second
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // where the server has none it is the server's to say
	data, ok := body.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(body, json.FormatNilSliceAsNull(true), json.Deterministic(true)); err != nil {
			h.cfg.Log.Error().Err(err).Msg("an answer of the API could not be written")
			status, data = http.StatusInternalServerError, []byte(`{"statusCode":500,"name":"`+nameInternalServerError+`","message":"something went wrong here"}`)
		}
	}
	w.WriteHeader(status)
	_, _ = w.Write(data) //nolint:gosec // it is JSON and said to be; that the client has gone is no error
}
