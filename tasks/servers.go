package tasks

import (
	"slices"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
)

// servers are the asynq servers of a dispatcher. They run while there is mail, and for a while after that: each costs
// connections and questions to Redis even if there is nothing to do. Those that are no longer needed take nothing new
// and end when the tasks that they have in hand have ended.
type servers struct {
	begin func()                      // called before the first ones are started
	start func() []*asynqbatch.Server // starts new ones

	mu      sync.Mutex
	begun   bool
	running []*asynqbatch.Server // nil while the dispatcher is asleep
	leaving []*asynqbatch.Server
	ending  chan struct{} // closed when the worker ends: none are started then
	left    sync.WaitGroup
}

// wake starts servers if none are running.
func (s *servers) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.running) == 0 {
		s.startNew()
	}
}

// renew lets servers take the place of those that are running.
func (s *servers) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.running) > 0 {
		s.leave()
		s.startNew()
	}
}

// rest ends the servers if they have nothing in hand and, as asleep says, nothing to expect. A task that they
// take in this moment they still see through.
func (s *servers) rest(asleep func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.running) > 0 && asleep() && inHand(s.running) == 0 {
		s.leave()
	}
}

func (s *servers) awake() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running) > 0
}

// startNew starts servers, unless the worker ends. s.mu is held.
func (s *servers) startNew() {
	if s.ended() {
		return
	}
	if !s.begun {
		s.begun = true
		s.begin()
	}
	s.running = s.start()
}

// leave lets the running servers end. s.mu is held.
func (s *servers) leave() {
	if s.ended() {
		return
	}
	these := s.running
	s.running, s.leaving = nil, append(s.leaving, these...)
	s.left.Go(func() {
		each(these, (*asynqbatch.Server).Stop)
		for inHand(these) > 0 {
			select {
			case <-s.ending:
				return // end sees to them
			case <-time.After(20 * time.Millisecond):
			}
		}
		each(these, (*asynqbatch.Server).Shutdown)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.leaving = slices.DeleteFunc(s.leaving, func(server *asynqbatch.Server) bool { return slices.Contains(these, server) })
	})
}

// end starts no servers any more, and makes those that there are take nothing new.
func (s *servers) end() {
	s.mu.Lock()
	close(s.ending)
	all := s.all()
	s.mu.Unlock()
	each(all, (*asynqbatch.Server).Stop)
}

// shutdown ends all servers after end.
func (s *servers) shutdown() {
	s.mu.Lock()
	all := s.all()
	s.mu.Unlock()
	each(all, (*asynqbatch.Server).Shutdown)
	s.left.Wait()
}

// ended reports whether end was called. s.mu is held.
func (s *servers) ended() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

// all are the servers that have not ended. s.mu is held.
func (s *servers) all() []*asynqbatch.Server {
	return slices.Concat(s.running, s.leaving)
}

func inHand(these []*asynqbatch.Server) int {
	n := 0
	for _, server := range these {
		n += server.InHand()
	}
	return n
}

// each does something with servers at the same time.
func each(these []*asynqbatch.Server, do func(*asynqbatch.Server)) {
	var all sync.WaitGroup
	for _, server := range these {
		all.Go(func() { do(server) })
	}
	all.Wait()
}
