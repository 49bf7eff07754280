package pages

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// deadLetters makes dead letters with these reasons.
func deadLetters(t testing.TB, client redis.UniversalClient, o tasks.Options, reasons ...string) (ids []string) {
	t.Helper()
	q := tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{Hostname: "h.example"}})
	queue := "default"
	if o.Queue != "" {
		queue = o.Queue
	}
	for i, reason := range reasons {
		id, err := q.With(o).Enqueue(t.Context(), &mailer.EmailMessage{
			Subject: fmt.Sprintf("Invoice %d", i), FromEmail: "shop@example.com", To: []string{fmt.Sprintf("ann%d@example.com", i)}, Body: "the-secret-body\n",
		})
		if err != nil {
			t.Fatal(err)
		}
		inspector := asynq.NewInspectorFromRedisClient(client)
		if err := inspector.ArchiveTask(queue, id); err != nil {
			t.Fatal(err)
		}
		if err := client.HSet(t.Context(), "asynq:{"+queue+"}:t:"+id, wire.FieldReason, reason).Err(); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// post sends a form as a page of the server does.
func post(t testing.TB, s *Server, path string, form url.Values, change ...func(*http.Request)) (head answer, body string) {
	t.Helper()
	data := form.Encode()
	return do(t, s, http.MethodPost, path, append([]func(*http.Request){
		header("Content-Type", "application/x-www-form-urlencoded"), header("Sec-Fetch-Site", "same-origin"), func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(data)), int64(len(data))
		},
	}, change...)...)
}

var subjects = regexp.MustCompile(`Invoice \d+`)

// shown are the subjects of the letters in a list.
func shown(body string) []string {
	_, list, _ := strings.Cut(body, `<ol class="card letters`)
	found := subjects.FindAllString(regexp.MustCompile(`aria-label="[^"]*"`).ReplaceAllString(list, ""), -1)
	slices.Sort(found)
	return found
}

func TestLetters_filter(t *testing.T) {
	t.Parallel()
	client := connect(t, redistest.Start(t, redistest.Options{}).URL())
	deadLetters(t, client, tasks.Options{Tags: []string{"invoice"}, Mailing: "news"}, "550 5.1.1 <ann0@example.com>: unknown (RCPT)", "552 5.2.2 over QUOTA (end of data)")
	masked := serve(t, Config{Redis: client, Queues: map[string]int{"default": 1, "bulk": 1}})
	full := serve(t, Config{Redis: client, ShowAddresses: true, AllowWrite: true})
	for _, tt := range []struct {
		server *Server
		query  string
		want   string // subjects, or what is wrong
		code   int
	}{
		{masked, "", "Invoice 0,Invoice 1", 200},
		{masked, "tag=invoice", "Invoice 0,Invoice 1", 200},
		{masked, "tag=", "Invoice 0,Invoice 1", 200},
		{masked, "tag=other", "", 200},
		{masked, "mailing=news&reason=quota", "Invoice 1", 200},
		{masked, "to=ANN0@example.com", "Invoice 0", 200},
		{masked, "to=@example.com&queue=default&mailer=default", "Invoice 0,Invoice 1", 200},
		{masked, "queue=bulk", "", 200},
		{masked, "subject=invoice+1", "Invoice 1", 200},
		{masked, "reason=ann0@", "", 200}, // nobody finds out an address by asking
		{full, "reason=ann0@", "Invoice 0", 200},
		{full, "to=ann1", "Invoice 1", 200},
		{masked, "since=1h", "Invoice 0,Invoice 1", 200},
		{masked, "until=1h", "", 200},
		{masked, "group=" + url.QueryEscape("552 5.2.2 over QUOTA (end of data)"), "Invoice 1", 200},
		{masked, "page=3", "", 200},
		{masked, "to=ann1", "to: while addresses are masked, a whole address is expected, or @ and a domain", 400},
		{masked, "since=yesterday", `since: "yesterday" is no time: 2026-11-26`, 400},
		{masked, "queue=nosuch", `queue: there is no "nosuch" (there are bulk, default)`, 400},
		{masked, "mailer=nosuch", `mailer: there is no "nosuch" (there are default)`, 400},
		{masked, "page=-1", "page: a number below", 400},
		{masked, "page=x&since=x", "page: a number below", 400},
		{masked, "reason=%ff", "reason: a text of at most", 400},
		{masked, "tag=" + strings.Repeat("x", 2000), "tag: a text of at most", 400},
		{masked, "reason=%3Cscript%3Ealert(1)%3C/script%3E", "", 200},
	} {
		reply, body := get(t, tt.server, "/dead?"+tt.query)
		text := html.UnescapeString(body)
		if reply.StatusCode != tt.code || tt.code == 200 && strings.Join(shown(body), ",") != tt.want || tt.code != 200 && !strings.Contains(text, tt.want) {
			t.Errorf("%s: %s, want %s\n%s", tt.query, reply.Status, tt.want, body)
		}
		if tt.server == masked && (strings.Contains(body, "ann0@example.com:") || strings.Contains(body, "ann1@example")) || strings.Contains(body, "the-secret-body") || strings.Contains(body, "<script>alert") {
			t.Errorf("%s: it shows too much", tt.query)
		}
	}
	if _, body := get(t, full, "/retries"); !strings.Contains(body, "No message waits for another try.") {
		t.Errorf("no retries: %s", body)
	}
	// Without Redis the page says so.
	if reply, body := get(t, serve(t, Config{Redis: away(t)}), "/dead"); reply.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "Redis does not answer") {
		t.Errorf("without Redis: %s %s", reply.Status, body)
	}
}

// What the buttons do is done once, to what was chosen, and never for a page of somebody else's.
func TestLetters_acts(t *testing.T) {
	t.Parallel()
	client := connect(t, redistest.Start(t, redistest.Options{}).URL())
	ids := deadLetters(t, client, tasks.Options{}, "550 one", "550 two", "552 three", "552 four")
	key := func(i int) string { return "default " + ids[i] }
	readOnly, s := serve(t, Config{Redis: client}), serve(t, Config{Redis: client, AllowWrite: true})
	left := func(want int) {
		t.Helper()
		if n, err := tasks.NewDeadLetters(client).Count(t.Context(), "default"); err != nil || n != want {
			t.Errorf("%d dead letters (%v), want %d", n, err, want)
		}
	}
	one := url.Values{"do": {"delete"}, "letter": {key(0)}, "sure": {"yes"}}
	for name, tt := range map[string]struct {
		server *Server
		form   url.Values
		with   []func(*http.Request)
		code   int
		want   string
	}{
		"not allowed":            {readOnly, one, nil, 405, "EMAIL_HTTP_ALLOW_WRITE"},
		"of another site":        {s, one, []func(*http.Request){header("Sec-Fetch-Site", "cross-site")}, 403, ""},
		"of another origin":      {s, one, []func(*http.Request){header("Sec-Fetch-Site", ""), header("Origin", "https://evil.example")}, 403, ""},
		"under another name":     {s, one, []func(*http.Request){host("evil.example")}, 421, ""},
		"nothing chosen":         {s, url.Values{"do": {"delete"}}, nil, 303, ""},
		"no such button":         {s, url.Values{"do": {"burn"}, "letter": {key(0)}}, nil, 400, "no such button"},
		"a bad filter":           {s, url.Values{"do": {"replay"}, "all": {"4"}, "since": {"x"}, "sure": {"yes"}}, nil, 400, "since: "},
		"not sure":               {s, url.Values{"do": {"delete"}, "letter": {key(0)}}, nil, 200, "Delete this message?"},
		"not sure of all":        {s, url.Values{"do": {"replay"}, "all": {"4"}}, nil, 200, "Replay all 4 of these messages?"},
		"not sure of a filter's": {s, url.Values{"do": {"replay"}, "all": {"2"}, "reason": {"552"}}, nil, 200, "all that fit the filter"},
		"messages, masked":       {s, url.Values{"do": {"eml"}, "all": {"4"}}, nil, 403, "EMAIL_HTTP_SHOW_ADDRESSES"},
	} {
		reply, body := post(t, tt.server, "/dead", tt.form, tt.with...)
		if reply.StatusCode != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %s, want %d %q: %s", name, reply.Status, tt.code, tt.want, body)
		}
		if reply.StatusCode == http.StatusSeeOther && reply.Header.Get("Location") != "/dead?none=1" {
			t.Errorf("%s: to %s", name, reply.Header.Get("Location"))
		}
		left(4)
	}
	reply, _ := post(t, s, "/dead", url.Values{"do": {"replay"}, "letter": {key(0), key(0)}, "tag": {"x y"}})
	if want := "/dead?did=replay&gone=1&n=1&tag=x+y"; reply.StatusCode != http.StatusSeeOther || reply.Header.Get("Location") != want {
		t.Errorf("%s to %s, want %s", reply.Status, reply.Header.Get("Location"), want)
	}
	left(3)
	_, body := get(t, s, "/dead?did=replay&gone=1&n=1")
	if !strings.Contains(body, "1 queued again. 1 were gone already: somebody else was faster.") {
		t.Errorf("it does not say what was done: %s", body)
	}
	if reply, _ := post(t, s, "/dead", url.Values{"do": {"delete"}, "all": {"2"}, "reason": {"552"}, "sure": {"yes"}}); reply.StatusCode != http.StatusSeeOther {
		t.Errorf("delete all of a reason: %s", reply.Status)
	}
	left(1)
	if reply, body := get(t, s, "/dead/letter?queue=default&id="+ids[2]); reply.StatusCode != http.StatusNotFound || !strings.Contains(body, "There is no such message here any more") {
		t.Errorf("a letter that is gone: %s %s", reply.Status, body)
	}
}

// An export has what the settings let be seen.
func TestLetters_export(t *testing.T) {
	t.Parallel()
	client := connect(t, redistest.Start(t, redistest.Options{}).URL())
	ids := deadLetters(t, client, tasks.Options{Tags: []string{"invoice"}}, "550 no <ann0@example.com>", "552 full")
	masked, full := serve(t, Config{Redis: client, AllowWrite: true}), serve(t, Config{Redis: client, AllowWrite: true, ShowAddresses: true})
	reply, body := post(t, masked, "/dead", url.Values{"do": {"json"}, "all": {"2"}})
	var got []exportedLetter
	for line := range strings.Lines(body) {
		var l exportedLetter
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		got = append(got, l)
	}
	if len(got) != 2 || strings.Contains(body, "ann0@") || strings.Contains(body, "secret") || !strings.Contains(body, `"recipients":["a***@example.com"]`) ||
		reply.Header.Get("Content-Disposition") != `attachment; filename="dead-letters.jsonl"` || !slices.Equal(got[0].Tags, []string{"invoice"}) {
		t.Errorf("masked: %v %s", reply.Header, body)
	}
	if _, body = post(t, full, "/dead", url.Values{"do": {"json"}, "letter": {"default " + ids[0]}}); !strings.Contains(body, "550 no <ann0@example.com>") || !strings.Contains(body, "the-secret-body") || strings.Count(body, "\n") != 1 {
		t.Errorf("in full: %s", body)
	}
	_, body = post(t, full, "/dead", url.Values{"do": {"eml"}, "all": {"2"}})
	archive, err := zip.NewReader(bytes.NewReader([]byte(body)), int64(len(body)))
	if err != nil || len(archive.File) != 2 {
		t.Fatalf("%v: %d bytes", err, len(body))
	}
	f, err := archive.Open("default-" + ids[0] + ".eml")
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := io.ReadAll(f); !strings.Contains(string(data), "To: ann0@example.com\r\n") || !strings.Contains(string(data), "the-secret-body") {
		t.Errorf("%s", data)
	}
}

// manyDead makes n dead letters at once.
func manyDead(t testing.TB, client redis.UniversalClient, n int) {
	t.Helper()
	messages := make([]*mailer.EmailMessage, n)
	for i := range messages {
		messages[i] = &mailer.EmailMessage{Subject: "Sale", FromEmail: "shop@example.com", To: []string{fmt.Sprintf("u%d@example.com", i)}}
	}
	q := tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{Hostname: "h.example"}, BulkSize: 1})
	if sent, err := q.SendMessages(t.Context(), messages); sent != n || err != nil {
		t.Fatalf("SendMessages = %d, %v", sent, err)
	}
	if got, err := asynq.NewInspectorFromRedisClient(client).ArchiveAllPendingTasks("default"); got != n || err != nil {
		t.Fatalf("ArchiveAllPendingTasks = %d, %v", got, err)
	}
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// What takes longer than a request may goes on with the next ones, says how far it is, and does everything once.
func TestLetters_manyActs(t *testing.T) {
	t.Parallel()
	const n = 3000
	client := connectWorker(t, redistest.Start(t, redistest.Options{}).URL())
	s := serve(t, Config{Redis: client, AllowWrite: true, actTime: 50 * time.Millisecond})
	manyDead(t, client, n)
	waits := func() []string { return client.LRange(t.Context(), "asynq:{default}:pending", 0, -1).Val() }

	form := url.Values{"do": {"replay"}, "all": {"3000"}, "sure": {"yes"}, "subject": {"sale"}}
	requests, last := 0, 0
	for {
		reply, body := post(t, s, "/dead", form)
		if requests++; reply.StatusCode == http.StatusSeeOther {
			if want := "/dead?did=replay&n=3000&subject=sale"; reply.Header.Get("Location") != want {
				t.Errorf("in the end to %s, want %s", reply.Header.Get("Location"), want)
			}
			break
		}
		done := len(waits())
		if want := "Replay: " + number(done) + " of 3,000"; reply.StatusCode != http.StatusOK || !strings.Contains(body, want) || !strings.Contains(body, number(done)+" queued again.") || done <= last {
			t.Fatalf("after %d requests: %s, want %q: %s", requests, reply.Status, want, body)
		}
		last, form = done, url.Values{}
		for _, m := range hidden.FindAllStringSubmatch(body, -1) {
			form.Add(m[1], html.UnescapeString(m[2]))
		}
	}
	if requests < 3 {
		t.Errorf("%d requests: this test says little", requests)
	}
	ids := waits()
	slices.Sort(ids)
	if got := len(slices.Compact(ids)); got != n {
		t.Errorf("%d messages wait, want %d", got, n)
	}

	// What has failed since it was begun is not done again, and what the form says more is nothing but words.
	deadLetters(t, client, tasks.Options{}, "550 again")
	form = url.Values{"do": {"delete"}, "all": {"1"}, "sure": {"yes"}, "before": {"2020-01-02T03:04:05Z"}, "done": {"-7"}, "gone": {"x"}}
	if reply, _ := post(t, s, "/dead", form); reply.Header.Get("Location") != "/dead?did=delete&n=0" {
		t.Errorf("%s to %s", reply.Status, reply.Header.Get("Location"))
	}
	if left, err := tasks.NewDeadLetters(client).Count(t.Context(), "default"); left != 1 || err != nil {
		t.Errorf("%d dead letters, %v, want 1", left, err)
	}
	// A link does nothing.
	if _, body := get(t, s, "/dead?did=delete&all=1&sure=yes&do=delete&more=1"); strings.Contains(body, "going") {
		t.Errorf("a link goes on: %s", body)
	}
}

// When the browser leaves, what was begun is ended, and the rest stays as it is.
func TestLetters_browserLeaves(t *testing.T) {
	t.Parallel()
	const n = 5000
	redisURL := redistest.Start(t, redistest.Options{}).URL()
	client := connectWorker(t, redisURL)
	s := serve(t, Config{Redis: connect(t, redisURL), AllowWrite: true, actTime: time.Hour})
	manyDead(t, client, n)
	count := func() (dead, waiting int) {
		dead, err := tasks.NewDeadLetters(client).Count(t.Context(), "default")
		if err != nil {
			t.Fatal(err)
		}
		return dead, int(client.LLen(t.Context(), "asynq:{default}:pending").Val())
	}
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"dead", strings.NewReader("do=replay&all=5000&sure=yes"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	gone := make(chan error, 1)
	go func() {
		reply, err := http.DefaultClient.Do(r)
		if err == nil {
			_ = reply.Body.Close()
		}
		gone <- err
	}()
	for _, waiting := count(); waiting == 0; _, waiting = count() {
		time.Sleep(time.Millisecond)
	}
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("it was faster: %v", err)
	}
	if err := s.Close(); err != nil { // it waits for what is under way
		t.Fatal(err)
	}
	if dead, waiting := count(); dead+waiting != n || waiting == 0 || dead == 0 {
		t.Errorf("%d dead letters and %d that wait, want %d together", dead, waiting, n)
	}
}
