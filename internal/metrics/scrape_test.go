package metrics

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// scrape asks for the metrics as Prometheus does. The values are by series: name{label="value",...}.
func scrape(t *testing.T, m *Metrics) (text string, series map[string]float64) {
	t.Helper()
	server := httptest.NewServer(m.Handler())
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	if reply.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", reply.Status, body)
	}
	series = map[string]float64{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		series[line[:i]] = value
	}
	return string(body), series
}

// promtool returns the path of Prometheus' tool, which .ci/deps unpacks where no package has
// installed it.
func promtool(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	if cache, err := os.UserCacheDir(); err == nil {
		path := filepath.Join(cache, "mailpouch", "promtool")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	const text = "needs promtool: run .ci/deps, or install prometheus (apt-get install prometheus, brew install prometheus)"
	if os.Getenv("CI") != "" {
		t.Fatal(text)
	}
	t.Skip(text)
	return ""
}

// check runs promtool and returns what it says.
func check(t *testing.T, stdin string, args ...string) (out string, err error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), promtool(t), args...)
	c.Stdin = strings.NewReader(stdin)
	said, err := c.CombinedOutput()
	return string(said), err
}
