package chaos

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// relay is a mail server that goes wrong in every way that it may, and knows what it
// did: for each copy of a message that it kept, over which connection it came and
// whether the sender was told.
type relay struct {
	addr   string
	faults faults

	mu       sync.Mutex
	rng      *rand.Rand
	begun    int // transactions
	listener net.Listener
	away     bool
	mute     bool // whole messages are neither kept nor answered
	open     map[*session]bool
	copies   map[int][]keptCopy // by number of the message
	told     map[string][]told  // which workers heard that a recipient is refused for now
	changed  chan struct{}      // closed and replaced when a copy comes in
	held     chan struct{}      // gets a token when a whole message has come while mute
	sessions sync.WaitGroup
}

// faults says what the relay does wrong. The zero value does nothing wrong.
type faults struct {
	laterEvery int           // every so many transactions one is answered with 421
	cutOneIn   int           // one transaction in so many loses its connection
	refuseOne  int           // every so many messages one is refused for good
	others     bool          // nobodyN@ is refused for good, and laterN@ at first for now
	slowest    time.Duration // replies to whole messages take up to this long
}

// refuses reports whether a message is one that the relay refuses for good, each time.
func (f faults) refuses(number int) bool {
	return f.refuseOne > 0 && number%f.refuseOne == f.refuseOne-1
}

// line is one connection, as the books have it.
type line struct {
	worker string      // what the client called itself in EHLO
	ended  time.Time   // zero while it is open
	kept   []time.Time // when messages came over it that were kept
}

// keptCopy is a copy of a message that the relay kept.
type keptCopy struct {
	line   *line
	nth    int               // of those that came over the line, from 1
	to     []string          // its recipients
	sum    [sha256.Size]byte // of its bytes
	plain  [sha256.Size]byte // of its bytes without a Received field in front
	at     time.Time
	cutOff bool // the relay hung up instead of answering
	unread bool // the answer could not be written any more
}

// fate is what becomes of a transaction.
type fate int

const (
	fine fate = iota
	laterAtMail
	laterAtRcpt
	laterAtDot
	cutBeforeMail
	cutAfterRcpt
	cutInBody
	cutBeforeReply // having kept the message
	cutAfterReply
)

func startRelay(t *testing.T, seed uint64, f faults) *relay {
	t.Helper()
	r := &relay{
		faults: f, rng: rand.New(rand.NewPCG(seed, 1)), addr: "127.0.0.1:0",
		open: map[*session]bool{}, copies: map[int][]keptCopy{}, told: map[string][]told{}, changed: make(chan struct{}), held: make(chan struct{}, 1000),
	}
	if err := r.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

func (r *relay) listen() error {
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr, r.listener, r.away = l.Addr().String(), l, false
	r.sessions.Go(func() { r.accept(l) })
	return nil
}

func (r *relay) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s := newSession(r, conn.(*net.TCPConn))
		r.mu.Lock()
		if r.away {
			r.mu.Unlock()
			_ = conn.Close()
			continue
		}
		r.open[s] = true
		r.sessions.Go(s.serve)
		r.mu.Unlock()
	}
}

// leave goes away: nobody can connect, and each connection ends after the reply that
// it owes, if a whole message is owed one.
func (r *relay) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = true
	_ = r.listener.Close()
	for s := range r.open {
		_ = s.conn.SetReadDeadline(time.Now())
	}
}

// back is here again, at the same address.
func (r *relay) back() {
	if err := r.listen(); err != nil {
		panic(err) // somebody took our port: nothing can be shown any more
	}
}

// close ends everything at once.
func (r *relay) close() {
	r.leave()
	r.mu.Lock()
	for s := range r.open {
		close(s.stop)
		_ = s.conn.Close()
	}
	r.mu.Unlock()
	r.sessions.Wait()
}

func (r *relay) setMute(mute bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = mute
}

func (r *relay) isMute() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mute
}

func (r *relay) isAway() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away
}

// ended takes a session off the books of the open ones.
func (r *relay) ended(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.line.ended = time.Now()
	delete(r.open, s)
}

func (r *relay) named(s *session, worker string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.line.worker = worker
}

// draw decides about the next transaction.
func (r *relay) draw() fate {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun++
	switch {
	case r.faults.laterEvery > 0 && r.begun%r.faults.laterEvery == 0:
		return laterAtMail + fate(r.rng.IntN(3))
	case r.faults.cutOneIn > 0 && r.rng.IntN(r.faults.cutOneIn) == 0:
		return cutBeforeMail + fate(r.rng.IntN(5))
	}
	return fine
}

// told is a worker that heard that a recipient is refused for now.
type told struct {
	worker string
	at     time.Time
}

// putsOff reports whether a recipient is refused for now: once, or twice.
func (r *relay) putsOff(address, worker string) bool {
	number := 0
	if _, err := fmt.Sscanf(address, "later%d@", &number); err != nil || !r.faults.others {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told[address]) > number%2 {
		return false
	}
	r.told[address] = append(r.told[address], told{worker, time.Now()})
	return true
}

// splits is how many workers were killed when they may have been giving a recipient that is refused for now a task of its own, and noting that
// it has one: between the two is the one more moment of the promise in which mail can double.
func (r *relay) splits(address string, killed map[string]time.Time) (n int) {
	const most = 5 * time.Second // from the refusal to the note, on a slow machine
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.told[address] {
		if at, ok := killed[d.worker]; ok && at.After(d.at) && at.Sub(d.at) < most {
			n++
		}
	}
	return n
}

// pause is how long the reply to a whole message takes.
func (r *relay) pause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults.slowest == 0 {
		return 0
	}
	return time.Duration(r.rng.Int64N(int64(r.faults.slowest)))
}

// keep takes responsibility for a message.
func (r *relay) keep(number int, l keptCopy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.at = time.Now()
	l.line.kept = append(l.line.kept, l.at)
	l.nth = len(l.line.kept)
	r.copies[number] = append(r.copies[number], l)
	close(r.changed)
	r.changed = make(chan struct{})
}

// unread notes that the last copy of a message was kept and nobody was there to hear.
func (r *relay) unread(number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.copies[number][len(r.copies[number])-1].unread = true
}

// delivered returns how many different messages were kept, and what is closed at
// the next one.
func (r *relay) delivered() (n int, next <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.copies), r.changed
}

// lastAt reports whether the copy is one of the last that were kept of those that came over
// a line which was open at a time.
func (l keptCopy) lastAt(at time.Time, window int) bool {
	return l.nth > len(l.line.kept)-window && l.line.openAt(at)
}

// stopped reports whether the copy is one of those that were on the wire of a worker when it stood still: one of the last that
// were kept until it went on.
func (l keptCopy) stopped(s stalled, window int) bool {
	return l.line.openAt(s.from) && !l.at.After(s.to) && l.nth > l.line.keptUntil(s.to)-window
}

// resumed reports whether the copy is one of the first that a worker sent after it stood still: it may have been about to send it
// when it stopped.
func (l keptCopy) resumed(s stalled, window int) bool {
	return l.line.openAt(s.from) && l.at.After(s.to) && l.nth <= l.line.keptUntil(s.to)+window
}

// openAt reports whether the connection had not ended at a time.
func (l *line) openAt(at time.Time) bool { return l.ended.IsZero() || l.ended.After(at) }

// keptUntil is how many messages had been kept by a time.
func (l *line) keptUntil(at time.Time) int {
	n := 0
	for _, kept := range l.kept {
		if !kept.After(at) {
			n++
		}
	}
	return n
}

// books returns all copies, those of each message in the order in which they came.
func (r *relay) books() map[int][]keptCopy {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[int][]keptCopy, len(r.copies))
	for number, copies := range r.copies {
		all[number] = slices.Clone(copies)
		for i, l := range copies {
			all[number][i].line = new(*l.line) // sessions may still be ending
		}
	}
	return all
}
