package webhook

import (
	"cmp"
	"context"
	"crypto/tls"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

// Config is what a dispatcher is made of.
type Config struct {
	Targets []target.Target

	// Redis has the events. It is not closed.
	Redis redis.UniversalClient

	// AllowPrivate allows connections to this machine and to private networks.
	AllowPrivate bool

	// TLS is for endpoints whose certificates other authorities have signed. The system's count if it is nil.
	TLS *tls.Config

	// Concurrency is how many posts this worker has under way to one endpoint at most: 16 if it is 0.
	Concurrency int

	// Timeout is for one post until its answer: 20 seconds if it is 0.
	Timeout time.Duration

	// MaxAge is how old an event may be. A try that fails after that, while the endpoint takes others, is its last: 3 days if it is 0.
	MaxAge time.Duration

	// Grace is for what is under way when Run is to end: 10 seconds if it is 0. What it cuts off is posted again, by another worker or later.
	Grace time.Duration

	Observers []Observer
	Logger    *zerolog.Logger // nil: nothing is logged

	source func(key string) source // of the endpoint with that key; tests have their own
}

func (c Config) complete() Config {
	c.Concurrency = cmp.Or(c.Concurrency, 16)
	c.Timeout = cmp.Or(c.Timeout, 20*time.Second)
	c.MaxAge = cmp.Or(c.MaxAge, 3*24*time.Hour)
	c.Grace = cmp.Or(c.Grace, 10*time.Second)
	if c.Logger == nil {
		nop := zerolog.Nop()
		c.Logger = &nop
	}
	if c.source == nil {
		c.source = func(key string) source {
			return events.NewSource(c.Redis, events.ReaderConfig{Group: groups + key, Logger: c.Logger})
		}
	}
	return c
}

// source hands out the events of one endpoint. The sources of all workers for it share the events. *events.Source is one.
type source interface {
	Next(ctx context.Context, most int) ([]events.Event, error)
	Ack(ctx context.Context, event events.Event) error
	Close() error
}

// groups is how the names of the groups of endpoints begin. The rest is the endpoint's key.
const groups = "webhook-"
