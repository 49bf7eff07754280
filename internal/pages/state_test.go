package pages

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/internal/queuestats"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// clocked is a State whose clock a test moves.
func clocked(names ...string) (s *State, pass func(time.Duration)) {
	s = NewState(names...)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.started = now
	s.now = func() time.Time { return now }
	return s, func(d time.Duration) { now = now.Add(d) }
}

func sent(queue, name string) tasks.Outcome {
	return tasks.Outcome{Action: tasks.ActionSent, Queue: queue, Mailer: name}
}

func TestRates(t *testing.T) {
	t.Parallel()
	s, pass := clocked()
	for second := range 10 {
		for range second {
			s.outcome(sent("default", ""))
		}
		pass(time.Second)
	}
	got := s.snapshot(redact.View{})
	if got.Rate != (5+6+7+8+9)/5.0 {
		t.Errorf("rate = %v", got.Rate)
	}
	if want := []uint32{5, 6, 7, 8, 9}; !slices.Equal(got.Chart.Sent[chartSpan-5:], want) {
		t.Errorf("chart ends with %v, want %v", got.Chart.Sent[chartSpan-5:], want)
	}
	pass(4 * time.Second)
	if got := s.snapshot(redact.View{}); got.Rate != 9/5.0 {
		t.Errorf("rate = %v four seconds later", got.Rate)
	}
	pass(time.Hour)
	got = s.snapshot(redact.View{})
	if got.Rate != 0 || slices.Max(got.Chart.Sent) != 0 || got.All.Sent != 45 {
		t.Errorf("an hour later: rate %v, chart %v, sent %d", got.Rate, got.Chart.Sent, got.All.Sent)
	}
	pass(-30 * time.Minute) // a clock that was put right
	s.outcome(sent("default", ""))
	if got := s.snapshot(redact.View{}); got.All.Sent != 46 {
		t.Errorf("sent = %d after the clock went back", got.All.Sent)
	}
}

func TestState_counts(t *testing.T) {
	t.Parallel()
	s, _ := clocked("marketing")
	refused := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Recipient: "bob@example.com"}
	for _, out := range []tasks.Outcome{
		sent("default", ""), sent("default", ""), sent("bulk", "marketing"),
		{Action: tasks.ActionSentBefore, Queue: "default"}, {Action: tasks.ActionForwarded, Queue: "default"},
		{Action: tasks.ActionRetry, Queue: "default", Err: errors.New("later"), RetryIn: time.Minute},
		{Action: tasks.ActionDead, Queue: "bulk", Mailer: "marketing", Err: errors.New("never")},
		{Action: tasks.ActionSilent, Queue: "default", Err: errors.New("whatever")},
		{Action: tasks.ActionCancelled, Queue: "default", Err: errors.New("cancelled")},
		{Action: tasks.ActionSkipped, Queue: "default"},
		{Action: tasks.ActionSent, Queue: "default", Refused: []*mailer.SendError{refused}},
	} {
		s.outcome(out)
	}
	got := s.snapshot(redact.View{})
	for _, tt := range []struct {
		name      string
		got, want flow
	}{
		{"all", got.All, flow{Sent: 4, Retried: 1, Dead: 1, Other: 3, Refused: 1}},
		{"default", got.Mailers[0].Flow, flow{Sent: 3, Retried: 1, Other: 3, Refused: 1}},
		{"marketing", got.Mailers[1].Flow, flow{Sent: 1, Dead: 1}},
	} {
		tt.got.rates = rates{}
		if tt.got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, tt.got, tt.want)
		}
	}
	var whats []string
	for _, f := range got.Failures {
		whats = append(whats, string(f.What)+" "+f.Text)
	}
	if want := []string{"refused 550 (RCPT <b***@example.com>)", "failed silently whatever", "dead letter never", "retry later"}; !slices.Equal(whats, want) {
		t.Errorf("failures = %q, want %q", whats, want)
	}
	if got.Mailers[0].LastError != "whatever" || got.Mailers[1].LastError != "never" {
		t.Errorf("last errors: %q, %q", got.Mailers[0].LastError, got.Mailers[1].LastError)
	}
}

// A State does not grow, and forgets the oldest first.
func TestState_failuresRing(t *testing.T) {
	t.Parallel()
	s, pass := clocked()
	for i := range 3*maxFailures + 7 {
		s.outcome(tasks.Outcome{Action: tasks.ActionDead, Queue: "default", TaskID: "a/b", Err: fmt.Errorf("no. %d", i)})
		pass(time.Second)
	}
	got := s.snapshot(redact.View{}).Failures
	if len(got) != maxFailures || got[0].Text != "no. 156" || got[maxFailures-1].Text != "no. 107" {
		t.Errorf("%d failures, from %q to %q", len(got), got[0].Text, got[len(got)-1].Text)
	}
	if got[0].Link != "/dead/letter?id=a%2Fb&queue=default" {
		t.Errorf("link = %q", got[0].Link)
	}
}

func TestState_allows(t *testing.T) {
	t.Parallel()
	s, _ := clocked("marketing")
	allows := func() (allowed, wanted int) {
		m := s.snapshot(redact.View{}).Mailers[1]
		return m.Allowed, m.Wanted
	}
	if a, w := allows(); a != 0 || w != 0 {
		t.Errorf("%d of %d connections allowed before any was refused, want nothing", a, w)
	}
	s.allows("marketing", 3, 5)
	if a, w := allows(); a != 3 || w != 5 {
		t.Errorf("%d of %d connections allowed, want 3 of 5", a, w)
	}
	s.allows("marketing", 5, 5)
	if a, w := allows(); a != 0 || w != 0 {
		t.Errorf("%d of %d connections allowed when all are, want nothing", a, w)
	}
}

func TestState_grows(t *testing.T) {
	t.Parallel()
	s, _ := clocked("marketing")
	s.grows("marketing", 4, 4)
	if m := s.snapshot(redact.View{}).Mailers[1]; m.Grown != 0 || m.Most != 0 {
		t.Errorf("%d connections of %d, though their number is set; want nothing", m.Grown, m.Most)
	}
	for _, n := range []int{4, 5, 20, 9} {
		s.grows("marketing", n, 20)
		if m := s.snapshot(redact.View{}).Mailers[1]; m.Grown != n || m.Most != 20 {
			t.Errorf("%d connections of %d, want %d of 20", m.Grown, m.Most, n)
		}
	}
}

// TestState_signs: the page says of each mailer which keys sign its messages.
func TestState_signs(t *testing.T) {
	s := NewState("marketing", "plain")
	want := []string{"one._domainkey.example.com", "two._domainkey.example.com"}
	s.Signs("marketing", want)
	for _, m := range s.snapshot(redact.View{}).Mailers {
		if signed := m.Name == "marketing"; signed != slices.Equal(m.Signs, want) || !signed && m.Signs != nil {
			t.Errorf("mailer %q is signed by %q", m.Name, m.Signs)
		}
	}
}

func TestState_carries(t *testing.T) {
	t.Parallel()
	s, _ := clocked("marketing")
	for _, want := range []int{0, 10, 7, 0} {
		s.Observer().SessionLimit("marketing", want)
		mailers := s.snapshot(redact.View{}).Mailers
		if got := mailers[1].Carries; got != want || mailers[0].Carries != 0 {
			t.Errorf("limits of %d and %d messages, want %d for marketing alone", mailers[0].Carries, got, want)
		}
	}
}

// What all workers together may send is shown of the mailer that has it, with how much of it there is now.
func TestState_limits(t *testing.T) {
	t.Parallel()
	s, _ := clocked("marketing")
	s.Observer().Rate(tasks.RateState{Mailer: "marketing", Messages: "200/s", Connections: 10, PerSecond: 200, Factor: 1})
	s.Observer().Rate(tasks.RateState{Mailer: "marketing", Messages: "200/s", Connections: 10, PerSecond: 200, Factor: .5})
	s.Observer().Leased("marketing", 4, 10)
	mailers := s.snapshot(redact.View{}).Mailers
	if mailers[0].Limits != nil {
		t.Errorf("the default mailer has %+v", mailers[0].Limits)
	}
	if got := mailers[1].Limits; got == nil || *got != (limits{Messages: "200/s", Connections: 10, Leased: 4, Factor: .5}) {
		t.Errorf("marketing has %+v", got)
	}
}

func TestState_held(t *testing.T) {
	t.Parallel()
	s, pass := clocked("marketing")
	held := func() (time.Duration, string) {
		m := s.snapshot(redact.View{}).Mailers[1]
		if m.HeldSince == nil {
			return -1, m.HeldWhy
		}
		return s.now().Sub(*m.HeldSince), m.HeldWhy
	}
	s.held("marketing", errors.New("refused <bob@example.com>"))
	pass(time.Minute)
	if d, why := held(); d != time.Minute || why != "refused <b***@example.com>" {
		t.Errorf("held for %v: %q", d, why)
	}
	// It greets us, and takes nothing: it has been held all the time.
	s.held("marketing", nil)
	if d, why := held(); d != -1 || why != "" {
		t.Errorf("held for %v: %q after it was let go", d, why)
	}
	s.held("marketing", errors.New("421"))
	if d, _ := held(); d != time.Minute {
		t.Errorf("held for %v, want a minute", d)
	}
	// It takes a message: what comes then is something new.
	s.held("marketing", nil)
	s.batch(tasks.Batch{Mailer: "marketing", Size: 5, Accepted: 1})
	pass(time.Minute)
	s.held("marketing", errors.New("421"))
	if d, _ := held(); d != 0 {
		t.Errorf("held for %v, want 0", d)
	}
}

func TestState_connections(t *testing.T) {
	t.Parallel()
	s, _ := clocked()
	hooks := s.Hooks("")
	hooks.Connected(t.Context(), smtp.Connected{})
	hooks.Connected(t.Context(), smtp.Connected{Err: errors.New("refused")})
	hooks.Connected(t.Context(), smtp.Connected{})
	hooks.Closed(smtp.Closed{})
	s.batch(tasks.Batch{Size: 10})
	s.batch(tasks.Batch{Size: 20})
	m := s.snapshot(redact.View{}).Mailers[0]
	if m.Open != 1 || m.Opened != 2 || m.LastBatch != 20 || m.MeanBatch != 15 {
		t.Errorf("%d open, %d opened, last batch %d, mean %v", m.Open, m.Opened, m.LastBatch, m.MeanBatch)
	}
}

func TestAddUp(t *testing.T) {
	t.Parallel()
	s, _ := clocked("marketing")
	now := s.now()
	s.outcome(sent("default", ""))
	got := addUp([]queuestats.Queue{
		{Name: "default", Workers: 2, Waiting: 1, Retry: 2, Since: now.Add(-time.Second)},
		{Name: wire.QueueName{Queue: "default", Bulk: true}.String(), Workers: 1, Waiting: 3, Dead: 1, Since: now.Add(-time.Minute)},
		{Name: wire.QueueName{Queue: "default", Shard: 2}.String(), InFlight: 5, Paused: true},
		{Name: wire.QueueName{Mailer: "marketing", Queue: "bulk"}.String(), Scheduled: 7},
		{Name: "forgotten", Waiting: 9},
		{Name: "<script>", Workers: 1, Waiting: 1, Paused: true},
	}, map[string]int{"critical": 6, "default": 3}, now.Add(time.Second), s)
	var rows []string
	for _, q := range got {
		rows = append(rows, fmt.Sprintf("%s/%s %d %v %d %d %d %d paused=%v served=%v by none=%v %d parts",
			q.Mailer, q.Name, q.Waiting, q.Oldest, q.InHand, q.Scheduled, q.Retry, q.Dead, q.Paused, q.Served, q.Unserved, len(q.Parts)))
	}
	want := []string{
		"/critical 0 0 0 0 0 0 paused=false served=true by none=[] 0 parts",
		"/default 4 61 5 0 2 1 paused=false served=true by none=[] 3 parts",
		"/<script> 1 0 0 0 0 0 paused=true served=false by none=[] 1 parts",
		"/forgotten 9 0 0 0 0 0 paused=false served=false by none=[forgotten] 1 parts",
		"marketing/bulk 0 0 0 7 0 0 paused=false served=false by none=[marketing.bulk] 1 parts",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("got\n%q\nwant\n%q", rows, want)
	}
	if link := got[2].Parts[0].Link; link != "/monitor/queues/%3Cscript%3E" {
		t.Errorf("link = %q", link)
	}
	if got[1].Rate != 1.0/rateSpan {
		t.Errorf("rate = %v", got[1].Rate)
	}
}

// The page says what a mailer sends with, why a member is passed over, with addresses masked, and since when.
func TestState_members(t *testing.T) {
	t.Parallel()
	s, pass := clocked("main", "ses", "postmark")
	pass(time.Minute)
	s.members(tasks.FailoverState{Mailer: "main", Members: []tasks.MemberState{
		{Member: tasks.Member{Mailer: "ses", Weight: 3}, Reason: errors.New("454 ann@example.com may not send")},
		{Member: tasks.Member{Mailer: "postmark", Weight: 1}, Serves: true},
	}})
	pass(time.Minute)
	for _, m := range s.snapshot(redact.View{}).Mailers {
		if m.Name != "main" {
			if m.Members != nil || m.MembersSince != nil {
				t.Errorf("%s has members: %+v", m.Name, m)
			}
			continue
		}
		want := []memberStatus{{Name: "ses", Weight: 3, Why: "454 a***@example.com may not send"}, {Name: "postmark", Weight: 1, Serves: true}}
		if !slices.Equal(m.Members, want) || m.PassedOver != 1 || m.Weighted || !m.MembersSince.Equal(s.started.Add(time.Minute)) {
			t.Errorf("got  %+v\nwant %+v", m, want)
		}
	}
}
