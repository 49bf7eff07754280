package pages

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/queuestats"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// Config configures a Server. Redis and State are required.
type Config struct {
	Addr string // host:port to listen on; port 0 is any free one

	// Ports is how many ports are tried, from that of Addr on, until one is free: 1 if zero.
	Ports int

	Password settings.Secret // for HTTP Basic authentication, with any user name; empty: none
	Token    settings.Secret // for a bearer token; empty: none
	Hosts    []string        // names under which the server is reached, beside those of loopback

	ShowAddresses bool // in full
	AllowWrite    bool // in /monitor/

	// Redis is a client that answers soon or fails (redisconn.ConnectStatus). The server does
	// not close it.
	Redis redis.UniversalClient

	State    *State
	WorkerID string                  // tasks.Worker.ID: which of the workers that live this one is
	Held     func() map[string]error // tasks.Worker.Held; nil: nothing ever is
	Ending   <-chan struct{}         // closed when the worker takes nothing new any more; nil: never
	Queues   map[string]int          // that the worker takes from, and their weights
	Metrics  http.Handler            // of /metrics; nil: there is none
	Version  string
	Logger   *zerolog.Logger // no logs if nil

	actTime time.Duration // for which a request works on letters, at most: 5 s if zero
}

func (c Config) view() redact.View { return redact.View{Addresses: c.ShowAddresses} }

// ErrUnprotected is the error when other machines could see the pages without a password.
var ErrUnprotected = errors.New("pages: beyond this machine a password or a token is required")

// vitals is what the pages know of the worker, and of what is in Redis, where that is asked once for all who look.
type vitals struct {
	cfg    Config
	guard  *guard
	wrong  atomic.Pointer[[]string] // files of secrets, and what is wrong with them
	queues cached[[]queuestats.Queue]
	fleet  cached[fleet]
	paused cached[[]tasks.Pause]
	write  cached[struct{}] // whether Redis takes what is written
}

func newVitals(cfg Config, loopback bool) *vitals {
	v := &vitals{cfg: cfg, guard: newGuard(cfg.Password, cfg.Token, cfg.Hosts, loopback)}
	v.queues.read = func(ctx context.Context) ([]queuestats.Queue, error) { return queuestats.Read(ctx, cfg.Redis) }
	v.fleet.read = func(ctx context.Context) (fleet, error) { return readFleet(ctx, cfg.Redis, cfg.WorkerID) }
	v.paused.read = tasks.NewPauses(cfg.Redis).List
	v.write.read = func(ctx context.Context) (struct{}, error) { return struct{}{}, redisconn.TryWrite(ctx, cfg.Redis) }
	return v
}

// ending says that the worker takes nothing new any more.
func (v *vitals) ending() bool {
	select {
	case <-v.cfg.Ending: // a nil channel is never ready
		return true
	default:
		return false
	}
}

// names are the queues, as producers call them, and the mailers that there are, to choose from.
func (v *vitals) names() (queues, mailers []string) {
	queues, mailers = slices.Collect(maps.Keys(v.cfg.Queues)), append(v.cfg.State.names(), settings.DefaultMailer)
	all, _ := v.queues.get(context.Background()) // as they were last seen, if Redis does not answer
	for _, q := range all {
		name := wire.ParseQueueName(q.Name)
		queues = append(queues, name.Queue)
		if name.Mailer != "" {
			mailers = append(mailers, name.Mailer)
		}
	}
	slices.Sort(queues)
	slices.Sort(mailers)
	return slices.Compact(queues), slices.Compact(mailers)
}

// inRedis are the names of asynq's queues that are in Redis.
func (v *vitals) inRedis() (names []string) {
	all, _ := v.queues.get(context.Background())
	for _, q := range all {
		names = append(names, q.Name)
	}
	return names
}
