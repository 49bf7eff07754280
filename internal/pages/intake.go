package pages

import (
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/intake/httpapi"
	"github.com/mailpouch/mailpouch/intake/smtpd"
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

// submission is State.Submission.
func (i *intakes) submission() smtpd.Hooks {
	w := &wayIn{Name: "SMTP", Refused: map[string]int{}}
	i.mu.Lock()
	i.smtp = w
	i.mu.Unlock()
	return smtpd.Hooks{
		Opened: func() { i.note(func(time.Time) { w.Open++ }) },
		Closed: func() { i.note(func(time.Time) { w.Open-- }) },
		Login: func(ok bool) {
			if !ok {
				i.note(func(time.Time) { w.Logins++ })
			}
		},
		Message: func(code, _ int, _ time.Duration) { i.note(func(now time.Time) { w.count(code, now) }) },
	}
}

// requests is State.API.
func (i *intakes) requests() func(httpapi.Request) {
	w := &wayIn{Name: "HTTP", Refused: map[string]int{}}
	i.mu.Lock()
	i.api = w
	i.mu.Unlock()
	return func(r httpapi.Request) { i.note(func(now time.Time) { w.count(r.Status, now) }) }
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

// all returns what there is, and asks the endpoints.
func (i *intakes) all() (ways []wayIn, endpoints []webhook.EndpointState) {
	i.mu.Lock()
	now := i.now()
	for _, w := range []*wayIn{i.smtp, i.api} {
		if w != nil {
			ways = append(ways, wayIn{Name: w.Name, Rate: w.rate(now), Open: w.Open, Accepted: w.Accepted, Refused: maps.Clone(w.Refused), Logins: w.Logins})
		}
	}
	states := i.endpoints
	i.mu.Unlock()
	if states != nil {
		endpoints = states() // it has a lock of its own
	}
	return ways, endpoints
}
