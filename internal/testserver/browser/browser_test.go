package browser_test

import (
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	browsertest "github.com/mailpouch/mailpouch/internal/testserver/browser"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, header, page string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", header)
		fmt.Fprint(w, page)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestTab(t *testing.T) {
	b := browsertest.Start(t)
	code := b.Load(chromedp.Navigate(serve(t, "script-src 'nonce-a'", `<h1>no</h1><script nonce=a>document.querySelector("h1").textContent = "yes"</script>`)))
	if got := browsertest.Get(b, chromedp.TextContent(chromedp.CSS("h1"))); got != "yes" || code != http.StatusOK {
		t.Errorf("%d, heading = %q: the script did not run", code, got)
	}
	file := filepath.Join(t.TempDir(), "page.png")
	b.Screenshot(file, 320, 200)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	picture, err := png.DecodeConfig(f)
	if err != nil || picture.Width != 320 || picture.Height != 200 {
		t.Errorf("picture = %dx%d, %v", picture.Width, picture.Height, err)
	}
}

// recorder is a test that remembers how it ended.
type recorder struct {
	testing.TB
	errors          chan string
	skipped, failed string
}

func (r *recorder) Errorf(format string, args ...any) { r.errors <- fmt.Sprintf(format, args...) }

func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.failed = fmt.Sprint(args...)
	runtime.Goexit()
}

func TestStart_reportsWhatThePolicyStops(t *testing.T) {
	r := &recorder{TB: t, errors: make(chan string, 10)}
	b := browsertest.Start(r)
	b.Do(chromedp.Navigate(serve(t, "script-src 'none'", "<script>alert(1)</script>")))
	select {
	case text := <-r.errors:
		if !strings.Contains(text, "script-src") {
			t.Errorf("reported %q", text)
		}
	case <-time.After(time.Minute):
		t.Error("nothing is reported")
	}
}

func TestStart_notInstalled(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	start := func(ci string) *recorder {
		t.Setenv("CI", ci)
		r := &recorder{TB: t}
		var wg sync.WaitGroup
		wg.Go(func() { browsertest.Start(r) })
		wg.Wait()
		return r
	}
	const text = "apt-get install chromium"
	if r := start("true"); !strings.Contains(r.skipped, text) {
		t.Errorf("in CI where it cannot be installed: %+v", r)
	}
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if r := start(""); !strings.Contains(r.skipped, text) {
		t.Errorf("not in CI: %+v", r)
	}
	if r := start("true"); !strings.Contains(r.failed, text) {
		t.Errorf("in CI: %+v", r)
	}
}
