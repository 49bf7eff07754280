package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/testserver"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

// receiverFiles are what the receiver is made of. The lock file pins all that npm installs.
var receiverFiles = []string{"package.json", "package-lock.json", "receiver.mjs"}

// installReceiver installs it where that has not been done yet, in a directory of the user's cache, and returns its script.
func installReceiver(t *testing.T) (node, script string) {
	t.Helper()
	const packages = "Node.js and npm (Debian: apt-get install nodejs npm)"
	node, err := exec.LookPath("node")
	if err != nil {
		testserver.Missing(t, "webhook: install "+packages)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		testserver.Missing(t, "webhook: install "+packages)
	}
	sum, files := sha256.New(), map[string][]byte{}
	for _, name := range receiverFiles {
		if files[name], err = os.ReadFile(filepath.Join("testdata/receiver", name)); err != nil {
			t.Fatal(err)
		}
		_, _ = sum.Write(files[name])
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "mailpouch", fmt.Sprintf("webhook-receiver-%x", sum.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return node, filepath.Join(dir, "receiver.mjs")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "webhook-receiver-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		first, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
		testserver.Missing(t, fmt.Sprintf("webhook: npm ci: %v: %s", err, first))
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // another test has been faster
			t.Fatal(err)
		}
	}
	return node, filepath.Join(dir, "receiver.mjs")
}

// verdict is what the libraries say of a post.
type verdict struct {
	ID             string
	Standard, Svix struct {
		Error string
		Event *payload
	}
}

// nodeReceiver is a receiver in Node.js.
type nodeReceiver struct {
	url      string
	verdicts *json.Decoder
}

func startNode(t *testing.T, secret string) nodeReceiver {
	t.Helper()
	node, script := installReceiver(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	cmd := exec.CommandContext(ctx, node, script, secret)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // it ends when the test process does, however that ends
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
		cancel()
	})
	lines := bufio.NewReader(stdout)
	port, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return nodeReceiver{"http://127.0.0.1:" + strings.TrimSpace(port), json.NewDecoder(lines)}
}

func (r nodeReceiver) next(t *testing.T) verdict {
	t.Helper()
	var v verdict
	if err := r.verdicts.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// What is posted is what npm's standardwebhooks and svix verify, also while the secret is being changed.
func TestReceiver(t *testing.T) {
	t.Parallel()
	rec := startNode(t, secret)
	source := newMemory(someEvents(20)...)
	start(t, Config{Targets: []target.Target{to(t, rec.url+"/hooks", otherSecret, secret)}}, source)
	source.await(t, 20)
	seen := map[string]bool{}
	for range 20 {
		v := rec.next(t)
		if v.Standard.Error != "" || v.Svix.Error != "" {
			t.Fatalf("%+v", v)
		}
		for _, got := range []*payload{v.Standard.Event, v.Svix.Event} {
			if got == nil || got.Type != "email.sent" || got.Timestamp != got.CreatedAt || got.Data.Reply != event(1).Reply {
				t.Fatalf("%s: %+v", v.ID, got)
			}
		}
		at, err := time.Parse(time.RFC3339, v.Standard.Event.Timestamp)
		if err != nil || time.Since(at) > time.Hour || v.Standard.Event.Data.EmailID != strings.Replace(v.ID, "evt_", "task-", 1) {
			t.Errorf("%s: %+v", v.ID, v.Standard.Event)
		}
		seen[v.ID] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d different IDs", len(seen))
	}
}

// Both libraries refuse what another secret has signed, what is too old or of the future, and what was changed.
func TestReceiver_refuses(t *testing.T) {
	t.Parallel()
	rec := startNode(t, secret)
	source := newMemory(event(1))
	d := start(t, Config{Targets: []target.Target{to(t, rec.url, otherSecret)}}, source)
	if v := rec.next(t); v.Standard.Error != "No matching signature found" || v.Svix.Error != "No matching signature found" {
		t.Errorf("another secret: %+v", v)
	}
	await(t, "the error", func() bool { return d.State()[0].LastError == "HTTP 400 Bad Request: No matching signature found" })
	d.stop()
	if source.ackedIDs() != 0 {
		t.Error("it was acknowledged")
	}
	const id = "evt_3" // its own: what the dispatcher has posted again meanwhile has its verdicts too
	body, err := encode(event(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		at     time.Time
		change func(http.Header, []byte)
		want   string
	}{
		{"as it is", time.Now(), func(http.Header, []byte) {}, ""},
		{"too old", time.Now().Add(-6 * time.Minute), func(http.Header, []byte) {}, "Message timestamp too old"},
		{"too new", time.Now().Add(time.Hour), func(http.Header, []byte) {}, "Message timestamp too new"},
		{"changed", time.Now(), func(_ http.Header, b []byte) { b[len(b)-3]++ }, "No matching signature found"},
		{"another ID", time.Now(), func(h http.Header, _ []byte) { h["webhook-id"], h["svix-id"] = []string{"evt_2"}, []string{"evt_2"} }, "No matching signature found"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, rec.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		to(t, rec.url).Sign(request.Header, id, tt.at, body)
		changed := bytes.Clone(body)
		tt.change(request.Header, changed)
		request.Body = io.NopCloser(bytes.NewReader(changed))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		v := rec.next(t)
		for v.ID == "evt_1" {
			v = rec.next(t)
		}
		if v.Standard.Error != tt.want || v.Svix.Error != tt.want || (response.StatusCode == http.StatusNoContent) != (tt.want == "") {
			t.Errorf("%s: %+v", tt.name, v)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// The lock file names no registry: npm asks the one that is set up.
func TestReceiver_lock(t *testing.T) {
	t.Parallel()
	lock, err := os.ReadFile("testdata/receiver/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{`"resolved"`, "registry"} {
		if bytes.Contains(lock, []byte(not)) {
			t.Errorf("the lock file has %s", not)
		}
	}
	for _, want := range []string{`"integrity"`, "node_modules/standardwebhooks", "node_modules/svix"} {
		if !bytes.Contains(lock, []byte(want)) {
			t.Errorf("the lock file lacks %s", want)
		}
	}
}
