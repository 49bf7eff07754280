package asynqbatch

import (
	"slices"
	"sync"
	"time"
)

// OnDemand is a group of servers that run while there is something to do, and for a while after that: each costs connections
// and questions to Redis even if there is nothing. Those that are no longer needed take nothing new, and end when the
// tasks that they have in hand have ended. Its methods may be called from several goroutines.
type OnDemand struct {
	begin func()           // called before the first ones are started
	start func() []*Server // starts new ones

	mu      sync.Mutex
	begun   bool
	running []*Server // nil while the group rests
	leaving []*Server
	ending  chan struct{} // closed when none are started any more
	left    sync.WaitGroup
}

// NewOnDemand returns a group that rests. start starts its servers each time that they are needed; begin is called before it
// is called first.
func NewOnDemand(begin func(), start func() []*Server) *OnDemand {
	return &OnDemand{begin: begin, start: start, ending: make(chan struct{})}
}

// Wake starts servers if none are running.
func (g *OnDemand) Wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.running) == 0 {
		g.startNew()
	}
}

// Renew lets servers take the place of those that are running.
func (g *OnDemand) Renew() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.running) > 0 {
		g.leave()
		g.startNew()
	}
}

// Rest ends the servers if they have nothing in hand and, as asleep says, nothing to expect. A task that they
// take in this moment they still see through.
func (g *OnDemand) Rest(asleep func() bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.running) > 0 && asleep() && inHand(g.running) == 0 {
		g.leave()
	}
}

// Current are the servers that have not ended.
func (g *OnDemand) Current() []*Server {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all()
}

// Awake reports whether servers are running.
func (g *OnDemand) Awake() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.running) > 0
}

// startNew starts servers, unless the worker ends. g.mu is held.
func (g *OnDemand) startNew() {
	if g.ended() {
		return
	}
	if !g.begun {
		g.begun = true
		g.begin()
	}
	g.running = g.start()
}

// leave lets the running servers end. g.mu is held.
func (g *OnDemand) leave() {
	if g.ended() {
		return
	}
	these := g.running
	g.running, g.leaving = nil, append(g.leaving, these...)
	g.left.Go(func() {
		each(these, (*Server).Stop)
		for inHand(these) > 0 {
			select {
			case <-g.ending:
				return // End sees to them
			case <-time.After(20 * time.Millisecond):
			}
		}
		each(these, (*Server).Shutdown)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.leaving = slices.DeleteFunc(g.leaving, func(server *Server) bool { return slices.Contains(these, server) })
	})
}

// End starts no servers any more, and makes those that there are take nothing new.
func (g *OnDemand) End() {
	g.mu.Lock()
	close(g.ending)
	all := g.all()
	g.mu.Unlock()
	each(all, (*Server).Stop)
}

// Shutdown ends all servers after end.
func (g *OnDemand) Shutdown() {
	each(g.Current(), (*Server).Shutdown)
	g.left.Wait()
}

// ended reports whether end was called. g.mu is held.
func (g *OnDemand) ended() bool {
	select {
	case <-g.ending:
		return true
	default:
		return false
	}
}

// all are the servers that have not ended. g.mu is held.
func (g *OnDemand) all() []*Server {
	return slices.Concat(g.running, g.leaving)
}

func inHand(these []*Server) int {
	n := 0
	for _, server := range these {
		n += server.InHand()
	}
	return n
}

// each does something with servers at the same time.
func each(these []*Server, do func(*Server)) {
	var all sync.WaitGroup
	for _, server := range these {
		all.Go(func() { do(server) })
	}
	all.Wait()
}
