package pages

import (
	"strconv"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/intake/httpapi"
	"github.com/mailpouch/mailpouch/intake/smtpd"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/webhook"
)

// wayIn is what one of the ways in for other programs has taken, and refused.
type wayIn struct {
	rates
	Name     string         `json:"name"` // SMTP or HTTP
	Rate     float64        `json:"rate"` // messages or requests a second that were accepted
	Open     int            `json:"open"` // connections, of SMTP
	Accepted int            `json:"accepted"`
	Refused  map[string]int `json:"refused"` // by reply or status
	Logins   int            `json:"failed_logins"`
}

// intakes is what a process takes in, and where it posts events.
type intakes struct {
	now func() time.Time

	mu        sync.Mutex
	smtp, api *wayIn // nil: there is none
	endpoints func() []webhook.EndpointState
}

// Submission returns the hooks of the submission server, from when on the page shows it.
func (s *State) Submission() smtpd.Hooks {
	w := &wayIn{Name: "SMTP", Refused: map[string]int{}}
	s.in.mu.Lock()
	s.in.smtp = w
	s.in.mu.Unlock()
	return smtpd.Hooks{
		Opened: func() { s.in.note(func(time.Time) { w.Open++ }) },
		Closed: func() { s.in.note(func(time.Time) { w.Open-- }) },
		Login: func(ok bool) {
			if !ok {
				s.in.note(func(time.Time) { w.Logins++ })
			}
		},
		Message: func(code, _ int, _ time.Duration) { s.in.note(func(now time.Time) { w.count(code, now) }) },
	}
}

// API returns what hears of the requests to the JSON API, from when on the page shows it.
func (s *State) API() func(httpapi.Request) {
	w := &wayIn{Name: "HTTP", Refused: map[string]int{}}
	s.in.mu.Lock()
	s.in.api = w
	s.in.mu.Unlock()
	return func(r httpapi.Request) { s.in.note(func(now time.Time) { w.count(r.Status, now) }) }
}

// Webhooks has the page show endpoints of webhooks.
func (s *State) Webhooks(endpoints func() []webhook.EndpointState) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.endpoints = endpoints
}

func (i *intakes) note(what func(now time.Time)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	what(i.now())
}

// count counts a message or a request by the code of its reply.
func (w *wayIn) count(code int, now time.Time) {
	if code/100 == 2 {
		w.Accepted++
		w.add(now, 1, 0)
		return
	}
	w.Refused[strconv.Itoa(code)]++
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

// snapshot is what the page shows.
func (i *intakes) snapshot(v redact.View) (ways []wayIn, endpoints []endpointStatus) {
	i.mu.Lock()
	now := i.now()
	for _, w := range []*wayIn{i.smtp, i.api} {
		if w != nil {
			shown := wayIn{Name: w.Name, Rate: w.rate(now), Open: w.Open, Accepted: w.Accepted, Refused: map[string]int{}, Logins: w.Logins}
			for code, n := range w.Refused {
				shown.Refused[code] = n
			}
			ways = append(ways, shown)
		}
	}
	states := i.endpoints
	i.mu.Unlock()
	if states == nil {
		return ways, nil
	}
	for _, e := range states() { // it has a lock of its own
		endpoints = append(endpoints, endpointStatus{
			Name: e.Name, Delivered: e.Delivered, Failed: e.Failed, GivenUp: e.GivenUp, Waiting: e.Waiting + e.UnderWay,
			Failing: notZero(e.FailingSince), Next: notZero(e.NextTry), Ended: notZero(e.EndedAt),
			LastError: v.Text(e.LastError, maxReason), ErrorAt: notZero(e.LastErrorAt),
		})
	}
	return ways, endpoints
}
