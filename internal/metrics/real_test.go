package metrics

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/testserver"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// moody is a server that treats recipients as their names say. "later" is told so once.
type moody struct {
	mu    sync.Mutex
	tried map[string]bool
}

func (m *moody) decide(_ context.Context, s catcher.Step) error {
	if s.Command != "RCPT" {
		return nil
	}
	name, _, _ := strings.Cut(s.To[0], "@")
	switch {
	case strings.HasPrefix(name, "no"):
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "confidential words of the server"}
	case strings.HasPrefix(name, "later"):
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.tried[name] {
			m.tried[name] = true
			// Each is told so in other words: two in a row with the same ones are tried again at once, over another connection.
			words := gosmtp.EnhancedCode{4, 7, len(m.tried)}
			return &gosmtp.SMTPError{Code: 451, EnhancedCode: words, Message: "greylisted"}
		}
	}
	return nil
}

// world is a Redis, a mail server and a worker that is watched.
type world struct {
	metrics  *Metrics
	queue    *tasks.Queue
	outcomes chan tasks.Outcome
	batches  chan tasks.Batch
	held     chan error
	stop     func()
}

func newWorld(t *testing.T, redis *redistest.Server, relay string) *world {
	t.Helper()
	status, err := redisconn.ConnectStatus(redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	client, err := redisconn.ConnectWorker(redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{outcomes: make(chan tasks.Outcome, 1000), batches: make(chan tasks.Batch, 1000), held: make(chan error, 10)}
	w.metrics = New(Config{Redis: status, Mailers: []string{"marketing"}, Queues: []string{"default", "bulk"}, Version: "v1.2.3"})
	worker, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect: func(name string) (mailer.Backend, error) {
			addr := relay
			if name == "marketing" {
				addr = testserver.FreeAddr(t)
			}
			return smtp.New(smtp.Config{Addrs: []string{addr}, Hostname: "worker.example", Hooks: w.metrics.Hooks(name)})
		},
		Mailers: map[string]int{"marketing": 1}, Queues: map[string]int{"default": 3, "bulk": 1}, Connections: 2, BatchSize: 10,
		RetryMin: 10 * time.Millisecond, RetryMax: 20 * time.Millisecond,
		Observers: []tasks.Observer{w.metrics.Observer(), {
			Outcome: func(o tasks.Outcome) { w.outcomes <- o },
			Batch:   func(b tasks.Batch) { w.batches <- b },
			Held:    func(_ string, reason error) { w.held <- reason },
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := worker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	w.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.queue = tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{FromEmail: "me@example.com", Hostname: "app.example"}})
	t.Cleanup(func() {
		w.stop()
		_ = client.Close()
		_ = status.Close()
	})
	return w
}

func (w *world) send(t *testing.T, o tasks.Options, to ...string) {
	t.Helper()
	m := &mailer.EmailMessage{Subject: "confidential subject", Body: "confidential body", To: to}
	if _, err := w.queue.With(o).Enqueue(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// wait waits for so many tries to end, and for batches with so many messages of the default
// mailer.
func (w *world) wait(t *testing.T, tries, sent int) {
	t.Helper()
	for tries > 0 || sent > 0 {
		select {
		case <-w.outcomes:
			tries--
		case b := <-w.batches:
			if b.Mailer == "" {
				sent -= b.Size
			}
		case <-time.After(time.Minute):
			t.Fatalf("after a minute %d tries and %d messages are missing", tries, sent)
		}
	}
}

// until scrapes until the values are there: asynq writes the end of a task down after its
// observers have heard of it.
func (w *world) until(t *testing.T, want map[string]float64) (text string, series map[string]float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, series = scrape(t, w.metrics)
		there := true
		for name, value := range want {
			got, ok := series[name]
			there = there && ok && got == value
		}
		if there {
			return text, series
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return text, series
		}
	}
}

// TestReal: a real Redis, a worker and a mail server that refuses some; the numbers are those
// of what happened.
func TestReal(t *testing.T) {
	redis := redistest.Start(t, redistest.Options{})
	server, err := catcher.Start(catcher.Config{Decide: (&moody{tried: map[string]bool{}}).decide})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	w := newWorld(t, redis, server.Addr())
	for i := range 20 {
		w.send(t, tasks.Options{}, fmt.Sprintf("ann%d@example.com", i))
	}
	for i := range 5 {
		w.send(t, tasks.Options{Queue: "bulk"}, fmt.Sprintf("no%d@example.com", i))
		w.send(t, tasks.Options{}, fmt.Sprintf("bob%d@example.com", i), fmt.Sprintf("no%d@example.com", i))
		w.send(t, tasks.Options{}, fmt.Sprintf("later%d@example.com", i))
	}
	w.send(t, tasks.Options{ProcessIn: time.Hour}, "eve@example.com")
	w.send(t, tasks.Options{Using: "marketing"}, "eve@example.com")
	w.wait(t, 20+5+2*5+2*5+1, 20+5+5+2*5)
	if reason := <-w.held; reason == nil {
		t.Fatal("the mailer whose server is away was let go")
	}
	text, got := w.until(t, map[string]float64{`asynq_queue_size{queue="default"}`: 6, `asynq_queue_size{queue="bulk"}`: 5})
	for series, want := range map[string]float64{
		`mailpouch_messages_total{mailer="default",outcome="sent",queue="default"}`:         30,
		`mailpouch_messages_total{mailer="default",outcome="retry",queue="default"}`:        5,
		`mailpouch_messages_total{mailer="default",outcome="dead_letter",queue="default"}`:  5,
		`mailpouch_messages_total{mailer="default",outcome="dead_letter",queue="bulk"}`:     5,
		`mailpouch_messages_total{mailer="default",outcome="forwarded",queue="default"}`:    1, // to the queue of marketing
		`mailpouch_messages_total{mailer="default",outcome="sent_before",queue="bulk"}`:     0,
		`mailpouch_failures_total{class="permanent",code="550",mailer="default"}`:           5,
		`mailpouch_failures_total{class="temporary",code="451",mailer="default"}`:           5,
		`mailpouch_failures_total{class="none",code="none",mailer="default"}`:               5, // the refused recipients' own tasks
		`mailpouch_recipients_refused_total{class="permanent",code="550",mailer="default"}`: 10,
		`mailpouch_recipients_refused_total{class="temporary",code="451",mailer="default"}`: 5,
		`mailpouch_mailer_held{mailer="default"}`:                                           0,
		`mailpouch_mailer_held{mailer="marketing"}`:                                         1,
		`mailpouch_mailer_connections_missing{mailer="default"}`:                            0,
		`mailpouch_mailer_messages_per_connection{mailer="default"}`:                        0,
		`mailpouch_mailer_connections{mailer="default"}`:                                    2,
		`mailpouch_mailer_connections{mailer="marketing"}`:                                  1,
		`mailpouch_mailer_holds_total{code="none",mailer="marketing",step="connect"}`:       1,
		`mailpouch_queue_wait_seconds_count{mailer="default",queue="default"}`:              35,
		`mailpouch_queue_wait_seconds_count{mailer="default",queue="bulk"}`:                 5,
		`mailpouch_delivery_seconds_count{mailer="default",queue="default"}`:                30,
		`mailpouch_smtp_accepted_total{mailer="default"}`:                                   30,
		`mailpouch_smtp_in_doubt_total{mailer="default"}`:                                   0,
		`mailpouch_smtp_message_bytes_count{mailer="default"}`:                              40, // the refused ones and both tries of the late ones
		`mailpouch_smtp_step_seconds_count{mailer="default",step="mail"}`:                   40,
		`mailpouch_smtp_step_seconds_count{mailer="default",step="rcpt"}`:                   40,
		`mailpouch_smtp_step_seconds_count{mailer="default",step="end_of_data"}`:            30,
		`mailpouch_batch_messages_sum{mailer="default"}`:                                    40,
		`mailpouch_redis_up`:                                                           1,
		`mailpouch_workers`:                                                            1,
		`mailpouch_dead_letters{queue="default"}`:                                      5,
		`mailpouch_dead_letters{queue="bulk"}`:                                         5,
		`asynq_tasks_enqueued_total{queue="default",state="scheduled"}`:                1,
		`asynq_tasks_enqueued_total{queue="default",state="archived"}`:                 5,
		`asynq_tasks_enqueued_total{queue="marketing.default",state="pending"}`:        1,
		`mailpouch_given_back_total{mailer="marketing",queue="default",reason="held"}`: 1,
		`asynq_queue_size{queue="default"}`:                                            6,
		`asynq_queue_paused_total{queue="bulk"}`:                                       0,
		`mailpouch_queue_oldest_seconds{queue="default"}`:                              0,
		`mailpouch_queue_workers{queue="default"}`:                                     1,
	} {
		if value, ok := got[series]; !ok || value != want {
			t.Errorf("%s is %v (there: %v), want %v", series, value, ok, want)
		}
	}
	open := got[`mailpouch_smtp_connections_open{mailer="default"}`]
	if opened := got[`mailpouch_smtp_connections_opened_total{mailer="default",tls="none"}`]; open < 1 || open > opened {
		t.Errorf("%v connections are open of %v opened", open, opened)
	}
	if got[`asynq_queue_memory_usage_approx_bytes{queue="default"}`] < 1000 || got[`mailpouch_smtp_message_bytes_sum{mailer="default"}`] < 40*200 {
		t.Error("there are too few bytes")
	}
	for _, secret := range []string{"confidential", "example.com", "@", "127.0.0.1"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the metrics", secret)
		}
	}
	w.stop()
	_, got = scrape(t, w.metrics)
	done := got[`mailpouch_smtp_connections_closed_total{mailer="default",reason="done"}`]
	if left := got[`mailpouch_smtp_connections_open{mailer="default"}`]; left != 0 || done != open {
		t.Errorf("at the end %v connections are open and %v were closed in order, of %v", left, done, open)
	}
	lint(t, text)
}

// lint lets promtool look at the text. The names that it does not like are asynq's.
func lint(t *testing.T, text string) {
	t.Helper()
	said, err := check(t, text, "check", "metrics")
	var rest []string
	for line := range strings.Lines(said) {
		asynqs := slices.ContainsFunc([]string{"asynq_tasks_enqueued_total", "asynq_queue_paused_total"}, func(name string) bool {
			return strings.HasPrefix(line, name+" non-counter metrics should not have")
		})
		if !asynqs {
			rest = append(rest, line)
		}
	}
	if len(rest) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, strings.Join(rest, ""))
	}
}

// TestRedisAway: a scrape answers in time and without queues, whether Redis is gone or silent.
func TestRedisAway(t *testing.T) {
	for _, away := range []string{"gone", "silent"} {
		t.Run(away, func(t *testing.T) {
			redis := redistest.Start(t, redistest.Options{})
			client, err := redisconn.ConnectStatus(redis.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			m := New(Config{Redis: client, Timeout: time.Second})
			if _, got := scrape(t, m); got["mailpouch_redis_up"] != 1 {
				t.Fatal("Redis is not up")
			}
			back := redis.Restart
			if away == "gone" {
				redis.Kill()
			} else {
				redis.Pause()
				back = redis.Resume
			}
			start := time.Now()
			_, got := scrape(t, m)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if up, ok := got["mailpouch_redis_up"]; up != 0 || !ok || got["go_goroutines"] == 0 {
				t.Errorf("up %v (there: %v)", up, ok)
			}
			for series := range got {
				if strings.HasPrefix(series, "asynq_") || series == "mailpouch_workers" {
					t.Errorf("%s without Redis", series)
				}
			}
			back()
			if _, got := scrape(t, m); got["mailpouch_redis_up"] != 1 {
				t.Error("Redis did not come back")
			}
		})
	}
}

// TestACL: a user who may do no more than docs/operations.md says sees everything, and one who may not
// ask for memory all the rest.
func TestACL(t *testing.T) {
	redis := redistest.Start(t, redistest.Options{})
	readme, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rule, _ := strings.Cut(string(readme), "\nACL SETUSER mailpouch ")
	rule, _, found := strings.Cut(rule, "\n```")
	if !found {
		t.Fatal("docs/operations.md has no ACL rule")
	}
	rule = strings.ReplaceAll(rule, "\\\n", " ")
	for name, more := range map[string]string{"mailpouch": "", "poor": " -memory"} {
		words := []any{"ACL", "SETUSER", name}
		for word := range strings.FieldsSeq(rule + more) {
			words = append(words, word)
		}
		admin := redis.Client(t)
		if err := admin.Do(t.Context(), words...).Err(); err != nil {
			t.Fatal(err)
		}
		if err := cmp.Or(admin.SAdd(t.Context(), "asynq:queues", "default").Err(), admin.Set(t.Context(), "asynq:{default}:processed", 1, 0).Err()); err != nil {
			t.Fatal(err)
		}
		client, err := redisconn.ConnectStatus("redis://" + name + ":SECRET@" + redis.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_, got := scrape(t, New(Config{Redis: client}))
		if got["mailpouch_redis_up"] != 1 {
			t.Errorf("%s sees nothing", name)
		}
		if _, ok := got[`asynq_queue_memory_usage_approx_bytes{queue="default"}`]; ok == (name == "poor") {
			t.Errorf("%s sees memory: %v", name, ok)
		}
		_ = client.Close()
	}
}

// TestCluster: the queues of all masters are there.
func TestCluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, redistest.Options{})
	client, err := redisconn.ConnectStatus(cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	queue := tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{FromEmail: "me@example.com", Hostname: "app.example"}})
	names := []string{"default", "bulk", "critical", "night"}
	for _, name := range names {
		m := &mailer.EmailMessage{Subject: "x", To: []string{"ann@example.com"}}
		if _, err := queue.With(tasks.Options{Queue: name}).Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	_, got := scrape(t, New(Config{Redis: client}))
	for _, name := range names {
		if n := got[`asynq_queue_size{queue="`+name+`"}`]; n != 1 {
			t.Errorf("%v messages in %s", n, name)
		}
		if got[`asynq_queue_memory_usage_approx_bytes{queue="`+name+`"}`] < 100 {
			t.Errorf("%s takes no memory", name)
		}
	}
}

// What is paused is counted by kind, however it is named, and for how long the oldest of each is.
func TestPauses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	client, err := redisconn.ConnectStatus(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q := tasks.NewQueue(server.Client(t), tasks.QueueConfig{Mailers: []string{"marketing"}})
	for _, o := range []tasks.Options{{Queue: "bulk"}, {Using: "marketing"}} {
		if _, err := q.With(o).Enqueue(t.Context(), &mailer.EmailMessage{Subject: "a", FromEmail: "a@example.com", To: []string{"b@example.com"}}); err != nil {
			t.Fatal(err)
		}
	}
	m, p := New(Config{Redis: client, Mailers: []string{"marketing"}}), tasks.NewPauses(server.Client(t))
	check := func(queues, mailers, mailings, hours, paused float64) {
		t.Helper()
		text, got := scrape(t, m)
		for series, want := range map[string]float64{
			`mailpouch_pauses{kind="queue"}`: queues, `mailpouch_pauses{kind="mailer"}`: mailers, `mailpouch_pauses{kind="mailing"}`: mailings,
			`asynq_queue_paused_total{queue="bulk"}`: paused,
		} {
			if value, ok := got[series]; !ok || value != want {
				t.Errorf("%s is %v (there: %v), want %v", series, value, ok, want)
			}
		}
		if n := got[`mailpouch_pause_oldest_seconds{kind="mailing"}`] / 3600; n < hours || n > hours+1 {
			t.Errorf("the oldest pause of a mailing lasts %v hours, want %v", n, hours)
		}
		if strings.Contains(text, "july") {
			t.Error("the name of a mailing is in the metrics")
		}
	}
	check(0, 0, 0, 0, 0)
	for i, what := range []tasks.PauseTarget{{Queue: "bulk"}, {Queue: "default", Mailer: "marketing"}, {Mailer: "marketing"}, {Mailing: "july"}, {Mailing: "july-2"}} {
		if _, err := p.Pause(t.Context(), tasks.Pause{Target: what, At: time.Now().Add(-time.Duration(i) * 10 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	check(2, 1, 2, 40, 1)
	for _, what := range []tasks.PauseTarget{{Queue: "bulk"}, {Mailing: "july-2"}} {
		if _, err := p.Resume(t.Context(), what); err != nil {
			t.Fatal(err)
		}
	}
	check(1, 1, 1, 30, 0)
}
