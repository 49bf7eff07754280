package metrics

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/backends/dkim"
	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// TestLabels: what comes from outside makes no new series.
func TestLabels(t *testing.T) {
	m := New(Config{Mailers: []string{"marketing"}, Queues: []string{"default"}})
	before := seriesOf(t, m)
	o := m.Observer()
	for i := range 100 {
		name := fmt.Sprint("name", i)
		o.Outcome(tasks.Outcome{
			Action: tasks.Action(name), Mailer: name, Queue: name, Try: 1,
			Err: &mailer.SendError{Code: 600 + i, Step: mailer.Step(name), Text: name, Class: mailer.Permanent},
		})
		o.Batch(tasks.Batch{Mailer: name})
		o.Held(name, errors.New(name))
		o.Back(tasks.GivenBack{Reason: tasks.BackReason(name), Queue: name, Mailer: name})
		m.Hooks(name).Reused(t.Context(), &smtp.Conn{}, 0)
	}
	for _, d := range difference(seriesOf(t, m), before) {
		if !strings.Contains(d, `"other"`) || strings.Contains(d, "name9") {
			t.Errorf("new series %s", d)
		}
	}
}

// TestDKIM: the keys of each mailer are counted, and the tries that failed because one could not sign.
func TestDKIM(t *testing.T) {
	m := New(Config{Mailers: []string{"marketing"}})
	m.Signs("marketing", 2)
	broken := &mailer.SendError{Class: mailer.Temporary, Step: mailer.StepRender, Err: &dkim.Error{Key: "a._domainkey.example.com", Err: errors.New("gone")}}
	m.Observer().Outcome(tasks.Outcome{Action: tasks.ActionRetry, Mailer: "marketing", Try: 1, Err: broken})
	m.Observer().Outcome(tasks.Outcome{Action: tasks.ActionRetry, Mailer: "marketing", Try: 1, Err: &mailer.SendError{Step: mailer.StepRender}})
	got := seriesOf(t, m)
	for series, want := range map[string]float64{
		`mailpouch_dkim_keys{mailer="marketing"}`: 2, `mailpouch_dkim_keys{mailer="default"}`: 0,
		`mailpouch_dkim_failures_total{mailer="marketing"}`: 1, `mailpouch_dkim_failures_total{mailer="default"}`: 0,
	} {
		if n, there := got[series]; !there || n != want {
			t.Errorf("%s: %v (there: %t), want %v", series, n, there, want)
		}
	}
}

func seriesOf(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	_, series := scrape(t, m)
	return series
}

// difference returns the series of a that are not in b.
func difference(a, b map[string]float64) []string {
	var list []string
	for series := range a {
		if _, ok := b[series]; !ok {
			list = append(list, series)
		}
	}
	return list
}

// Tags come from programs, and there may be any number of them: only those that are named have series.
func TestTags(t *testing.T) {
	m := New(Config{Mailers: []string{"marketing"}, Tags: []string{"news", "invoice"}})
	before := seriesOf(t, m)
	o := m.Observer()
	for i := range 100 {
		o.Outcome(tasks.Outcome{Action: tasks.ActionSent, Queue: "default", Tags: []string{fmt.Sprint("order-", i), "news", fmt.Sprint("customer-", i)}})
	}
	o.Outcome(tasks.Outcome{Action: tasks.ActionSent, Queue: "default"})
	o.Outcome(tasks.Outcome{Action: tasks.ActionForwarded, Queue: "default", Tags: []string{"news"}})
	o.Outcome(tasks.Outcome{Action: tasks.ActionDead, Mailer: "marketing", Queue: "default", Tags: []string{"invoice"}})
	after := seriesOf(t, m)
	for series, want := range map[string]float64{
		`mailpouch_tagged_messages_total{mailer="default",outcome="sent",tag="news"}`:             100,
		`mailpouch_tagged_messages_total{mailer="default",outcome="sent",tag="other"}`:            100,
		`mailpouch_tagged_messages_total{mailer="default",outcome="sent",tag="invoice"}`:          0,
		`mailpouch_tagged_messages_total{mailer="marketing",outcome="dead_letter",tag="invoice"}`: 1,
	} {
		if got, ok := after[series]; !ok || got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
		if got, ok := before[series]; !ok || got != 0 {
			t.Errorf("%s does not begin at zero", series)
		}
	}
	for _, d := range difference(after, before) {
		if strings.Contains(d, "tagged") {
			t.Errorf("new series %s", d)
		}
	}
	none := New(Config{})
	none.Observer().Outcome(tasks.Outcome{Action: tasks.ActionSent, Queue: "default", Tags: []string{"news"}})
	for series := range seriesOf(t, none) {
		if strings.Contains(series, "tagged") {
			t.Errorf("nobody has asked for %s", series)
		}
	}
}
