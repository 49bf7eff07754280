package pages

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/presence"
	"github.com/mailpouch/mailpouch/internal/redact"
)

// fleet is all workers that live, as each says of itself every few seconds, and what they and those before them did.
type fleet struct {
	Workers []fleetWorker  `json:"workers"` // by when they were started
	Rate    float64        `json:"rate"`    // mails/s of all
	Days    []presence.Day `json:"days"`    // in UTC, today last
}

type fleetWorker struct {
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Rate    float64   `json:"rate"`
	Sent    int64     `json:"sent"` // since it was started
	Held    []string  `json:"held,omitempty"`
	This    bool      `json:"this,omitempty"` // it is the one whose page this is
}

// daysShown is how many days the first page shows.
const daysShown = 7

// readFleet takes three round trips.
func readFleet(ctx context.Context, client redis.UniversalClient, self string) (fleet, error) {
	f := fleet{Workers: []fleetWorker{}, Days: []presence.Day{}}
	days, err := presence.Days(ctx, client, daysShown, time.Now())
	if err != nil {
		return f, err
	}
	f.Days = days
	workers, err := presence.Read(ctx, client)
	for _, w := range workers {
		one := fleetWorker{redact.Line(w.Host), w.PID, redact.Cut(redact.Line(w.Version), maxAddress), w.Started, w.Rate, w.Sent, nil, w.ID == self && self != ""}
		for _, name := range w.Held {
			one.Held = append(one.Held, redact.Line(name))
		}
		f.Workers = append(f.Workers, one)
		f.Rate += w.Rate
	}
	return f, err
}
