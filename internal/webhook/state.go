package webhook

import (
	"time"

	"github.com/mailpouch/mailpouch/internal/events"
)

// Observer gets what a dispatcher does, for metrics and pages. A function that is nil is not called. They are called from several goroutines and must be
// quick.
type Observer struct {
	Tried func(Try) // a post has ended
}

// Result is what became of an event in a try.
type Result string

// The results.
const (
	Delivered Result = "delivered" // the endpoint has answered 2xx
	Failed    Result = "failed"    // it is tried again
	GivenUp   Result = "given up"  // it has failed, and was the last try
	Refused   Result = "gone"      // the endpoint wants no more events (410)
)

// Try is one post of an event to an endpoint.
type Try struct {
	Endpoint string // as State names it
	Event    events.Event
	Number   int // from 1; another worker begins anew
	Result   Result
	Code     int   // of HTTP; 0 if there was no answer
	Err      error // why it was not delivered; it shows no secret
	Took     time.Duration
}

// EndpointState is how an endpoint is, as this worker sees it.
type EndpointState struct {
	Name  string // its host and port, with #2 for the second one there
	Group string // of readers of events, as Redis and the metrics of events have it

	Delivered int64 // events
	Failed    int64 // tries, the last ones of GivenUp among them
	GivenUp   int64 // events, after their last try

	UnderWay int       // posts
	Waiting  int       // events in hand to be posted, most of them again. More wait in the stream
	Oldest   time.Time // when the oldest event of UnderWay and Waiting happened; zero if there is none

	FailingSince time.Time // since when it takes nothing; zero if it does
	NextTry      time.Time // while FailingSince is set, or where it asked for a pause: not before then
	EndedAt      time.Time // when it said that it wants no more events (410); zero if it did not

	LastError   string // why the last try failed that did; "" if none has
	LastErrorAt time.Time
}
