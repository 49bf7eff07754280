package pages

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color" //nolint:misspell // as Go spells it
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/presence"
	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// A scene is a worker on a busy day: it has sent much, some of it was refused, and the relay of
// one of its two mailers takes no mail.
type scene struct {
	*testing.T

	state    *State
	outcomes chan tasks.Outcome
	held     chan string
	client   redis.UniversalClient
	queue    *tasks.Queue
	server   *Server
	fleet    []presence.Worker // those that the page shows
	stop     func()            // stops the worker
}

func newScene(t *testing.T) *scene {
	t.Helper()
	url := redistest.Start(t, redistest.Options{}).URL()
	client := connectWorker(t, url)
	s := &scene{
		T: t, client: client, state: NewState("marketing"), outcomes: make(chan tasks.Outcome, 1000), held: make(chan string, 10),
		queue: tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{Hostname: "shop.example"}, Mailers: []string{"marketing"}}),
	}
	worker, err := tasks.NewWorker(client, tasks.WorkerConfig{
		Connect: func(name string) (mailer.Backend, error) { return answers(name), nil },
		Mailers: map[string]int{"marketing": 1}, Queues: map[string]int{"critical": 6, "default": 3, "bulk": 1},
		Version: "v1.0.0", Connections: 2, BatchSize: 5, RetryMin: 4 * time.Minute, // so that what is tried again stays where it can be seen
		Observers: []tasks.Observer{s.state.Observer(), {
			Outcome: func(o tasks.Outcome) { s.outcomes <- o },
			Held:    func(name string, _ error) { s.held <- name },
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	this := presence.New()
	this.Version, this.Mailers, this.Queues = "v1.0.0", []string{"marketing"}, []string{"critical", "default", "bulk"}
	other := this
	other.ID, other.Host, other.PID = "another", "mail-2", 1
	s.fleet = []presence.Worker{other, this}
	s.server = serve(t, Config{
		Redis: connect(t, url), State: s.state, Held: worker.Held, Version: "v1.0.0", WorkerID: this.ID,
		Queues: map[string]int{"critical": 6, "default": 3, "bulk": 1},
	})
	return s
}

// answers is the relay of a mailer: marketing's is away, the other one knows some
// recipients that it does not like.
func answers(name string) relay {
	return func(to string) error {
		switch {
		case name == "marketing":
			return &mailer.SendError{
				Class: mailer.Unavailable, Step: mailer.StepConnect, Err: errors.New("dial tcp 192.0.2.25:587: connect: connection refused"),
			}
		case strings.HasPrefix(to, "nobody"):
			return reply(mailer.Permanent, mailer.StepRcpt, 550, "5.1.1 <"+to+">: Recipient address rejected: User unknown")
		case strings.HasPrefix(to, "busy"):
			return reply(mailer.Temporary, mailer.StepEnd, 451, "4.7.1 Greylisting in action, please come back later")
		case strings.HasPrefix(to, "evil"):
			return reply(mailer.Permanent, mailer.StepRcpt, 554, `5.7.1 <script>document.title="owned"</script><img src=x onerror='document.title="owned"'>`)
		}
		return nil
	}
}

// at sets the clock of the state.
func (s *scene) at(t time.Time) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.now = func() time.Time { return t }
}

// minute makes a minute of mail, with waves in it.
func (s *scene) minute(now time.Time) {
	for second := range 60 {
		s.at(now.Add(time.Duration(second-60) * time.Second))
		wave := 34 + 14*((second/7)%3) + (second*7)%11
		for i := range wave {
			queue := []string{"default", "default", "default", "critical", "bulk"}[i%5]
			s.state.outcome(tasks.Outcome{Action: tasks.ActionSent, Queue: queue})
		}
		s.state.batch(tasks.Batch{Size: wave, Accepted: wave})
	}
	s.state.connections("", 2)
	s.state.grows("", 9, 20)
	s.state.all.Sent, s.state.mailers[""].Sent, s.state.mailers["marketing"].Sent = 1284310, 1091442, 192868
}

// enqueue hands mail over, and waits until so much of it has come to an end or been held.
func (s *scene) enqueue(o tasks.Options, to, subject string, n, ends int) {
	s.Helper()
	for i := range n {
		_, err := s.queue.With(o).Enqueue(s.Context(), &mailer.EmailMessage{
			Subject: fmt.Sprintf(subject, 4711+i), FromEmail: "Parcel Service <parcels@shop.example>",
			To: []string{fmt.Sprintf(to, i)}, Body: "the-secret-body\n",
		})
		if err != nil {
			s.Fatal(err)
		}
	}
	for range ends {
		select {
		case <-s.outcomes:
		case <-time.After(time.Minute):
			s.Fatal("the worker does not come to an end")
		}
	}
}

// foreign puts a task into a queue as another program may, whatever the queue is called.
func (s *scene) foreign(queue string) {
	s.Helper()
	client := asynq.NewClientFromRedisClient(s.client)
	if _, err := client.Enqueue(asynq.NewTask("another:program", nil), asynq.Queue(queue)); err != nil {
		s.Fatal(err)
	}
}

// workers are this one, as if it had run for long, and another one. The real one is stopped: it says every few seconds when it was started.
func (s *scene) workers(now time.Time) {
	s.Helper()
	s.stop()
	for i, w := range s.fleet {
		w.Started, w.Rate, w.Sent = now.Add(-26*time.Hour-11*time.Minute), 64.4, 1_284_310
		if i == 0 {
			w.Started, w.Rate, w.Sent = now.Add(-31*time.Hour), 61.5, 1_190_332
		}
		w.Held = []string{"marketing"}
		if err := presence.Announce(s.Context(), s.client, w, nil, presence.Counts{}); err != nil {
			s.Fatal(err)
		}
	}
	for i, sent := range []int{412_551, 398_120, 120_844, 97_310, 455_008, 1_120_417, 508_212} {
		day := wire.DayKey(now.UTC().AddDate(0, 0, i-6).Format(time.DateOnly))
		if err := s.client.HSet(s.Context(), day, "sent", sent, "retried", sent/400, "dead", sent/90_000).Err(); err != nil {
			s.Fatal(err)
		}
	}
}

// fill lets everything happen that the pages can show.
func (s *scene) fill() {
	s.Helper()
	now := time.Now()
	s.state.started = now.Add(-26*time.Hour - 11*time.Minute)
	s.at(now.Add(-47 * time.Minute))
	s.state.outcome(tasks.Outcome{
		Action: tasks.ActionSilent, Queue: "default", Try: 1, MessageID: "<0f2c.88@shop.example>",
		Err: reply(mailer.Temporary, mailer.StepMail, 452, "4.3.1 Insufficient system storage"),
	})
	s.at(now.Add(-9 * time.Minute))
	s.enqueue(tasks.Options{Using: "marketing", Queue: "bulk"}, "reader%d@example.com", "News of the week %d", 60, 0)
	select {
	case <-s.held:
	case <-time.After(time.Minute):
		s.Fatal("the relay is not held")
	}
	s.at(now.Add(-3 * time.Minute))
	s.enqueue(tasks.Options{}, "nobody%d@example.com", "Your parcel no. %d is on its way", 2, 2)
	s.minute(now)
	s.at(now.Add(-time.Second))
	s.enqueue(tasks.Options{}, "busy%d@example.org", "Your parcel no. %d is on its way", 2, 2)
	s.at(now)
	s.enqueue(tasks.Options{Queue: "critical"}, "busy%d@example.net", "Your code is %d", 1, 1)
	s.enqueue(tasks.Options{ProcessIn: 3 * time.Hour}, "ann%d@example.com", "Reminder: invoice %d", 14, 0)
}

// picture writes a screenshot if the flag says so, in 256 colours, which are enough.
func picture(b *browsertest.Tab, t *testing.T, name string, width, height int64) {
	t.Helper()
	if !*screenshots {
		return
	}
	// The charts of asynqmon grow for a while, and again when they get another size.
	b.Do(chromedp.EmulateViewport(width, height))
	_ = browsertest.Get(b, chromedp.Evaluate[bool]("new Promise((done) => setTimeout(() => done(true), 4000))", chromedp.EvalAwaitPromise))
	file := filepath.Join("..", "..", "docs", "images", name)
	b.Screenshot(file, width, height)
	if err := reduce(file); err != nil {
		t.Fatal(err)
	}
}

// reduce writes a PNG file anew with 256 of its colours, the commonest first.
//
//nolint:misspell // as Go spells it
func reduce(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	full, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	uses := map[color.Color]int{}
	area := full.Bounds()
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			uses[full.At(x, y)]++
		}
	}
	var palette color.Palette
	for _, c := range slices.SortedFunc(maps.Keys(uses), func(a, b color.Color) int { return cmp.Compare(uses[b], uses[a]) }) {
		if len(palette) < 256 && !slices.ContainsFunc(palette, func(p color.Color) bool { return near(p, c) }) {
			palette = append(palette, c)
		}
	}
	small := image.NewPaletted(area, palette)
	draw.Draw(small, area, full, area.Min, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

// near says that nobody would see the difference. A rare colour keeps its place beside the
// many shades of a common one.
func near(a, b color.Color) bool { //nolint:misspell // as Go spells it
	r1, g1, b1, _ := a.RGBA()
	r2, g2, b2, _ := b.RGBA()
	sum := max(r1, r2) - min(r1, r2) + max(g1, g2) - min(g1, g2) + max(b1, b2) - min(b1, b2)
	return sum>>8 < 12
}

// says waits until the page says so.
func says(b *browsertest.Tab, want string) { b.Says(want) }

// prefer makes the browser that of somebody who likes light or dark pages.
func prefer(b *browsertest.Tab, scheme string) {
	b.Do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}, //nolint:misspell // as CSS spells it
		})
		return err
	}))
}

func TestBrowser_page(t *testing.T) {
	s := newScene(t)
	s.fill()
	s.state.Signs("", []string{"mail._domainkey.example.com"})
	b := browsertest.Start(t)
	s.workers(time.Now()) // what is said of them holds for 20 s
	b.Do(chromedp.Navigate(s.server.URL()), chromedp.WaitVisible(".failures li:nth-child(6)"))
	text := browsertest.Get(b, chromedp.Text("body"))
	for _, want := range []string{
		"held", "The relay of marketing has taken no mail", "connection refused", "1,284,3", "dead letter",
		"n***@example.com", "User unknown", "Greylisting", "next in", "bulk of marketing",
		"2 workers", "mail-2, process 1", "this one", "held: marketing", "1.1M", "sent in 7 days", "3,112,4", "2 of 9", "Signed (DKIM) by mail._domainkey.example.com.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
	for _, never := range []string{"nobody0@", "busy1@", "the-secret-body"} {
		if strings.Contains(text, never) {
			t.Errorf("the page shows %q", never)
		}
	}
	b.Do(chromedp.EmulateViewport(360, 740))
	if wide := browsertest.Get(b, chromedp.Evaluate[int]("document.documentElement.scrollWidth")); wide > 360 {
		t.Errorf("on a phone the page is %d px wide", wide)
	}
	b.Do(chromedp.ResetViewport())
	shot(b, t, "overview")
	picture(b, t, "status.png", 1000, 1900)
	s.workers(time.Now())
	picture(b, t, "status-phone.png", 390, 1900)
	prefer(b, "dark")
	s.workers(time.Now())
	picture(b, t, "status-dark.png", 1000, 1900)
}

func TestBrowser_monitor(t *testing.T) {
	s := newScene(t)
	s.fill()
	b := browsertest.Start(t)
	monitor := s.server.URL() + "monitor/"
	for _, tt := range []struct {
		path    string
		want    []string
		picture string
	}{
		{"", []string{"critical", "default", "marketing.bulk"}, "monitor-queues.png"},
		{"queues/default?status=retry", []string{"b***@example.org", "Greylisting"}, "monitor-retry.png"},
		{"queues/default?status=archived", []string{"n***@example.com", "User unknown"}, "monitor-dead.png"},
		{"queues/default?status=scheduled", []string{"Reminder: invoice 4711"}, ""},
		{"queues/marketing.bulk?status=pending", []string{"News of the week"}, ""},
		{"servers", []string{"default"}, ""},
		{"redis", []string{"redis_version"}, ""},
	} {
		t.Run(tt.path, func(t *testing.T) {
			b.Do(chromedp.Navigate(monitor + tt.path))
			for _, want := range tt.want {
				says(b, want)
			}
			text := browsertest.Get(b, chromedp.Text("body"))
			for _, never := range []string{"nobody0@", "busy0@", "ann0@", "reader0@", "the-secret-body"} {
				if strings.Contains(text, never) {
					t.Errorf("it shows %q", never)
				}
			}
			if strings.Contains(text, "Schedulers") || strings.Contains(text, "Aggregating") {
				t.Error("it shows what is not used")
			}
			wide(b, t, 390)
			if *shots != "" {
				b.Do(chromedp.Navigate(monitor + tt.path))
				says(b, tt.want[0])
				shot(b, t, "monitor"+strings.NewReplacer("/", "-", "?", "-").Replace(tt.path))
			}
			if tt.picture != "" {
				picture(b, t, tt.picture, 1480, 800)
			}
		})
	}
}

// Where writing is allowed a row has boxes and buttons too, and all of it is on a small screen.
func TestBrowser_monitorFits(t *testing.T) {
	s := newScene(t)
	s.fill()
	s.server = serve(t, Config{Redis: s.server.cfg.Redis, State: s.state, AllowWrite: true})
	b := browsertest.Start(t)
	for path, want := range map[string]string{
		"default?status=retry": "Greylisting", "default?status=archived": "User unknown", "default?status=scheduled": "Reminder: invoice 4711",
		"marketing.bulk?status=pending": "News of the week",
	} {
		b.Do(chromedp.EmulateViewport(1280, 800), chromedp.Navigate(s.server.URL()+"monitor/queues/"+path))
		says(b, want)
		says(b, "Actions")
		got := browsertest.Get(b, chromedp.Evaluate[string](`(() => {
			const outer = document.querySelector(".MuiTableContainer-root"), line = document.querySelector("td pre").getBoundingClientRect();
			return outer.scrollWidth > outer.clientWidth ? "the table is " + outer.scrollWidth + " px wide, and its place " + outer.clientWidth :
				line.width < 350 ? "the line of a message is " + line.width + " px wide" : line.height > 30 ? "it is more than a line" : "";
		})()`))
		if got != "" {
			t.Errorf("%s: %s", path, got)
		}
		shot(b, t, "monitor-"+strings.ReplaceAll(path, "?", "-"))
	}
}

// What a mail server says, and what a queue is called, stays text.
func TestBrowser_hostile(t *testing.T) {
	s := newScene(t)
	s.foreign("<i>bulk")
	s.enqueue(tasks.Options{}, "evil%d@example.com", "<svg onload=document.title='owned'> %d", 1, 1)
	b := browsertest.Start(t)
	for _, path := range []string{"", "monitor/queues/default?status=archived"} {
		b.Do(chromedp.Navigate(s.server.URL() + path))
		says(b, "<script>document.title")
		if title := browsertest.Get(b, chromedp.Evaluate[string]("document.title")); strings.Contains(title, "owned") {
			t.Errorf("/%s ran what a mail server has said", path)
		}
	}
	b.Do(chromedp.Navigate(s.server.URL()))
	says(b, "<i>bulk")
	says(b, "not taken by this worker")
	if n := browsertest.Get(b, chromedp.Evaluate[int](`document.querySelectorAll("main i, main script, main img").length`)); n != 0 {
		t.Errorf("%d elements of a stranger's", n)
	}
}

// The page goes on by itself, can be stopped, and says when nobody answers.
// Mail that does not go to its recipients is the first thing that the page says.
func TestBrowser_recipients(t *testing.T) {
	s := serve(t, Config{})
	s.cfg.State.Recipients("", []string{"quality@example.com"}, nil)
	s.cfg.State.Recipients("marketing", nil, []string{"ann@example.org", ".example.net"})
	b := browsertest.Start(t)
	b.Do(chromedp.Navigate(s.URL()))
	says(b, "No mail of the mailer default goes to its recipients. All of it goes to q***@example.com (EMAIL_OVERRIDE_RECIPIENTS).")
	says(b, "Not everybody gets mail of the mailer marketing. Only a***@example.org, .example.net may;")
	if strings.Contains(browsertest.Get(b, chromedp.Text("body")), "quality@") {
		t.Error("the page shows an address")
	}
}

func TestBrowser_live(t *testing.T) {
	s := serve(t, Config{})
	b := browsertest.Start(t)
	b.Do(chromedp.Navigate(s.URL()))
	says(b, "Nothing has failed")
	s.cfg.State.outcome(tasks.Outcome{Action: tasks.ActionDead, Queue: "default", Try: 3, Err: errors.New("the first failure")})
	says(b, "the first failure")
	b.Do(chromedp.Click("#freeze"))
	says(b, "Go on")
	s.cfg.State.outcome(tasks.Outcome{Action: tasks.ActionDead, Queue: "default", Try: 3, Err: errors.New("the second failure")})
	if strings.Contains(browsertest.Get(b, chromedp.Text("main")), "the second failure") {
		t.Error("it goes on though it was stopped")
	}
	b.Do(chromedp.Click("#freeze"))
	says(b, "the second failure")
	if err := s.http.Close(); err != nil {
		t.Fatal(err)
	}
	says(b, "has not answered")
}
