package pages

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redact"
)

const (
	maxPageSize = 100 // tasks that asynqmon reads at once, each with its whole payload
	maxReading  = 2   // calls that do so at the same time: the memory is the mail's
)

// monitor is asynqmon below monitorPath, with four changes: its page asks no other server
// for fonts, runs only its own scripts, and masks the addresses that mail servers repeat
// in their refusals; and what is archived there makes asynq drop no dead letter.
type monitor struct {
	asynqmon http.Handler
	info     http.Handler // asynqmon again, for its page of Redis
	view     redact.View
	index    []byte // its page
	policy   string // Content-Security-Policy of that
	turns    chan struct{}
}

// sharedClient hands asynqmon the server's client, whatever kind of Redis it is for.
type sharedClient struct{ redis.UniversalClient }

// MakeRedisClient implements asynq.RedisConnOpt.
func (c sharedClient) MakeRedisClient() any { return c.UniversalClient }

func newMonitor(client redis.UniversalClient, v redact.View, mayWrite bool) *monitor {
	root := strings.TrimSuffix(monitorPath, "/")
	m := &monitor{view: v, turns: make(chan struct{}, maxReading), asynqmon: asynqmon.New(asynqmon.Options{
		RootPath:         root,
		RedisConnOpt:     sharedClient{asynqbatch.ArchiveClient(client)},
		PayloadFormatter: asynqmon.PayloadFormatterFunc(formatter{v}.payload),
		ResultFormatter:  asynqmon.ResultFormatterFunc(formatter{v}.result),
		ReadOnly:         !mayWrite,
	})}
	// asynqmon asks about Redis only a client whose type it knows.
	m.info = asynqmon.New(asynqmon.Options{RootPath: root, RedisConnOpt: sharedClient{client}, ReadOnly: true})
	page := newRecorder()
	r, _ := http.NewRequest(http.MethodGet, monitorPath, nil) //nolint:noctx // it goes nowhere
	m.asynqmon.ServeHTTP(page, r)
	m.index = foreignStyle.ReplaceAll(page.body.Bytes(), nil)
	// Its style sheets are made by its scripts.
	m.policy = "default-src 'none'; script-src 'self'" + scriptHashes(m.index) + "; style-src 'self' 'unsafe-inline'; " +
		"img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; " +
		"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
	return m
}

// foreignStyle is a style sheet of another server's.
var foreignStyle = regexp.MustCompile(`<link rel="stylesheet" href="https?://[^>]*>`)

func (m *monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, monitorPath)
	switch {
	case strings.HasPrefix(path, "api/"):
		m.api(w, r)
	case strings.HasPrefix(path, "static/"), path != "" && !strings.Contains(path, "/") && strings.Contains(path, "."):
		w.Header().Set("Cache-Control", "private, max-age=3600")
		m.asynqmon.ServeHTTP(w, r)
	default:
		w.Header().Set("Content-Security-Policy", m.policy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(m.index) //nolint:gosec // asynqmon's own page, as it was at the start
	}
}

// api passes a call on and masks what comes back.
func (m *monitor) api(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if n, err := strconv.Atoi(query.Get("size")); err == nil && n > maxPageSize {
		r = r.Clone(r.Context())
		query.Set("size", strconv.Itoa(maxPageSize))
		r.URL.RawQuery = query.Encode()
	}
	select {
	case m.turns <- struct{}{}:
		defer func() { <-m.turns }()
	case <-r.Context().Done():
		return
	}
	handler := m.asynqmon
	if r.URL.Path == monitorPath+"api/redis_info" {
		handler = m.info
	}
	reply := newRecorder()
	handler.ServeHTTP(reply, r)
	body := reply.body.Bytes()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8") // an error of asynqmon's
	var value any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if decoder.Decode(&value) == nil {
		writeJSON(w, reply.code, m.masked(value))
		return
	}
	w.WriteHeader(reply.code)
	_, _ = w.Write([]byte(m.view.Text(string(body), maxReason)))
}

// masked is the value with the texts of errors shown as the pages show them.
func (m *monitor) masked(value any) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = m.masked(v[i])
		}
	case map[string]any:
		for key, inner := range v {
			if reason, ok := inner.(string); ok && key == "error_message" {
				v[key] = m.view.Text(reason, maxReason)
				continue
			}
			v[key] = m.masked(inner)
		}
	}
	return value
}

var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// scriptHashes is what a Content-Security-Policy says of the scripts inside a page.
func scriptHashes(page []byte) string {
	var b strings.Builder
	for _, found := range inlineScript.FindAllSubmatch(page, -1) {
		b.WriteString(" " + sourceHash(string(found[1])))
	}
	return b.String()
}

// recorder keeps a reply instead of sending it.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func newRecorder() *recorder { return &recorder{header: http.Header{}, code: http.StatusOK} }

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) { r.code = code }

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
