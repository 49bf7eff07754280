package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const docs = "../../docs/"

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Clean(docs + name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

type dashboard struct {
	UID        string
	Templating struct {
		List []struct {
			Name, Type, Definition string
		}
	}
	Panels []struct {
		ID         int
		Title      string
		Type       string
		Datasource struct{ UID string }
		GridPos    struct{ X, Y, W, H int }
		Targets    []struct {
			Expr       string
			Datasource struct{ UID string }
		}
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(document(t, "grafana.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// queries are the dashboard's, with Grafana's variables filled in.
func (d dashboard) queries() []string {
	fill := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$mailer", ".*")
	var list []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			list = append(list, fill.Replace(target.Expr))
		}
	}
	return list
}

// TestDashboard: it can be imported as it is, and asks only for what there is.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	seen := map[int]bool{}
	used := map[[2]int]string{}
	for _, p := range d.Panels {
		if seen[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q: no title, or another has its number", p.ID, p.Title)
		}
		seen[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Datasource.UID != "${datasource}") {
			t.Errorf("%s: no query, or not of the data source that was chosen", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("%s asks %q", p.Title, target.Datasource.UID)
			}
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if used[[2]int{x, y}] != "" || x >= 24 {
					t.Fatalf("%s lies on %s", p.Title, used[[2]int{x, y}])
				}
				used[[2]int{x, y}] = p.Title
			}
		}
	}
	queries := d.queries()
	if len(queries) < 40 || d.UID == "" {
		t.Errorf("%d queries, uid %q", len(queries), d.UID)
	}
	known := knownMetrics(t)
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			queries = append(queries, v.Definition)
		}
	}
	for _, q := range queries {
		checkNames(t, known, q)
		if strings.Contains(q, "$") {
			t.Errorf("%s: a variable is left", q)
		}
	}
}

// TestDashboard_promQL: Prometheus understands the queries.
func TestDashboard_promQL(t *testing.T) {
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for i, q := range readDashboard(t).queries() {
		rules = append(rules, rule{fmt.Sprint("query:", i), q})
	}
	// JSON is YAML.
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := check(t, "", "check", "rules", file); err != nil || !strings.Contains(said, fmt.Sprint(len(rules), " rules found")) {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestAlerts: the alerts are what their tests say, and speak of what there is.
func TestAlerts(t *testing.T) {
	text := document(t, "alerts.yml")
	known := knownMetrics(t)
	expressions := regexp.MustCompile(`(?s)expr: (.*?)\n        [a-z]`).FindAllStringSubmatch(text, -1)
	if n := strings.Count(text, "- alert: "); len(expressions) != n {
		t.Fatalf("%d expressions in %d alerts", len(expressions), n)
	}
	for _, m := range expressions {
		checkNames(t, known, m[1])
	}
	tests, explained := document(t, "alerts_test.yml"), document(t, "metrics.md")
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(text, -1) {
		if !regexp.MustCompile(`alertname: ` + m[1] + `\n +exp_alerts:\n`).MatchString(tests) {
			t.Errorf("no test shows that %s fires", m[1])
		}
		if !strings.Contains(explained, "`"+m[1]+"`") {
			t.Errorf("metrics.md does not say what %s means", m[1])
		}
	}
	for _, args := range [][]string{{"check", "rules", docs + "alerts.yml"}, {"test", "rules", docs + "alerts_test.yml"}} {
		if said, err := check(t, "", args...); err != nil || !strings.Contains(said, "SUCCESS") {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, said)
		}
	}
}

// TestDefinitions: each metric is described, named as Prometheus wants it, and can be seen in
// the dashboard.
func TestDefinitions(t *testing.T) {
	shown := strings.Join(readDashboard(t).queries(), "\n")
	for _, d := range Definitions() {
		if d.Help == "" || !strings.HasSuffix(d.Help, ".") && !strings.HasSuffix(d.Help, "from it is missing.") {
			t.Errorf("%s: %q", d.Name, d.Help)
		}
		if strings.HasPrefix(d.Name, "mailpouch_") && (d.Type == "counter") != strings.HasSuffix(d.Name, "_total") {
			t.Errorf("%s is a %s", d.Name, d.Type)
		}
		if !regexp.MustCompile(`\b`+d.Name+`(_bucket|_sum|_count)?\b`).MatchString(shown) && d.Name != "asynq_queue_size" && d.Name != "asynq_queue_latency_seconds" {
			t.Errorf("%s is not in the dashboard", d.Name)
		}
	}
}

// knownMetrics are the names that a scrape may have, each with its labels.
func knownMetrics(t *testing.T) map[string][]string {
	t.Helper()
	known := map[string][]string{}
	_, series := scrape(t, New(Config{}))
	for s := range series {
		name, _, _ := strings.Cut(s, "{")
		known[name] = nil
	}
	for _, d := range Definitions() {
		names := []string{d.Name}
		if d.Type == "histogram" {
			names = []string{d.Name + "_bucket", d.Name + "_sum", d.Name + "_count"}
		}
		for _, name := range names {
			known[name] = d.Labels
		}
	}
	return known
}

// checkNames looks for metrics and labels in a query that there are not.
func checkNames(t *testing.T, known map[string][]string, query string) {
	t.Helper()
	labels := []string{"job", "instance", "le"} // of Prometheus
	metrics := regexp.MustCompile(`\b(mailpouch|asynq|go|process)_\w+`).FindAllString(query, -1)
	if len(metrics) == 0 {
		t.Errorf("%s asks for nothing", query)
	}
	for _, name := range metrics {
		own, ok := known[name]
		if !ok {
			t.Errorf("%s: there is no %s", query, name)
		}
		labels = append(labels, own...)
	}
	for _, m := range regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"|by \(([\w, ]*)\)`).FindAllStringSubmatch(query, -1) {
		for name := range strings.SplitSeq(m[1]+m[2], ", ") {
			if !slices.Contains(labels, name) {
				t.Errorf("%s: no such label: %s", query, name)
			}
		}
	}
}

// TestAsynqmon: what asynqmon v0.7.2 asks a Prometheus server for is there.
func TestAsynqmon(t *testing.T) {
	known := knownMetrics(t)
	for _, query := range []string{
		`asynq_queue_size{queue=~"a|b"}`,
		`asynq_queue_latency_seconds{queue=~"a|b"}`,
		`asynq_queue_memory_usage_approx_bytes{queue=~"a|b"}`,
		`rate(asynq_tasks_failed_total{queue=~"a|b"}[5m]) / rate(asynq_tasks_processed_total{queue=~"a|b"}[5m])`,
		`asynq_tasks_enqueued_total{state="pending",queue=~"a|b"}`,
		`asynq_tasks_enqueued_total{state="retry",queue=~"a|b"}`,
		`asynq_tasks_enqueued_total{state="archived",queue=~"a|b"}`,
	} {
		checkNames(t, known, query)
	}
}
