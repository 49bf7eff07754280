package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// A client that is closed while it dials goes on with that for a second.
func TestMain(m *testing.M) {
	redistest.VerifyTestMain(m)
}

// house is a Redis with a queue, and the API in front of it.
type house struct {
	t      *testing.T
	redis  *redistest.Server
	client redis.UniversalClient
	queue  *tasks.Queue
	server *httptest.Server
	log    *safeBuffer
	secret string // of the key "shop"
	other  string // of the key "bank"
}

// safeBuffer is a buffer for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newHouse has the keys shop and bank. change, if not nil, may change the one of the shop.
func newHouse(t *testing.T, cfg Config, change func(*intake.Key)) *house {
	t.Helper()
	h := &house{t: t, redis: redistest.Start(t, redistest.Options{}), log: new(safeBuffer)}
	client, err := tasks.Connect(h.redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	h.client = client
	h.queue = tasks.NewQueue(client, tasks.QueueConfig{Mailers: []string{"marketing"}, Defaults: mailer.Defaults{Hostname: "app.example.com"}, MaxMessageSize: 5 << 20})
	shop, secret := intake.NewKey("shop")
	bank, other := intake.NewKey("bank")
	h.secret, h.other = secret, other
	if change != nil {
		change(&shop)
	}
	var lines bytes.Buffer
	for _, key := range []intake.Key{shop, bank} {
		line, err := json.Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	keys, err := intake.ReadKeys(&lines)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = zerolog.New(h.log)
	handler := New(intake.New(client, h.queue, keys), cfg)
	h.server = httptest.NewUnstartedServer(handler)
	h.server.Config = handler.Server()
	h.server.Start()
	t.Cleanup(h.server.Close)
	return h
}

// answer is what the API has answered.
type answer struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

// id is the ID of what was handed over.
func (a answer) id() string {
	id, _ := a.body["id"].(string)
	return id
}

func (a answer) text(field string) string {
	s, _ := a.body[field].(string)
	return s
}

// request is one to the API: of the shop, unless it has another secret.
type request struct {
	method, path string
	body         string
	header       map[string]string
	secret       string
	unlike       bool // the request is not as the document says, and is to be refused
}

// do makes a request. It and its answer have to be as the document says.
func (h *house) do(r request) answer {
	h.t.Helper()
	if r.secret == "" {
		r.secret = h.secret
	}
	req, err := http.NewRequestWithContext(h.t.Context(), r.method, h.server.URL+r.path, strings.NewReader(r.body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.secret)
	req.Header.Set("Content-Type", "application/json")
	for name, value := range r.header {
		if value == "" {
			req.Header.Del(name)
		} else {
			req.Header.Set(name, value)
		}
	}
	resp, err := h.server.Client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(data)}
	if err := json.Unmarshal(data, &a.body); err != nil {
		h.t.Fatalf("%s %s: %v: %s", r.method, r.path, err, data)
	}
	if kind := resp.Header.Get("Content-Type"); kind != "application/json" {
		h.t.Errorf("%s %s: Content-Type %q", r.method, r.path, kind)
	}
	h.asDocumented(r, a)
	return a
}

// asDocumented checks a request that was answered with success, and each answer, against the document.
func (h *house) asDocumented(r request, a answer) {
	h.t.Helper()
	path, _, _ := strings.Cut(r.path, "?")
	if parts := strings.Split(path, "/"); len(parts) > 2 && parts[1] == "emails" && parts[2] != "batch" {
		parts[2] = "{id}"
		path = strings.Join(parts, "/")
	}
	at := "#/paths/" + strings.ReplaceAll(path, "/", "~1") + "/" + strings.ToLower(r.method)
	d := document(h.t)
	if !d.has(at) {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			h.t.Errorf("%s is not in the document, and is answered with %d", at, a.status)
		}
		d.check(h.t, "#/components/schemas/Error", a.raw)
		return
	}
	response := d.follow(at + "/responses/" + strconv.Itoa(a.status))
	if !d.has(response) {
		h.t.Errorf("%s %s: the document has no answer with %d: %s", r.method, r.path, a.status, a.raw)
		return
	}
	d.check(h.t, response+"/content/application~1json/schema", a.raw)
	schema := at + "/requestBody/content/application~1json/schema"
	if !d.has(schema) || strings.HasPrefix(r.header["Content-Type"], typeMessage) || r.header[headerValidation] == permissive {
		return
	}
	switch err := d.validate(h.t, schema, r.body); {
	case a.status == http.StatusOK && err != nil:
		h.t.Errorf("%s %s: a request that was answered with success is not as the document says: %v", r.method, r.path, err)
	case r.unlike && err == nil:
		h.t.Errorf("%s %s: a request that is refused is as the document says: %s", r.method, r.path, r.body)
	}
}

// waiting are the messages in a queue of asynq's, whatever they wait for.
func (h *house) waiting(queue string) []*mailer.EmailMessage {
	h.t.Helper()
	var all []*mailer.EmailMessage
	for _, key := range slices.Sorted(slices.Values(h.client.Keys(h.t.Context(), "asynq:{"+queue+"}:t:*").Val())) {
		id := key[strings.LastIndex(key, ":")+1:]
		_, m, err := h.queue.Message(h.t.Context(), id)
		if err != nil || m == nil {
			h.t.Fatalf("%s: %v, %v", id, m, err)
		}
		all = append(all, m)
	}
	return all
}

// only is the one message in a queue.
func (h *house) only(queue string) *mailer.EmailMessage {
	h.t.Helper()
	all := h.waiting(queue)
	if len(all) != 1 {
		h.t.Fatalf("%d messages in %s, want one", len(all), queue)
	}
	return all[0]
}

// tasks is how many tasks there are in all queues.
func (h *house) tasks() int {
	return len(h.client.Keys(h.t.Context(), "asynq:*:t:*").Val())
}

// relay takes messages, or answers them as it is told.
type relay struct {
	mu     sync.Mutex
	answer func(m *mailer.EmailMessage) mailer.Result
	got    []*mailer.EmailMessage
}

func (r *relay) Open(context.Context) (bool, error) { return true, nil }
func (r *relay) Close() error                       { return nil }

func (r *relay) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (int, error) {
	return mailer.Collect(ctx, r, messages)
}

func (r *relay) SendBatch(_ context.Context, b mailer.Batch) {
	for i, m := range b.Messages {
		if b.Begin != nil {
			var err error
			if m, err = b.Begin(i); err != nil {
				b.Report([]mailer.Report{{Index: i, Result: mailer.Result{Err: err}}})
				continue
			}
		}
		if b.Commit != nil {
			if err := b.Commit(i); err != nil {
				b.Report([]mailer.Report{{Index: i, Result: mailer.Result{Err: err}}})
				continue
			}
		}
		r.mu.Lock()
		result := mailer.Result{Reply: "250 2.0.0 Ok: queued as 4F0"}
		if r.answer != nil {
			result = r.answer(m)
		}
		if result.Err == nil {
			r.got = append(r.got, m)
		}
		r.mu.Unlock()
		b.Report([]mailer.Report{{Index: i, Result: result}})
	}
}

func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// work runs a worker until the test ends, which delivers to the relay.
func (h *house) work(r *relay) {
	h.t.Helper()
	client, err := redisconn.ConnectWorker(h.redis.URL())
	if err != nil {
		h.t.Fatal(err)
	}
	w, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect:  func(string) (mailer.Backend, error) { return r, nil },
		RetryMin: time.Hour, RetryMax: time.Hour, History: tasks.History{For: time.Hour, Size: 1 << 20},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		_ = client.Close()
	})
}

// eventually waits for something that a worker does.
func (h *house) eventually(what string, is func() bool) {
	h.t.Helper()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if is() {
			return
		}
	}
	h.t.Fatalf("it did not come to: %s", what)
}

// The document.

// openapi is the document, as it is served.
type openapi struct {
	root     any
	compiler *jsonschema.Compiler
	mu       sync.Mutex
}

var document = func() func(t *testing.T) *openapi {
	load := sync.OnceValues(func() (*openapi, error) {
		root, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
		if err != nil {
			return nil, err
		}
		d := &openapi{root: root, compiler: jsonschema.NewCompiler()}
		d.compiler.DefaultDraft(jsonschema.Draft2020) // which OpenAPI 3.1 is of
		d.compiler.AssertFormat()
		return d, d.compiler.AddResource("openapi.json", root)
	})
	return func(t *testing.T) *openapi {
		t.Helper()
		d, err := load()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}()

// get returns what a pointer points to.
func (d *openapi) get(pointer string) (any, bool) {
	at := d.root
	for _, token := range strings.Split(strings.TrimPrefix(pointer, "#/"), "/") {
		object, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		if at, ok = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(token)]; !ok {
			return nil, false
		}
	}
	return at, true
}

func (d *openapi) has(pointer string) bool {
	_, ok := d.get(pointer)
	return ok
}

// follow is the pointer that is referred to, or itself.
func (d *openapi) follow(pointer string) string {
	if v, ok := d.get(pointer); ok {
		if object, ok := v.(map[string]any); ok {
			if to, ok := object["$ref"].(string); ok {
				return to
			}
		}
	}
	return pointer
}

func (d *openapi) keys(pointer string) []string {
	v, _ := d.get(d.follow(pointer))
	object, _ := v.(map[string]any)
	return slices.Sorted(maps.Keys(object))
}

// validate checks JSON against the schema that a pointer points to.
func (d *openapi) validate(t *testing.T, pointer, data string) error {
	t.Helper()
	d.mu.Lock()
	schema, err := d.compiler.Compile("openapi.json" + d.follow(pointer))
	d.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(data))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func (d *openapi) check(t *testing.T, pointer, data string) {
	t.Helper()
	if err := d.validate(t, pointer, data); err != nil {
		t.Errorf("not as %s says: %v\n%s", pointer, err, data)
	}
}
