package inbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/smtp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/inbox"
	"github.com/mailpouch/mailpouch/internal/testserver"
	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start returns a mail server and the address of its page. The mail server ends first, and
// with it what waits for its mail.
func start(t *testing.T, cfg catcher.Config) (*catcher.Server, string) {
	t.Helper()
	server, err := catcher.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(inbox.New(server, "mail"))
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return server, web.URL
}

const mixed = `From: =?utf-8?q?Sch=C3=B6ner_Laden?= <shop@example.com>
To: Ann <ann@example.com>
Subject: Your order <b>&
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=out

--out
Content-Type: multipart/alternative; boundary=in

--in
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Sch=F6n, <script>alert("text")</script>
--in
Content-Type: text/html; charset=utf-8

<p id="hello">Schön</p><script>document.body.textContent = "ran"</script><img src="https://tracker.example/x.png"><a href="https://shop.example/">shop</a>
--in--
--out
Content-Type: text/html; name="bill.html"
Content-Disposition: attachment; filename="bill.html"

<script>alert("file")</script>
--out--
`

func send(t *testing.T, server *catcher.Server, raw string) {
	t.Helper()
	raw = strings.ReplaceAll(raw, "\n", "\r\n")
	if err := smtp.SendMail(server.Addr(), nil, "shop@example.com", []string{"ann@example.com", "secret@example.com"}, []byte(raw)); err != nil {
		t.Fatal(err)
	}
}

type answer struct {
	code   int
	header http.Header
	body   string
}

func get(t *testing.T, url string) answer {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

func TestPages(t *testing.T) {
	server, url := start(t, catcher.Config{})
	if got := get(t, url); !strings.Contains(got.body, "Nothing yet") {
		t.Errorf("empty:\n%s", got.body)
	}
	send(t, server, mixed)
	tests := []struct {
		path   string
		kind   string
		policy string
		want   []string
		not    string
	}{
		{"/", "text/html; charset=utf-8", "default-src 'none'", []string{"Your order &lt;b&gt;&amp;", "Schöner Laden", "1 caught"}, "<pre>"},
		{"/mail/1", "text/html; charset=utf-8", "default-src 'none'", []string{
			"Schön, &lt;script&gt;", "secret@example.com", "bill.html", `src="/mail/1/part/1"`, `href="/mail/1/part/2"`,
		}, "<b>&"},
		{"/mail/1/source", "text/plain; charset=utf-8", "default-src 'none'", []string{"=?utf-8?q?Sch=C3=B6ner_Laden?="}, "<!DOCTYPE"},
		{"/mail/1/part/1", "text/html; charset=utf-8", "sandbox", []string{"<p id=\"hello\">Schön</p>"}, "bill"},
		{"/mail/1/part/2", "application/octet-stream", "default-src 'none'", []string{`alert("file")`}, "Schön"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			got := get(t, url+tt.path)
			h, body := got.header, got.body
			if got.code != http.StatusOK || h.Get("Content-Type") != tt.kind || h.Get("X-Content-Type-Options") != "nosniff" ||
				h.Get("X-DNS-Prefetch-Control") != "off" || !strings.Contains(h.Get("Content-Security-Policy"), tt.policy) {
				t.Errorf("answer = %d %v", got.code, h)
			}
			for _, want := range tt.want {
				if !strings.Contains(body, want) {
					t.Errorf("no %q in\n%s", want, body)
				}
			}
			if strings.Contains(body, tt.not) {
				t.Errorf("%q in\n%s", tt.not, body)
			}
		})
	}
	if got := get(t, url+"/mail/1/part/2"); got.header.Get("Content-Disposition") != "attachment; filename=bill.html" {
		t.Errorf("a file is shown: %v", got.header)
	}
}

func TestPages_missing(t *testing.T) {
	server, url := start(t, catcher.Config{MaxKeep: 2})
	for range 3 {
		send(t, server, "Subject: x\n\nx\n")
	}
	for _, path := range []string{"/mail/1", "/mail/4", "/mail/0", "/mail/x", "/mail/3/part/1", "/mail/3/part/-1", "/mail/3/part/x", "/mail/9/source", "/other"} {
		if got := get(t, url+path); got.code != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.code)
		}
	}
}

// Another site that points a name of its own here reads nothing.
func TestPages_otherNames(t *testing.T) {
	_, url := start(t, catcher.Config{})
	for host, want := range map[string]int{
		"localhost:1080": http.StatusOK, "127.0.0.1": http.StatusOK, "[::1]:1080": http.StatusOK,
		"mail:1080": http.StatusOK, "evil.example:1080": http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %d, want %d", host, response.StatusCode, want)
		}
	}
}

func TestEvents(t *testing.T) {
	server, url := start(t, catcher.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for n := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", n) {
			t.Fatalf("event %d = %q, %v", n, lines.Text(), lines.Err())
		}
		lines.Scan() // the empty line that ends an event
		send(t, server, "Subject: x\n\nx\n")
	}
}

func TestBrowser(t *testing.T) {
	b := browsertest.Start(t)
	server, url := start(t, catcher.Config{})
	text := func(selector chromedp.CSS) string { return browsertest.Get(b, chromedp.TextContent(selector)) }
	b.Do(chromedp.Navigate(url))
	if got := text("#list p"); got != "Nothing yet. A mail shows up here when it arrives." {
		t.Errorf("empty: %q", got)
	}
	for n := range 3 { // nobody presses reload
		send(t, server, fmt.Sprintf("Subject: no. %d\n\nx\n", n+1))
		if got, want := text(chromedp.CSS(fmt.Sprintf(`#list a[href="/mail/%d"] b`, n+1))), fmt.Sprintf("no. %d", n+1); got != want {
			t.Errorf("in the list: %q, want %q", got, want)
		}
	}
	send(t, server, mixed)
	b.Load(chromedp.Click(chromedp.CSS(`#list a[href="/mail/4"]`)))
	if got := text("h2"); got != "Your order <b>&" {
		t.Errorf("heading = %q", got)
	}
	if got := text("pre"); !strings.Contains(got, `Schön, <script>alert("text")</script>`) {
		t.Errorf("text = %q", got)
	}
	if got := text("#list a[aria-current] b"); got != "Your order <b>&" {
		t.Errorf("marked in the list: %q", got)
	}
}

const withPicture = `Subject: picture
MIME-Version: 1.0
Content-Type: multipart/related; boundary=b

--b
Content-Type: text/html

<p id="hello"><img id="in" src="cid:dot@shop"><img id="out" src="http://%s/x.png"></p>
--b
Content-Type: image/gif; name="dot.gif"
Content-Transfer-Encoding: base64
Content-ID: <dot@shop>
Content-Disposition: inline; filename="dot.gif"

R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==
--b--
`

// A mail's own pictures are shown. Those of other servers are loaded if a person asks for them, and not before.
func TestBrowser_pictures(t *testing.T) {
	b := browsertest.Start(&counter{TB: t})
	server, url := start(t, catcher.Config{})
	asked := make(chan string, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Referer() }))
	defer elsewhere.Close()
	send(t, server, fmt.Sprintf(withPicture, strings.TrimPrefix(elsewhere.URL, "http://")))
	b.Load(chromedp.Navigate(url + "/mail/1"))
	if got := browsertest.Get(b, chromedp.Text(chromedp.CSS("ul li a"))); got != "dot.gif" {
		t.Errorf("listed: %q", got)
	}
	if got := browsertest.Get(b, chromedp.Text(chromedp.CSS("h3:last-of-type"))); got != "Pictures inside the text" {
		t.Errorf("listed as %q", got)
	}
	b.Load(chromedp.Navigate(url + "/mail/1/part/0"))
	if got := browsertest.Get(b, chromedp.Evaluate[int](`document.getElementById("in").naturalWidth`)); got != 1 {
		t.Errorf("the mail's picture is %d pixels wide", got)
	}
	select {
	case <-asked:
		t.Error("a picture of another server was loaded")
	default:
	}
	b.Load(chromedp.Navigate(url + "/mail/1"))
	b.Load(chromedp.Click(chromedp.CSS("h3 a")))
	select {
	case referer := <-asked:
		if referer != "" {
			t.Errorf("the other server was told that the reader is at %q", referer)
		}
	case <-time.After(time.Minute):
		t.Error("the picture was asked for, and not loaded")
	}
}

// What is found can be opened and deleted, and the list follows without a reload.
func TestBrowser_searchAndDelete(t *testing.T) {
	b := browsertest.Start(t)
	server, url := start(t, catcher.Config{})
	text := func(selector chromedp.CSS) string { return browsertest.Get(b, chromedp.Text(selector)) }
	for n := range 4 {
		send(t, server, fmt.Sprintf("Subject: no. %d\n\n%s\n", n+1, []string{"apple & pear", "plum"}[n%2]))
	}
	b.Load(chromedp.Navigate(url))
	b.Do(chromedp.SendKeys(chromedp.CSS("input[type=search]"), "apple & pear"))
	b.Load(chromedp.Click(chromedp.CSS(".find button")))
	if got := text("#count"); got != "2 of 4" {
		t.Errorf("found: %q", got)
	}
	b.Load(chromedp.Click(chromedp.CSS(`#list a[href^="/mail/1?"]`)))
	if got := text("h2") + ", " + text("#count"); got != "no. 1, 2 of 4" {
		t.Errorf("opened: %q", got)
	}
	b.Load(chromedp.Click(chromedp.CSS(".bar button.danger")))
	if got := text("#count"); got != "1 of 3" {
		t.Errorf("after the deletion of one: %q", got)
	}
	server.Delete(func(m catcher.Message) bool { return m.Number == 3 }) // by another program
	if got := text("#list p a"); got != "Show all" {
		t.Errorf("after the deletion of the other: %q", got)
	}
	b.Load(chromedp.Click(chromedp.CSS("#list p a")))
	if got := text("#count"); got != "2 caught, none delivered" {
		t.Errorf("all: %q", got)
	}
	b.Load(chromedp.Click(chromedp.CSS("#clear button")))
	if got := text("#list p"); !strings.HasPrefix(got, "Nothing yet") || len(server.Messages()) != 0 {
		t.Errorf("after the deletion of all: %q", got)
	}
}

// The page can be read on a telephone: nothing is wider than it.
func TestBrowser_narrow(t *testing.T) {
	b := browsertest.Start(t)
	server, url := start(t, catcher.Config{})
	send(t, server, strings.Replace(mixed, "Your order", "Your order "+strings.Repeat("withoutablank", 20), 1))
	for _, path := range []string{"/", "/mail/1", "/?q=nothing"} {
		b.Load(chromedp.Navigate(url + path))
		for _, width := range []int64{390, 1280} {
			b.Do(chromedp.EmulateViewport(width, 800))
			if got := browsertest.Get(b, chromedp.Evaluate[int64]("document.documentElement.scrollWidth")); got > width {
				t.Errorf("%s at %d pixels is %d wide", path, width, got)
			}
			b.Do(chromedp.ResetViewport())
		}
	}
}

// The HTML of a mail runs no script, and knows nothing of the page around it.
func TestBrowser_htmlIsHarmless(t *testing.T) {
	failures := &counter{TB: t}
	b := browsertest.Start(failures)
	server, url := start(t, catcher.Config{})
	send(t, server, mixed)
	b.Do(chromedp.Navigate(url + "/mail/1/part/1"))
	if got := browsertest.Get(b, chromedp.Text(chromedp.CSS("#hello"))); got != "Schön" {
		t.Errorf("text = %q", got)
	}
	if got := browsertest.Get(b, chromedp.Evaluate[string]("window.origin")); got != "null" {
		t.Errorf("origin = %q, want an opaque one", got)
	}
}

// connecting are ways to make a browser connect to %[1]s, a host and port, without being asked.
var connecting = map[string]string{
	"preconnect":        `<link rel="preconnect" href="http://%[1]s">`,
	"preconnect, CORS":  `<p>a</p><link rel="stylesheet PRECONNECT" crossorigin href="//%[1]s/">`,
	"out of a picture":  `<svg><style><p><link rel="preconnect" href="http://%[1]s"></p></style></svg>`,
	"inside a frame":    `<iframe srcdoc='<link rel="preconnect" href="http://%[1]s">'></iframe>`,
	"in a data: frame":  `<iframe src='data:text/html,<link rel="preconnect" href="http://%[1]s">'></iframe>`,
	"a base":            `<base href="http://%[1]s/"><link rel="preconnect" href="/">`,
	"prefetch":          `<link rel="prefetch" href="http://%[1]s/a"><link rel="prerender" href="http://%[1]s/b"><link rel="next" href="http://%[1]s/c">`,
	"preload":           `<link rel="preload" as="image" href="http://%[1]s/a"><link rel="modulepreload" href="http://%[1]s/a.js">`,
	"sheets and icons":  `<link rel="stylesheet" href="http://%[1]s/a.css"><link rel="icon" href="http://%[1]s/a.ico"><link rel="manifest" href="http://%[1]s/m">`,
	"an early hint":     `<meta http-equiv="Link" content="<http://%[1]s>; rel=preconnect"><meta http-equiv="x-dns-prefetch-control" content="on">`,
	"a refresh":         `<meta http-equiv="refresh" content="0;url=http://%[1]s/">`,
	"a policy's report": `<meta http-equiv="Content-Security-Policy" content="img-src 'none'; report-uri http://%[1]s/"><img src="x.png">`,
	"speculation":       `<script type="speculationrules">{"prerender":[{"source":"list","urls":["http://%[1]s/"]}]}</script>`,
	"a script":          `<script>new RTCPeerConnection({iceServers:[{urls:"turn:%[1]s?transport=tcp",username:"a",credential:"b"}]}).createDataChannel("a")</script>`,
	"pictures":          `<img src="http://%[1]s/a.png" srcset="http://%[1]s/b.png 2x"><picture><source srcset="http://%[1]s/c.png"><img></picture><input type="image" src="http://%[1]s/d">`,
	"style":             `<style>@import "http://%[1]s/a.css"; @font-face { font-family: a; src: url(http://%[1]s/a.woff) } p { font-family: a; background: url(http://%[1]s/b.png) }</style><p style="list-style-image: url(http://%[1]s/c)" background="http://%[1]s/d">a`,
	"frames":            `<iframe src="http://%[1]s/"></iframe><object data="http://%[1]s/"></object><embed src="http://%[1]s/"><portal src="http://%[1]s/"></portal>`,
	"media":             `<video poster="http://%[1]s/p" src="http://%[1]s/v" autoplay><track default src="http://%[1]s/t"></video><audio src="http://%[1]s/a" autoplay></audio>`,
	"SVG":               `<svg><image href="http://%[1]s/a.png"/><use href="http://%[1]s/b.svg#a"/><feImage href="http://%[1]s/c"/></svg>`,
	"a frameset":        `<frameset><frame src="http://%[1]s/"></frameset>`,
}

// Nothing in a mail's HTML makes a browser connect to anybody, shown in the page or alone. That
// a link alone would do so is seen of a page that has it as it is: when its connection comes
// those of the mails before it would have come.
func TestBrowser_connectsToNobody(t *testing.T) {
	b := browsertest.Start(&counter{TB: t})
	server, url := start(t, catcher.Config{})
	arrived := make(chan string, 1000)
	number := 0
	for _, name := range slices.Sorted(maps.Keys(connecting)) {
		number++
		send(t, server, "MIME-Version: 1.0\nContent-Type: text/html\n\n"+fmt.Sprintf(connecting[name], listen(t, name, arrived))+"<p id=\"end\">end</p>\n")
		b.Load(chromedp.Navigate(fmt.Sprintf("%s/mail/%d", url, number)))
		b.Load(chromedp.Navigate(fmt.Sprintf("%s/mail/%d/part/0", url, number)))
	}
	const control = "the page that is to connect"
	raw := fmt.Sprintf(connecting["preconnect"], listen(t, control, arrived))
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
		_, _ = io.WriteString(w, raw)
	}))
	defer plain.Close()
	b.Load(chromedp.Navigate(plain.URL))
	for {
		select {
		case name := <-arrived:
			if name == control {
				return
			}
			t.Errorf("%s: the browser has connected", name)
		case <-time.After(time.Minute):
			t.Fatal("the browser connects to nobody at all, so nothing is proved")
		}
	}
}

// listen returns an address of this machine. Whenever somebody connects to it, its name arrives.
func listen(t *testing.T, name string, arrived chan<- string) (addr string) {
	t.Helper()
	return testserver.Serve(t, func(net.Conn) {
		select {
		case arrived <- name:
		default: // enough
		}
	})
}

// counter is a test that the browser's complaints do not fail: here they are expected.
type counter struct{ testing.TB }

func (*counter) Errorf(string, ...any) {}
