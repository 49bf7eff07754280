package pages

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/queuestats"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/webhook"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks"
)

// status is what the page shows: /status.json. Times are absolute, spans are seconds.
type status struct {
	Now      time.Time       `json:"now"`
	State    string          `json:"state"` // ok, held, redis or ending: the worst of them
	Worker   workerStatus    `json:"worker"`
	Redis    string          `json:"redis,omitempty"`         // why it cannot be asked
	Refuses  string          `json:"redis_refuses,omitempty"` // why it answers and takes no mail
	Wrong    []string        `json:"secrets_wrong,omitempty"` // files of secrets, and what is wrong with them
	Fleet    fleet           `json:"fleet"`                   // all workers; what follows, but the queues, is of this one
	All      flow            `json:"all"`
	Rate     float64         `json:"rate"` // mails/s
	Chart    chart           `json:"chart"`
	Pauses   []tasks.Pause   `json:"pauses,omitempty"` // in all queues, whoever serves them
	Mailers  []mailerStatus  `json:"mailers"`
	Queues   []queueStatus   `json:"queues"`
	Failures []failureStatus `json:"failures"`

	Delivers  bool             `json:"delivers"`           // false: the process only takes mail in
	TakesIn   []wayIn          `json:"takes_in,omitempty"` // from other programs
	Endpoints []endpointStatus `json:"webhooks,omitempty"`
}

type workerStatus struct {
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
}

type chart struct {
	Sent   []uint32 `json:"sent"` // in each of the last seconds, oldest first
	Failed []uint32 `json:"failed"`
}

type mailerStatus struct {
	Name      string     `json:"name"`
	Flow      flow       `json:"flow"`
	Rate      float64    `json:"rate"`
	Open      int        `json:"open"`              // connections
	Opened    int        `json:"opened"`            // since the start
	Allowed   int        `json:"allowed,omitempty"` // by the relay, if those are fewer than wanted
	Wanted    int        `json:"wanted,omitempty"`
	Grown     int        `json:"grown,omitempty"`       // connections while there is mail, where that number changes by itself
	Most      int        `json:"most,omitempty"`        // that these may become
	Carries   int        `json:"carries,omitempty"`     // messages that the relay takes over one connection, if that is known
	TokenAt   *time.Time `json:"token_at,omitempty"`    // the last attempt to get an OAuth 2 token, where the mailer logs in with one
	TokenEnd  *time.Time `json:"token_end,omitempty"`   // of the token that there is
	TokenWhy  string     `json:"token_error,omitempty"` // why the last attempt has failed
	Signs     []string   `json:"signs,omitempty"`       // keys that sign its messages (DKIM), as the DNS has them
	Limits    *limits    `json:"limits,omitempty"`
	LastBatch int        `json:"last_batch"`
	MeanBatch float64    `json:"mean_batch"`
	HeldSince *time.Time `json:"held_since,omitempty"`
	HeldWhy   string     `json:"held_why,omitempty"`
	LastError string     `json:"last_error,omitempty"`
	ErrorAt   *time.Time `json:"error_at,omitempty"`
	Override  []string   `json:"override,omitempty"` // who gets all its mail in place of the recipients
	Only      []string   `json:"only,omitempty"`     // who alone may get its mail

	Members      []memberStatus `json:"members,omitempty"` // that it sends with, instead of a relay of its own
	Weighted     bool           `json:"weighted,omitempty"`
	PassedOver   int            `json:"passed_over,omitempty"` // members that would serve and take no mail
	MembersSince *time.Time     `json:"members_since,omitempty"`
}

// memberStatus is one of the mailers that another one sends with.
type memberStatus struct {
	Name   string `json:"name"`
	Weight int    `json:"weight"`
	Serves bool   `json:"serves"`
	Why    string `json:"why,omitempty"` // it is passed over
}

// limits are the rates of a mailer, which all workers keep to together.
type limits struct {
	Messages    string  `json:"messages,omitempty"`
	Recipients  string  `json:"recipients,omitempty"`
	Domains     string  `json:"domains,omitempty"`
	Connections int     `json:"connections,omitempty"`
	Leased      int     `json:"leased,omitempty"` // of these, this worker's
	Factor      float64 `json:"factor"`           // the part of the rate there is: below 1 while the relay wants less
}

func (m *mailerState) limits() *limits {
	if r := m.rates; r != nil {
		return &limits{r.Messages, r.Recipients, r.Domains, r.Connections, m.leased, r.Factor}
	}
	return nil
}

// queueStatus is one queue as producers know it: the sum of those of asynq's that it is.
type queueStatus struct {
	counts

	Mailer   string       `json:"mailer,omitempty"`
	Rate     float64      `json:"rate"`
	Served   bool         `json:"served"`             // by this worker
	Unserved []string     `json:"unserved,omitempty"` // asynq's names of its parts in which tasks wait that no worker takes
	Parts    []partStatus `json:"parts"`
}

type partStatus struct {
	counts

	Mass bool   `json:"mass,omitempty"` // each task carries many messages
	Link string `json:"link"`
}

type counts struct {
	Name      string  `json:"name"`
	Waiting   int     `json:"waiting"`
	Oldest    float64 `json:"oldest"` // s
	InHand    int     `json:"in_hand"`
	Scheduled int     `json:"scheduled"`
	Retry     int     `json:"retry"`
	Dead      int     `json:"dead"`
	Paused    bool    `json:"paused,omitempty"` // with all its parts
}

type failureStatus struct {
	At        time.Time    `json:"at"`
	What      tasks.Action `json:"what"` // or "refused", of a recipient alone
	Queue     string       `json:"queue"`
	Mailer    string       `json:"mailer,omitempty"`
	Member    string       `json:"member,omitempty"` // that it went with
	MessageID string       `json:"message_id,omitempty"`
	Try       int          `json:"try"`
	Next      *time.Time   `json:"next,omitempty"` // try
	Text      string       `json:"text"`
	Link      string       `json:"link,omitempty"`
}

// refusedRecipient is the what of a failure that concerns a recipient alone.
const refusedRecipient tasks.Action = "refused"

func (s *vitals) status(w http.ResponseWriter, r *http.Request) {
	queues, err := s.queues.get(r.Context())
	var refused error
	var paused []tasks.Pause
	if err == nil {
		paused, err = s.paused.get(r.Context())
	}
	if err == nil {
		_, refused = s.write.get(r.Context())
	}
	reply := s.cfg.State.snapshot(s.cfg.view())
	reply.Worker.Version = s.cfg.Version
	ways, endpoints := s.cfg.State.in.all()
	reply.TakesIn, reply.Endpoints = ways, endpointsStatus(endpoints, s.cfg.view())
	reply.Fleet, _ = s.fleet.get(r.Context()) // without Redis it is as it was last seen
	for _, p := range paused {
		p.By, p.Reason = redact.Line(p.By), s.cfg.view().Text(p.Reason, maxReason)
		reply.Pauses = append(reply.Pauses, p)
	}
	if wrong := s.wrong.Load(); wrong != nil {
		reply.Wrong = *wrong
	}
	reply.Queues = addUp(queues, s.cfg.Queues, reply.Now, s.cfg.State)
	if err != nil {
		reply.Redis = s.cfg.view().Text(err.Error(), maxReason)
	}
	if refused != nil {
		reply.Refuses = s.cfg.view().Text(refused.Error(), maxReason)
	}
	held := s.cfg.Held()
	for i, m := range reply.Mailers {
		if why := held[m.Name]; why != nil && m.HeldSince != nil {
			reply.Mailers[i].HeldWhy = s.cfg.view().Text(why.Error(), maxReason) // what the last probe found
		}
	}
	switch {
	case s.ending():
		reply.State = "ending"
	case err != nil, refused != nil:
		reply.State = "redis"
	case len(held) > 0:
		reply.State = "held"
	default:
		reply.State = "ok"
	}
	writeJSON(w, http.StatusOK, reply)
}

// snapshot is what the worker has told, put into words.
func (s *State) snapshot(v redact.View) status {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	host, _ := os.Hostname()
	reply := status{
		Now: now, Worker: workerStatus{Host: host, PID: os.Getpid(), Started: s.started},
		All: s.all, Rate: s.all.rate(now), Failures: []failureStatus{}, Mailers: []mailerStatus{}, Delivers: len(s.mailers) > 0,
	}
	reply.Chart.Sent, reply.Chart.Failed = s.all.chart(now)
	for _, name := range slices.Sorted(maps.Keys(s.mailers)) {
		reply.Mailers = append(reply.Mailers, s.mailers[name].status(name, now, v))
	}
	for _, f := range s.newest() {
		reply.Failures = append(reply.Failures, f.status(v))
	}
	return reply
}

func (m *mailerState) status(name string, now time.Time, v redact.View) mailerStatus {
	members := slices.Grow([]memberStatus(nil), len(m.failover.Members))
	for _, one := range m.failover.Members {
		status := memberStatus{Name: one.Mailer, Weight: one.Weight, Serves: one.Serves}
		if one.Reason != nil {
			status.Why = v.Text(one.Reason.Error(), maxReason)
		}
		members = append(members, status)
	}
	return mailerStatus{
		Name: name, Flow: m.flow, Rate: m.rate(now), Open: m.open, Opened: m.opened, Allowed: m.allowed, Wanted: m.wanted, Grown: m.grown, Most: m.most, Carries: m.carries, Signs: m.signs,
		TokenAt: notZero(m.token.at), TokenEnd: notZero(m.token.end), TokenWhy: v.Text(m.token.why, maxReason),
		Limits: m.limits(), LastBatch: m.lastBatch, MeanBatch: float64(m.batched) / float64(max(m.batches, 1)),
		HeldSince: notZero(m.heldSince), HeldWhy: v.Text(m.heldWhy, maxReason),
		LastError: v.Text(m.lastError, maxReason), ErrorAt: notZero(m.errorAt), Override: entries(m.override, v), Only: entries(m.only, v),
		Members: members, Weighted: m.failover.Weighted, PassedOver: m.failover.PassedOver(), MembersSince: notZero(m.memberAt),
	}
}

// entries are those of a setting, with masked addresses.
func entries(list []string, v redact.View) (out []string) {
	for _, entry := range list {
		out = append(out, v.Text(entry, maxSubject))
	}
	return out
}

func (f failure) status(v redact.View) failureStatus {
	out := f.out
	reply := failureStatus{
		At: f.at, What: out.Action, Queue: out.Queue, Mailer: out.Mailer, Member: out.Member,
		MessageID: redact.Cut(redact.Line(out.MessageID), maxSubject), Try: out.Try,
	}
	switch {
	case f.refused != nil:
		reply.What = refusedRecipient
		reply.Text = v.Text(f.refused.Error(), maxReason)
		return reply
	case out.Action == tasks.ActionRetry:
		reply.Next = notZero(f.at.Add(out.RetryIn))
	}
	reply.Text = v.Text(out.Err.Error(), maxReason)
	queue := wire.QueueName{Mailer: out.Mailer, Queue: out.Queue, Shard: out.Shard}.String()
	switch out.Action {
	case tasks.ActionRetry:
		reply.Link = letterLink(retriesPath, queue, out.TaskID)
	case tasks.ActionDead:
		reply.Link = letterLink(deadPath, queue, out.TaskID)
	case tasks.ActionSent, tasks.ActionSentBefore, tasks.ActionForwarded, tasks.ActionSilent, tasks.ActionCancelled, tasks.ActionSkipped:
	}
	return reply
}

// addUp makes one row of all of asynq's queues that are one to a producer. Those that the
// worker serves have a row even if nothing was ever in them. The heaviest come first.
func addUp(all []queuestats.Queue, served map[string]int, now time.Time, s *State) []queueStatus {
	rows := map[wire.QueueName]*queueStatus{}
	row := func(name wire.QueueName) *queueStatus {
		if rows[name] == nil {
			rows[name] = &queueStatus{
				counts: counts{Name: name.Queue}, Mailer: name.Mailer, Rate: s.rate(name, now),
				Served: s.serves(name.Mailer) && served[name.Queue] > 0, Parts: []partStatus{},
			}
		}
		return rows[name]
	}
	for name := range served {
		row(wire.QueueName{Queue: name})
	}
	for _, q := range all {
		name := wire.ParseQueueName(q.Name)
		r := row(wire.QueueName{Mailer: name.Mailer, Queue: name.Queue})
		part := countsOf(q, now)
		r.Paused = part.Paused && (r.Paused || len(r.Parts) == 0)
		r.add(part)
		if q.Unserved() {
			r.Unserved = append(r.Unserved, q.Name)
		}
		r.Parts = append(r.Parts, partStatus{
			counts: part, Mass: name.Bulk, Link: monitorPath + "queues/" + url.PathEscape(q.Name),
		})
	}
	list := make([]queueStatus, 0, len(rows))
	for _, r := range rows {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b queueStatus) int {
		return cmp.Or(cmp.Compare(a.Mailer, b.Mailer), cmp.Compare(served[b.Name], served[a.Name]), cmp.Compare(a.Name, b.Name))
	})
	return list
}

func countsOf(q queuestats.Queue, now time.Time) counts {
	c := counts{
		Name: q.Name, Waiting: q.Waiting, InHand: q.InFlight, Scheduled: q.Scheduled, Retry: q.Retry,
		Dead: q.Dead, Paused: q.Paused,
	}
	if !q.Since.IsZero() {
		c.Oldest = max(now.Sub(q.Since), 0).Seconds()
	}
	return c
}

func (c *counts) add(part counts) {
	c.Waiting += part.Waiting
	c.Oldest = max(c.Oldest, part.Oldest)
	c.InHand += part.InHand
	c.Scheduled += part.Scheduled
	c.Retry += part.Retry
	c.Dead += part.Dead
}

// rate is how many mails/s of a queue this worker sends.
func (s *State) rate(name wire.QueueName, now time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q, ok := s.queues[name]; ok {
		return q.rate(now)
	}
	return 0
}

// serves reports whether the worker has the mailer.
func (s *State) serves(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.mailers[name]
	return ok
}

func notZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// endpointStatus is an endpoint of webhooks.
type endpointStatus struct {
	Name      string     `json:"name"`
	Delivered int64      `json:"delivered"`
	Failed    int64      `json:"failed"`
	GivenUp   int64      `json:"given_up"`
	Waiting   int        `json:"waiting"`
	Failing   *time.Time `json:"failing_since,omitempty"`
	Next      *time.Time `json:"next,omitempty"` // try
	Ended     *time.Time `json:"ended_at,omitempty"`
	LastError string     `json:"last_error,omitempty"`
	ErrorAt   *time.Time `json:"error_at,omitempty"`
}

func endpointsStatus(all []webhook.EndpointState, v redact.View) (shown []endpointStatus) {
	for _, e := range all {
		shown = append(shown, endpointStatus{
			Name: e.Name, Delivered: e.Delivered, Failed: e.Failed, GivenUp: e.GivenUp, Waiting: e.Waiting + e.UnderWay,
			Failing: notZero(e.FailingSince), Next: notZero(e.NextTry), Ended: notZero(e.EndedAt),
			LastError: v.Text(e.LastError, maxReason), ErrorAt: notZero(e.LastErrorAt),
		})
	}
	return shown
}
