// Package webhook posts the events of messages to the endpoints of other programs, as Standard Webhooks.
//
// Each endpoint has a consumer group of the stream of events, which the workers share. An event is acknowledged when
// the endpoint has answered 2xx, or when it refused the event alone until that was too old; so one that a worker had in hand when it died is posted by another one, and
// an endpoint that is away or slow holds up none of the others: its events wait in the stream. Events may come twice
// and in another order than they happened: webhook-id and timestamp are there for that.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/mailpouch/mailpouch/internal/webhook/target"
)

// ErrTwice is two endpoints whose URLs differ in nothing but login and query.
var ErrTwice = errors.New("two webhooks have the same URL")

// Dispatcher posts events to endpoints.
type Dispatcher struct {
	cfg    Config
	client *http.Client

	mu        sync.Mutex
	endpoints []*running    // in the order of the settings
	changed   chan struct{} // holds a token when these have changed
}

// running is an endpoint, and how it is stopped.
type running struct {
	*endpoint
	key  string
	stop context.CancelFunc // nil: it is not running yet
}

// New returns a dispatcher for the endpoints of the configuration.
func New(cfg Config) (*Dispatcher, error) {
	cfg = cfg.complete()
	d := &Dispatcher{cfg: cfg, client: newClient(cfg.AllowPrivate, cfg.TLS, cfg.Concurrency), changed: make(chan struct{}, 1)}
	if err := d.Reload(cfg.Targets); err != nil {
		return nil, err
	}
	return d, nil
}

// Reload takes other endpoints, or other secrets of the same ones. Those that had ended (410) or wait to be tried again are tried at once. What is gone is posted to no more;
// what goes on keeps its events and counts. It may be called at any time, by any goroutine.
func (d *Dispatcher) Reload(targets []target.Target) error {
	byKey, hosts := map[string]bool{}, map[string]int{}
	for _, t := range targets {
		if byKey[t.Key()] {
			return fmt.Errorf("%w: %s", ErrTwice, t.Name())
		}
		byKey[t.Key()] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before := map[string]*running{}
	for _, r := range d.endpoints {
		before[r.key] = r
	}
	d.endpoints = nil
	for _, t := range targets {
		name := t.Name()
		if hosts[t.Name()]++; hosts[t.Name()] > 1 {
			name = fmt.Sprintf("%s#%d", name, hosts[t.Name()])
		}
		r := before[t.Key()]
		if r == nil {
			r = &running{endpoint: newEndpoint(name, t, func() source { return d.cfg.source(t.Key()) }, d.client, d.cfg), key: t.Key()}
		} else {
			r.renew(t)
		}
		delete(before, t.Key())
		d.endpoints = append(d.endpoints, r)
	}
	for _, r := range before {
		if r.stop != nil {
			r.stop()
		}
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run posts events until ctx ends, and until what is under way then has ended. It is called once.
func (d *Dispatcher) Run(ctx context.Context) {
	defer d.client.CloseIdleConnections()
	var group sync.WaitGroup
	defer group.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.changed:
			d.start(ctx, &group)
		}
	}
}

// start starts those endpoints that are not running.
func (d *Dispatcher) start(ctx context.Context, group *sync.WaitGroup) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.endpoints {
		if r.stop == nil {
			var own context.Context
			own, r.stop = context.WithCancel(ctx)
			group.Go(func() { r.run(own, d.cfg.Grace) })
		}
	}
}

// State is how the endpoints are, in the order of the settings.
func (d *Dispatcher) State() []EndpointState {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]EndpointState, len(d.endpoints))
	for i, r := range d.endpoints {
		all[i] = r.now()
	}
	return all
}
