package tasks

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/pauses"
	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// PauseTarget is what is paused: a queue, of all mailers or of one; a mailer; or a mailing.
//
//	type Target struct {
//		Queue   string `json:"queue,omitempty"`  // as programs call it, with all its parts
//		Mailer  string `json:"mailer,omitempty"` // DefaultMailer is the one without a name
//		Mailing string `json:"mailing,omitempty"`
//	}
//
//	// Kind is what is paused: KindQueue, KindMailer or KindMailing.
//	func (t Target) Kind() string
//
//	// String names the target for people.
//	func (t Target) String() string
//
//	// Validate reports what is wrong with a target.
//	func (t Target) Validate() error
type PauseTarget = pauses.Target

// Pause is something that is paused, by whom, since when and why.
//
//	type Pause struct {
//		Target
//
//		By     string    `json:"by"` // a host's name, or AsynqTools
//		At     time.Time `json:"at"`
//		Reason string    `json:"reason,omitempty"`
//	}
type Pause = pauses.Pause

// UnknownTargetError reports a queue or a mailer to be paused that there is none of.
//
//	type UnknownError struct {
//		Target Target
//		Known  []string // queues, or mailers
//	}
//
//	func (e *UnknownError) Error() string
type UnknownTargetError = pauses.UnknownError

// Pauses stops mail from being sent, and lets it go on. What is paused waits in Redis: no worker begins with it any more, and
// what one has in hand and not on the wire it gives back at once, untried. Deadlines and ages go on, and what expires becomes
// a dead letter as always. A Redis that loses its data loses the pauses too, with the mail. It may be used by several goroutines.
type Pauses struct{ redis redis.UniversalClient }

// NewPauses returns the pauses in the given Redis, which it does not close.
func NewPauses(client redis.UniversalClient) *Pauses {
	return &Pauses{redisconn.ForProgram(client)}
}

// Pause pauses something, in all its parts and for all workers. By and At may be left out. What is paused already stays so, and
// that pause is returned. A queue or a mailer that Redis knows nothing of is an UnknownTargetError.
func (p *Pauses) Pause(ctx context.Context, what Pause) (before *Pause, err error) {
	return pauses.Set(ctx, p.redis, what)
}

// Resume ends the pause of exactly that target: what another pause covers too goes on waiting. It is false if there was none.
func (p *Pauses) Resume(ctx context.Context, what PauseTarget) (bool, error) {
	return pauses.End(ctx, p.redis, what)
}

// List returns what is paused, the oldest pause first.
func (p *Pauses) List(ctx context.Context) ([]Pause, error) { return pauses.List(ctx, p.redis) }
