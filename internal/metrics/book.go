package metrics

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Definition describes one metric.
type Definition struct {
	Name   string
	Type   string // "counter", "gauge" or "histogram"
	Help   string
	Labels []string
}

// book makes metrics and keeps a list of them.
type book struct {
	definitions []Definition
	collectors  []prometheus.Collector
}

func (b *book) note(kind, name, help string, labels []string) {
	b.definitions = append(b.definitions, Definition{Name: name, Type: kind, Help: help, Labels: labels})
}

func (b *book) counter(name, help string, labels ...string) *prometheus.CounterVec {
	b.note("counter", name, help, labels)
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	b.collectors = append(b.collectors, v)
	return v
}

func (b *book) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	b.note("gauge", name, help, labels)
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	b.collectors = append(b.collectors, v)
	return v
}

func (b *book) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	b.note("histogram", name, help, labels)
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	b.collectors = append(b.collectors, v)
	return v
}

// desc is for a metric that a collector reads elsewhere.
func (b *book) desc(kind prometheus.ValueType, name, help string, labels ...string) desc {
	names := map[prometheus.ValueType]string{prometheus.CounterValue: "counter", prometheus.GaugeValue: "gauge"}
	b.note(names[kind], name, help, labels)
	return desc{prometheus.NewDesc(name, help, labels, nil), kind}
}

// desc is a metric without a value yet.
type desc struct {
	*prometheus.Desc
	kind prometheus.ValueType
}

func (d desc) is(value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d.Desc, d.kind, value, labels...)
}

// Definitions are the metrics of this project, by name. Those of Go's runtime (go_...)
// and of the process (process_...) are client_golang's.
func Definitions() []Definition {
	all := New(Config{}).book.definitions
	slices.SortFunc(all, func(a, b Definition) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Markdown is the table of Definitions.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| name | type | labels | meaning |\n|---|---|---|---|\n")
	for _, d := range Definitions() {
		labels := make([]string, len(d.Labels))
		for i, l := range d.Labels {
			labels[i] = "`" + l + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Name, d.Type, strings.Join(labels, ", "), d.Help)
	}
	return b.String()
}
