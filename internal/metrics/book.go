package metrics

import "github.com/prometheus/client_golang/prometheus"

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

// stepBuckets go from a server on the same machine to one that is about to time out.
func stepBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
}
