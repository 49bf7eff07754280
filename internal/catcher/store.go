package catcher

import (
	"slices"
	"sync"
	"time"
)

// Message is one message as it was received.
type Message struct {
	Number     int // 1 for the first that the server accepted
	Connection int // that it came over, 1 for the first
	Time       time.Time

	From     string   // envelope sender, "" for the null sender
	To       []string // envelope recipients that were not refused
	Username string   // as whom the client was logged in
	TLS      bool

	Raw []byte // with CRLF line ends, without the dots that SMTP adds
}

// Stats counts what a server has seen.
type Stats struct {
	Accepted int // messages
	Refused  int // senders, recipients and messages that Config.Decide refused, and messages cut short or too big
	Opened   int // connections since the start
	Open     int // connections at this moment

	// PerConnection is how many messages came over each connection, in the order in
	// which they were opened: of the first thousand.
	PerConnection []int
}

const maxPerConnection = 1000

// store keeps messages and counts. The lock guards everything below it.
type store struct {
	maxKeep, maxBytes int

	mu       sync.Mutex
	messages []Message // the last ones
	bytes    int       // of messages
	stats    Stats
	changes  int           // messages that were accepted, and deletions
	changed  chan struct{} // closed, and replaced, when there is another one
}

func newStore(maxKeep, maxBytes int) *store {
	return &store{maxKeep: max(maxKeep, 0), maxBytes: maxBytes, changed: make(chan struct{})}
}

// number gives a message the number that add will count it with.
func (s *store) number(m Message) Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Number = s.stats.Accepted + 1
	return m
}

// add counts a message and keeps it.
func (s *store) add(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Accepted++
	if m.Connection <= len(s.stats.PerConnection) {
		s.stats.PerConnection[m.Connection-1]++
	}
	s.messages = append(s.messages, m)
	s.bytes += len(m.Raw)
	for len(s.messages) > s.maxKeep || s.bytes > s.maxBytes {
		s.bytes -= len(s.messages[0].Raw)
		s.messages[0] = Message{} // lets go of its bytes before the slice is moved
		s.messages = s.messages[1:]
	}
	s.change()
}

// change is called with the lock held.
func (s *store) change() {
	s.changes++
	close(s.changed)
	s.changed = make(chan struct{})
}

// delete lets go of the messages that match.
func (s *store) delete(match func(Message) bool) (deleted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := make([]Message, 0, len(s.messages)) // a new one: others may be reading the old
	s.bytes = 0
	for _, m := range s.messages {
		if match(m) {
			deleted++
		} else {
			left, s.bytes = append(left, m), s.bytes+len(m.Raw)
		}
	}
	s.messages = left
	if deleted > 0 {
		s.change()
	}
	return deleted
}

func (s *store) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Refused++
}

// connect counts a new connection and returns its number.
func (s *store) connect() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Opened++
	s.stats.Open++
	if s.stats.Opened <= maxPerConnection {
		s.stats.PerConnection = append(s.stats.PerConnection, 0)
	}
	return s.stats.Opened
}

func (s *store) disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Open--
}

func (s *store) snapshot() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.PerConnection = slices.Clone(stats.PerConnection)
	return stats
}

func (s *store) kept() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

func (s *store) state() (changes int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes, s.changed
}

func (s *store) accepted() (n int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats.Accepted, s.changed
}
