// Package browser gives a test a browser: a headless Chromium, driven over the
// DevTools protocol by chromedp. It ends with the test.
package browser

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
)

// timeout bounds every step, generously: the machine may be busy.
const timeout = time.Minute

// Tab is one tab of a browser. Its methods end the test if a step fails, and belong to
// the test's goroutine.
type Tab struct {
	t   testing.TB
	ctx context.Context
}

// Start starts a Chromium with an empty profile and returns its first tab. What a page's
// own Content-Security-Policy stops fails the test.
//
// If there is no Chromium the test is skipped. It fails instead where CI is set and
// Debian's package could be installed: there it would be skipped for ever without
// anybody noticing.
func Start(t testing.TB) *Tab {
	t.Helper()
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(find(t)),
		chromedp.WSURLReadTimeout(timeout),
		chromedp.NoSandbox, // needs no namespaces, and the pages are our own
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("hide-scrollbars", true),
	)...)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		cancel()
		stop()
	})
	// The first call binds the browser to its context, which must not have a time-out.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("browsertest: start: %v", err)
	}
	b := &Tab{t: t, ctx: ctx}
	b.watchPolicy()
	return b
}

// find returns the path of a Chromium or of its sibling.
func find(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const text = "browsertest: install Chromium (Debian: apt-get install chromium)"
	if _, err := exec.LookPath("apt-get"); err == nil && os.Getenv("CI") != "" {
		t.Fatal(text)
	}
	t.Skip(text)
	return ""
}

// watchPolicy reports what the browser refuses a page by its policy.
func (b *Tab) watchPolicy() {
	b.t.Helper()
	err := chromedp.Listen(b.ctx, func(ev any) {
		if e, ok := ev.(*log.EventEntryAdded); ok && e.Entry.Source == log.EntrySourceSecurity {
			b.t.Errorf("browsertest: %s: %s", e.Entry.URL, e.Entry.Text)
		}
	})
	if err != nil {
		b.t.Fatalf("browsertest: listen: %v", err)
	}
}

// Do runs actions one after the other.
func (b *Tab) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, timeout)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("browsertest: %v", err)
	}
}

// Load runs actions that lead to another page, waits for it, and returns its status code.
func (b *Tab) Load(steps ...chromedp.Action[chromedp.Void]) int {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, timeout)
	defer cancel()
	response, err := chromedp.RunResponse(ctx, steps...)
	if err != nil {
		b.t.Fatalf("browsertest: %v", err)
	}
	return int(response.Status)
}

// Get runs one action and returns what it finds.
func Get[T any](b *Tab, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, timeout)
	defer cancel()
	got, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("browsertest: %v", err)
	}
	return got
}

// Says waits until the page says so, also if it is only on its way.
func (b *Tab) Says(want string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, timeout)
	defer cancel()
	text := ""
	for ctx.Err() == nil {
		// It fails while one page goes and another one comes.
		if got, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body?.innerText ?? ''")); err == nil {
			if text = got; strings.Contains(text, want) {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	b.t.Fatalf("browsertest: the page does not say %q:\n%s", want, text)
}

// Press clicks on an element once it is there, and does not wait for what comes of it.
func (b *Tab) Press(selector string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, timeout)
	defer cancel()
	script := fmt.Sprintf("(() => { const e = document.querySelector(%q); e?.click(); return e !== null; })()", selector)
	for ctx.Err() == nil {
		if there, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script)); err == nil && there {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	b.t.Fatalf("browsertest: there is no %s", selector)
}

// Screenshot writes what the tab shows at that size, in CSS pixels, to a PNG file.
func (b *Tab) Screenshot(file string, width, height int64) {
	b.t.Helper()
	b.Do(chromedp.EmulateViewport(width, height))
	picture := Get(b, chromedp.CaptureScreenshot())
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		b.t.Fatalf("browsertest: screenshot: %v", err)
	}
	var small bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&small, img); err != nil {
		b.t.Fatalf("browsertest: screenshot: %v", err)
	}
	if err := os.WriteFile(file, small.Bytes(), 0o644); err != nil { //nolint:gosec // a picture for README
		b.t.Fatalf("browsertest: screenshot: %v", err)
	}
	b.Do(chromedp.ResetViewport())
}
