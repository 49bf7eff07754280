package smtp

import (
	"context"
	"errors"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// Hooks are told what a Backend does, for metrics, logs and traces. A function that is
// nil is not called. A Backend calls them from one goroutine at a time, which is another
// one when it closes an idle connection; several backends that share a Hooks call them at
// the same time. They are on the way of the mail: they must be quick, must not change what
// they get, and must not call the Backend.
//
// ctx is that of Open or SendBatch.
type Hooks struct {
	// Connected is called when an attempt at one server has ended, well or not.
	Connected func(ctx context.Context, c Connected)

	// Reused is called when a connection is used again that was idle for so long.
	Reused func(ctx context.Context, c *Conn, idle time.Duration)

	// Settled is called for each message that was given to a connection, when its fate is
	// known and just before that is reported. A message that goes on over another
	// connection, because the first one broke, is told of once.
	Settled func(ctx context.Context, s *Settled)

	// Closed is called once for each connection that Connected has told of without an
	// error.
	Closed func(c Closed)
}

// A Conn is a connection as hooks see it.
type Conn struct {
	ID     string // short, random, and so different for each connection of all processes
	Addr   string // as in Config.Addrs
	Remote string // the address that was connected to, as the system says; "" if none was

	TLS         string // "TLS 1.3"; "" in clear text
	CipherSuite string
	Mechanism   string   // of the login; "" without one
	Features    []string // extensions that the server offers and this package knows

	// OddSize is what the server says behind SIZE (RFC 1870) if that can be no limit, such as "35 MB". It is
	// ignored.
	OddSize string
}

// Connected is how an attempt to connect to one server has ended.
type Connected struct {
	Conn  *Conn
	Start time.Time

	// How long each part took, of those that it has come to: connecting, the TLS handshake
	// with STARTTLS before it, the wait for the greeting, EHLO (twice with STARTTLS), login.
	Dial, TLS, Greeting, Hello, Auth time.Duration

	Err error // nil, or a SendError of class Unavailable that names the step
}

// Settled is one message whose fate is known.
type Settled struct {
	Index      int   // of the message in what SendBatch was given
	Conn       *Conn // the last one that it was given to
	Way        Way
	MessageID  string
	Recipients int       // those that the server was asked to take
	Octets     int       // of the message as rendered
	Start      time.Time // when the first of its commands was ready to be sent
	Steps      Steps
	Result     mailer.Result
}

// Way is how a message was sent, which says what its Steps mean.
type Way string

// The ways.
const (
	WayStrict    Way = "strict"    // each reply was waited for
	WayPipelined Way = "pipelined" // Config.Pipelining
	WayChunked   Way = "chunked"   // Config.Chunking
)

// Steps say how long the replies to each kind of command were waited for: from the moment
// that the command was handed over to be written, or this package was done with the reply
// before it, whichever was later. So nothing is counted twice, and the sum is the time that
// the connection spent on waiting for the message.
//
// With WayStrict each is a round trip and the server's work. With the other ways several
// commands leave at once: the first reply of them has the round trip in it, the others
// what the server took from one to the next. There is no command DATA with WayChunked.
type Steps struct {
	Reset time.Duration // RSET, before MAIL, after a message that was refused
	Mail  time.Duration
	Rcpt  time.Duration // all of them
	Data  time.Duration
	End   time.Duration // from the beginning of the body to the verdict on the message
}

// Refused are the recipients that the server did not take, whether it took the message for
// others or not.
func (s *Settled) Refused() []*mailer.SendError {
	var failure *mailer.SendError
	if errors.As(s.Result.Err, &failure) {
		return failure.Refused
	}
	return s.Result.Refused
}

// Closed is the end of a connection.
type Closed struct {
	Conn     *Conn
	Reason   CloseReason
	Err      error         // the cause, for the reasons that have one
	Lived    time.Duration // from connecting on
	Messages int           // given to the connection
	Octets   int64         // of messages sent
}

// CloseReason is why a connection was closed.
type CloseReason string

// The reasons for which we end a connection that is in order.
const (
	CloseDone CloseReason = "done" // by Backend.Close, or because nobody had opened the Backend
	CloseFull CloseReason = "full" // MaxMessages, MaxBytes or MaxAge
	CloseIdle CloseReason = "idle" // nothing to send for IdleTimeout
)

// The reasons for which a connection ends early.
const (
	CloseStale    CloseReason = "stale"    // the server has ended it while it was idle
	Close421      CloseReason = "421"      // the server said that it is closing
	CloseTimeout  CloseReason = "timeout"  // the server did not answer, or not read, in time
	CloseLost     CloseReason = "lost"     // it broke
	CloseProtocol CloseReason = "protocol" // what the server said did not fit, such as a refusal of RSET or amid a body
	CloseStopped  CloseReason = "stopped"  // the context has ended
)

// and returns hooks that tell both. Either may be nil.
func (h *Hooks) and(g *Hooks) *Hooks {
	if h == nil || g == nil {
		if h == nil {
			return g
		}
		return h
	}
	return &Hooks{
		Connected: func(ctx context.Context, c Connected) { h.connected(ctx, c); g.connected(ctx, c) },
		Reused: func(ctx context.Context, c *Conn, idle time.Duration) {
			h.reused(ctx, c, idle)
			g.reused(ctx, c, idle)
		},
		Settled: func(ctx context.Context, s *Settled) { h.settled(ctx, s); g.settled(ctx, s) },
		Closed:  func(c Closed) { h.closed(c); g.closed(c) },
	}
}

func (h *Hooks) connected(ctx context.Context, c Connected) {
	if h != nil && h.Connected != nil {
		h.Connected(ctx, c)
	}
}

func (h *Hooks) reused(ctx context.Context, c *Conn, idle time.Duration) {
	if h != nil && h.Reused != nil {
		h.Reused(ctx, c, idle)
	}
}

func (h *Hooks) settled(ctx context.Context, s *Settled) {
	if h.times() {
		h.Settled(ctx, s)
	}
}

func (h *Hooks) closed(c Closed) {
	if h != nil && h.Closed != nil {
		h.Closed(c)
	}
}

// times reports whether anybody wants to know how long the steps of a message take.
func (h *Hooks) times() bool { return h != nil && h.Settled != nil }
