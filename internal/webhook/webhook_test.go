package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/publicaddr"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

const (
	secret      = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherSecret = "whsec_" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// posted is a request as a receiver got it.
type posted struct {
	header http.Header
	body   []byte
	path   string
}

// receiver is a server that keeps what is posted to it and answers as it is told.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	posts []posted
}

// startReceiver starts a receiver. answer is called for each post, with how many there were with that ID before.
func startReceiver(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, before int)) *receiver {
	t.Helper()
	rec := &receiver{}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was cut off
		}
		rec.mu.Lock()
		before := 0
		for _, p := range rec.posts {
			if p.header.Get("Webhook-Id") == r.Header.Get("Webhook-Id") {
				before++
			}
		}
		rec.posts = append(rec.posts, posted{r.Header.Clone(), body, r.URL.String()})
		rec.mu.Unlock()
		answer(w, r, before)
	}))
	t.Cleanup(rec.Close)
	return rec
}

func (r *receiver) all() []posted {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]posted{}, r.posts...)
}

func takes(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusNoContent) }

func to(t testing.TB, url string, secrets ...string) target.Target {
	t.Helper()
	if len(secrets) == 0 {
		secrets = []string{secret}
	}
	one, err := target.New(url, secrets, true)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// started is a dispatcher that runs.
type started struct {
	*Dispatcher
	stop  func() // ends it in order
	log   *buffer
	tries func() []Try
}

// start runs a dispatcher until the test ends. The sources are those of the targets, in their order.
func start(t testing.TB, cfg Config, sources ...source) started {
	t.Helper()
	byKey := map[string]source{}
	if len(sources) > 0 {
		for i, one := range cfg.Targets {
			byKey[one.Key()] = sources[i]
		}
		cfg.source = func(key string) source { return byKey[key] }
	}
	log := &buffer{}
	logger := zerolog.New(log)
	cfg.Logger, cfg.AllowPrivate = &logger, true
	var mu sync.Mutex
	var all []Try
	cfg.Observers = append(cfg.Observers, Observer{}, Observer{Tried: func(try Try) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, try)
	}})
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	stop := func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return started{d, stop, log, func() []Try {
		mu.Lock()
		defer mu.Unlock()
		return append([]Try{}, all...)
	}}
}

// await waits until something is true.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// written is a header field that was written with these letters, which Header.Get does not find.
func written(h http.Header, name string) string { return strings.Join(h[name], "|") }

// verified reports whether the signatures of a post have one of that secret, as the specification makes it. The libraries of
// others are asked in receiver_test.go and in interop.
func verified(t *testing.T, p posted, secret string) bool {
	t.Helper()
	id, at := p.header.Get("Webhook-Id"), p.header.Get("Webhook-Timestamp")
	unix, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		t.Fatalf("timestamp %q", at)
	}
	again := http.Header{}
	to(t, "https://example.com/", secret).Sign(again, id, time.Unix(unix, 0), p.body)
	return strings.Contains(" "+p.header.Get("Webhook-Signature")+" ", " "+written(again, "webhook-signature")+" ")
}

func TestDispatcher_posts(t *testing.T) {
	t.Parallel()
	rec := startReceiver(t, takes)
	source := newMemory(event(1))
	source.events[0].Mailer, source.events[0].Mailing = "marketing", "November"
	source.events[0].At = time.Date(2026, 11, 27, 7, 30, 0, 123000000, time.FixedZone("", 3600))
	d := start(t, Config{Targets: []target.Target{to(t, rec.URL+"/hooks?x=y", secret, otherSecret)}}, source)
	source.await(t, 1)
	await(t, "the try", func() bool { return len(d.tries()) == 1 })
	posts := rec.all()
	if len(posts) != 1 {
		t.Fatalf("%d posts", len(posts))
	}
	p := posts[0]
	const want = `{"type":"email.sent","created_at":"2026-11-27T06:30:00.123Z","timestamp":"2026-11-27T06:30:00.123Z","data":{` +
		`"email_id":"task-1","message_id":"<1@example.com>","to":["ann+1@example.com"],"queue":"default","mailer":"marketing","mailing":"November",` +
		`"tags":["welcome"],"reply":"250 2.0.0 Ok: queued as ÄÖ \u2028 <4711>","tries":1}}`
	if string(p.body) != want {
		t.Errorf("body\n%s\nwant\n%s", p.body, want)
	}
	if p.path != "/hooks?x=y" || p.header.Get("Content-Type") != "application/json" || p.header.Get("Webhook-Id") != "evt_1" || p.header.Get("Idempotency-Key") != "" {
		t.Errorf("%s %v", p.path, p.header)
	}
	for _, name := range []string{"Id", "Timestamp", "Signature"} {
		if p.header.Get("Webhook-"+name) == "" || p.header.Get("Webhook-"+name) != p.header.Get("Svix-"+name) {
			t.Errorf("%s: %q and %q", name, p.header.Get("Webhook-"+name), p.header.Get("Svix-"+name))
		}
	}
	if !verified(t, p, secret) || !verified(t, p, otherSecret) {
		t.Errorf("signatures %q", p.header.Get("Webhook-Signature"))
	}
	if s := d.State()[0]; s.Name != strings.TrimPrefix(rec.URL, "http://") || s.Delivered != 1 || s.Failed != 0 || s.Waiting != 0 || !s.Oldest.IsZero() || s.LastError != "" {
		t.Errorf("%+v", s)
	}
	if tries := d.tries(); tries[0].Result != Delivered || tries[0].Code != http.StatusNoContent || tries[0].Number != 1 || tries[0].Err != nil || tries[0].Took <= 0 {
		t.Errorf("%+v", tries)
	}
}

func TestEncode_sameFields(t *testing.T) {
	t.Parallel()
	least, err := encode(events.Event{ID: "evt_1", Type: "email.queued"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"email.queued","created_at":"0001-01-01T00:00:00Z","timestamp":"0001-01-01T00:00:00Z","data":{` +
		`"email_id":"","message_id":"","to":[""],"queue":"","mailer":"","mailing":"","tags":[],"reply":"","tries":0}}`
	if string(least) != want {
		t.Errorf("%s", least)
	}
	broken, err := encode(events.Event{Reply: "550 caf\xe9 \x00"})
	if err != nil || !json.Valid(broken) || !bytes.Contains(broken, []byte("\ufffd")) && !bytes.Contains(broken, []byte(`\ufffd`)) {
		t.Errorf("%s, %v", broken, err)
	}
}

// All tries have the same ID and bytes, each has its own time, and an endpoint that stumbles over some events gets the others meanwhile.
func TestDispatcher_again(t *testing.T) {
	t.Parallel()
	looked := make(chan struct{})
	rec := startReceiver(t, func(w http.ResponseWriter, r *http.Request, before int) {
		if r.Header.Get("Webhook-Id") == "evt_3" {
			if before == 0 {
				http.Error(w, "no such customer: <ann@example.com>", http.StatusInternalServerError)
				return
			}
			select {
			case <-looked:
			case <-r.Context().Done():
			}
		}
		w.WriteHeader(http.StatusOK)
	})
	source := newMemory(someEvents(40)...)
	d := start(t, Config{Timeout: time.Hour, Targets: []target.Target{to(t, rec.URL)}}, source)
	source.await(t, 39)
	await(t, "the others", func() bool { s := d.State()[0]; return s.Delivered == 39 && s.Failed == 1 })
	if s := d.State()[0]; s.LastError != "HTTP 500 Internal Server Error: no such customer: <a***@example.com>" || s.Waiting+s.UnderWay != 1 || s.Oldest.IsZero() || !s.FailingSince.IsZero() {
		t.Errorf("%+v", s)
	}
	close(looked)
	source.await(t, 40)
	var bodies, stamps []string
	for _, p := range rec.all() {
		if p.header.Get("Webhook-Id") == "evt_3" {
			bodies, stamps = append(bodies, string(p.body)), append(stamps, p.header.Get("Webhook-Timestamp"))
			if !verified(t, p, secret) {
				t.Error("wrong signature")
			}
		}
	}
	if len(bodies) != 2 || bodies[0] != bodies[1] || stamps[0] == stamps[1] {
		t.Errorf("bodies %q at %q", bodies, stamps)
	}
	if d.log.String() != "" {
		t.Errorf("one event that fails is logged: %s", d.log)
	}
}

// 410 ends an endpoint and no other one, until it is told to begin anew.
func TestDispatcher_gone(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	gone.Store(true)
	ends := startReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		if gone.Load() {
			w.WriteHeader(http.StatusGone)
		}
	})
	other := startReceiver(t, takes)
	first, second := newMemory(someEvents(100)...), newMemory(someEvents(100)...)
	targets := []target.Target{to(t, ends.URL), to(t, other.URL)}
	d := start(t, Config{Targets: targets, Concurrency: 4}, first, second)
	second.await(t, 100)
	await(t, "the end", func() bool { s := d.State()[0]; return !s.EndedAt.IsZero() && s.UnderWay == 0 })
	if n := len(ends.all()); n == 0 || n > 4 || first.ackedIDs() != 0 {
		t.Errorf("%d posts, %d acknowledged", n, first.ackedIDs())
	}
	if n := strings.Count(d.log.String(), "wants no more events (410)"); n != 1 {
		t.Errorf("logged %d times: %s", n, d.log)
	}
	await(t, "the tries of both", func() bool { return len(d.tries()) >= 101 })
	if s := d.State()[1]; !s.EndedAt.IsZero() {
		t.Errorf("%+v", s)
	}
	gone.Store(false)
	if err := d.Reload(targets); err != nil {
		t.Fatal(err)
	}
	first.await(t, 100)
	if s := d.State()[0]; !s.EndedAt.IsZero() {
		t.Errorf("%+v", s)
	}
}

// Secrets are changed, endpoints come and go, while others go on.
func TestDispatcher_Reload(t *testing.T) {
	t.Parallel()
	rec := startReceiver(t, takes)
	one := func(path string, secrets ...string) target.Target { return to(t, rec.URL+path, secrets...) }
	a, b, c := newMemory(event(1)), newMemory(event(1)), newMemory(event(1))
	sources := map[string]*memory{one("/a").Key(): a, one("/b").Key(): b, one("/c").Key(): c}
	cfg := Config{source: func(key string) source { return sources[key] }}
	cfg.Targets = []target.Target{one("/a"), one("/b")}
	d := start(t, cfg)
	a.await(t, 1)
	b.await(t, 1)
	if err := d.Reload([]target.Target{one("/a?token=new", otherSecret), one("/c")}); err != nil {
		t.Fatal(err)
	}
	c.await(t, 1)
	a.add(event(2))
	a.await(t, 2)
	await(t, "the end of /b", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.closed
	})
	b.add(event(2))
	var paths []string
	for _, p := range rec.all() {
		if p.path == "/a?token=new" && (!verified(t, p, otherSecret) || verified(t, p, secret)) {
			t.Error("not signed with the new secret")
		}
		paths = append(paths, p.path)
	}
	if got := strings.Join(paths, " "); !strings.HasSuffix(got, "/c /a?token=new") || len(paths) != 4 {
		t.Errorf("posted to %s", got)
	}
	await(t, "the count", func() bool { return d.State()[0].Delivered == 2 })
	if s := d.State(); len(s) != 2 || s[0].Name == s[1].Name || s[1].Name != s[0].Name+"#2" {
		t.Errorf("%+v", s)
	}
	if err := d.Reload([]target.Target{one("/a"), one("/a?x")}); !errors.Is(err, ErrTwice) {
		t.Errorf("error %v", err)
	}
}

// An endpoint that does not answer, one that is slow, one that redirects and one that is not there do not hold up the one that works.
func TestDispatcher_othersGoOn(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	silent := startReceiver(t, func(_ http.ResponseWriter, r *http.Request, _ int) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	works := startReceiver(t, takes)
	redirects := startReceiver(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		http.Redirect(w, r, works.URL+"/stolen", http.StatusPermanentRedirect)
	})
	away := httptest.NewServer(nil)
	away.Close()
	sources := []source{newMemory(someEvents(50)...), newMemory(someEvents(50)...), newMemory(someEvents(50)...), newMemory(someEvents(500)...)}
	d := start(t, Config{Timeout: time.Second, Grace: time.Millisecond, Targets: []target.Target{
		to(t, silent.URL), to(t, redirects.URL+"/?token=t0ken"), to(t, away.URL), to(t, works.URL),
	}}, sources...)
	sources[3].(*memory).await(t, 500)
	for i, want := range []string{"no answer in time", "HTTP 308 Permanent Redirect; redirects are not followed", "connection refused"} {
		var s EndpointState
		await(t, "a pause of "+want, func() bool { // between two pauses there is a try
			s = d.State()[i]
			return !s.FailingSince.IsZero() && !s.NextTry.IsZero() && strings.Contains(s.LastError, want)
		})
		if s.Delivered != 0 || sources[i].(*memory).ackedIDs() != 0 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(d.log.String(), s.Name+`","error"`); n != 1 {
			t.Errorf("logged %d times: %s", n, d.log)
		}
	}
	for _, p := range works.all() {
		if p.path == "/stolen" {
			t.Fatal("a redirect was followed")
		}
	}
	if strings.Contains(d.log.String(), "t0ken") {
		t.Errorf("the log shows the URL: %s", d.log)
	}
}

// No more posts are under way than are allowed, and as many as that.
func TestDispatcher_concurrency(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	full := make(chan struct{})
	rec := startReceiver(t, func(_ http.ResponseWriter, r *http.Request, _ int) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 5 {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		select {
		case <-full:
		case <-r.Context().Done():
		}
	})
	source := newMemory(someEvents(200)...)
	start(t, Config{Concurrency: 5, Timeout: time.Minute, Targets: []target.Target{to(t, rec.URL)}}, source)
	source.await(t, 200)
	if most.Load() != 5 {
		t.Errorf("%d posts at once", most.Load())
	}
	source.mu.Lock()
	defer source.mu.Unlock()
	if source.most > 5 {
		t.Errorf("asked for %d events at once", source.most)
	}
}

// Without leave nothing is posted to private addresses, whatever name they have, and no proxy is asked to.
func TestDispatcher_private(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	rec := startReceiver(t, takes)
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		url := strings.Replace(rec.URL, "127.0.0.1", host, 1)
		client := newClient(false, nil, 1)
		a := post(t.Context(), client, to(t, url), "evt_1", nil)
		var refused *publicaddr.RefusedError
		if !errors.As(a.err, &refused) || !strings.Contains(a.err.Error(), "is not a public address") {
			t.Errorf("%s: %+v", host, a)
		}
		a = post(t.Context(), newClient(true, nil, 1), to(t, url), "evt_1", nil)
		if a.err != nil {
			t.Errorf("%s, allowed: %v", host, a.err)
		}
		client.CloseIdleConnections()
	}
	if n := len(rec.all()); n != 4 {
		t.Errorf("%d posts", n)
	}
}

// An answer that does not end takes neither memory nor time, and one that is a success stays one.
func TestPost_endlessAnswer(t *testing.T) {
	t.Parallel()
	rec := startReceiver(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusBadRequest)
		}
		if r.URL.Path == "/silent" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		chunk := []byte(strings.Repeat("x", 1000) + "ann@example.com\n\x1b[31m")
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	client := newClient(true, nil, 1)
	defer client.CloseIdleConnections()
	if a := post(t.Context(), client, to(t, rec.URL+"/good"), "evt_1", nil); a.err != nil || a.code != 200 {
		t.Errorf("%+v", a)
	}
	if a := post(t.Context(), client, to(t, rec.URL+"/silent"), "evt_1", nil); a.err != nil || a.code != 200 {
		t.Errorf("%+v", a)
	}
	a := post(t.Context(), client, to(t, rec.URL+"/bad"), "evt_1", nil)
	var status *StatusError
	if !errors.As(a.err, &status) || status.Code != 400 || len(a.err.Error()) > mostTold+50 || strings.Contains(a.err.Error(), "\x1b") {
		t.Errorf("%+v", a)
	}
}

// Of what is no answer at all, an error has the beginning.
func TestPost_noAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(strings.Repeat("ann@example.com", 4000) + "\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	client := newClient(true, nil, 1)
	defer client.CloseIdleConnections()
	a := post(t.Context(), client, to(t, "http://"+l.Addr().String()), "evt_1", nil)
	if a.err == nil || a.code != 0 || len(a.err.Error()) > mostTold+50 || strings.Contains(a.err.Error(), "ann@") {
		t.Errorf("%+v", a)
	}
}

// A connection that the receiver has closed while it was idle is no failure.
func TestPost_staleConnection(t *testing.T) {
	t.Parallel()
	rec := startReceiver(t, takes)
	client := newClient(true, nil, 4)
	defer client.CloseIdleConnections()
	for range 50 {
		if a := post(t.Context(), client, to(t, rec.URL), "evt_1", []byte("{}")); a.err != nil {
			t.Fatal(a.err)
		}
		rec.CloseClientConnections()
	}
}

// HTTPS with a certificate of another authority, over HTTP/2.
func TestPost_tls(t *testing.T) {
	t.Parallel()
	protocol := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { protocol <- r.Proto }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	trusting := newClient(true, server.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), 1)
	defer trusting.CloseIdleConnections()
	if a := post(t.Context(), trusting, to(t, server.URL), "evt_1", []byte("{}")); a.err != nil || <-protocol != "HTTP/2.0" {
		t.Errorf("%+v", a)
	}
	strict := newClient(true, nil, 1)
	defer strict.CloseIdleConnections()
	if a := post(t.Context(), strict, to(t, server.URL), "evt_1", []byte("{}")); a.err == nil || a.code != 0 {
		t.Errorf("a certificate of nobody was taken: %+v", a)
	}
}

// Neither secrets nor URLs are in logs, errors and states, whatever fails.
func TestDispatcher_hides(t *testing.T) {
	t.Parallel()
	away := httptest.NewServer(nil)
	away.Close()
	source := newMemory(someEvents(3)...)
	url := strings.Replace(away.URL, "http://", "http://me:t0ken@", 1) + "/t0ken?t0ken"
	d := start(t, Config{Targets: []target.Target{to(t, url)}}, source)
	await(t, "failures", func() bool { return d.State()[0].Failed >= 3 })
	d.stop()
	text := d.log.String()
	for _, s := range d.State() {
		text += s.Name + s.LastError
	}
	for _, try := range d.tries() {
		text += try.Endpoint + try.Err.Error()
	}
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	for _, not := range []string{"t0ken", strings.TrimPrefix(secret, "whsec_"), string(key)} {
		if strings.Contains(text, not) {
			t.Errorf("it shows %q: %s", not, text)
		}
	}
}
