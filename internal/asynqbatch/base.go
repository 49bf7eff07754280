package asynqbatch

import (
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/history"
)

// Config says what a Client adds to asynq.
type Config struct {
	// LostField is the field of a task's record in which its lost leases are counted, and OwnerField the one that has
	// the owner of an active task. asynq leaves fields alone that it does not know.
	LostField, OwnerField string

	// TouchedFields are those of a task's record of which one is there if anything was done to the task before: see
	// Client.Fresh.
	TouchedFields []string

	// Steps are the functions that Client.Do knows, by their names: bodies in Lua. See Step.
	Steps map[string]string

	// History is what is kept of messages that have ended: Notes.Record.
	History history.Config

	// Events is what is kept of what happens to messages: Notes.Events. Archived returns the events of a task that asynq archives by
	// itself, as events.OfTask has them.
	Events   events.Config
	Archived func(id string, task Message) []byte

	// Fetched is called for each task before asynq gets it, with how many leases the task has lost.
	Fetched func(key string, lost int)

	// Asleep reports whether a queue is known to have nothing to do: then asynq is told so, and Redis is not asked.
	// Took is called when a task is taken from a queue. Both may be nil.
	Asleep func(queue string) bool
	Took   func(queue string)

	// Waiter is the ID under which the process hears of new tasks, as WakeChannelOf it says, and "" while it does not: see
	// Client.Wake. Nil is never.
	Waiter func() string

	Logger zerolog.Logger

	// Clock is the system's if nil: one that counts the time for which the machine was suspended, where there is one.
	Clock Clock
}

// TaskKey is where asynq keeps the record of a task.
func TaskKey(queue, id string) string { return "asynq:{" + queue + "}:t:" + id }

// nameIn is the name of the queue that has that key.
func nameIn(key string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(key, "asynq:{"), "}")
	return name
}

// base is what all parts of a Client work on.
type base struct {
	redis  redis.UniversalClient
	cfg    Config
	claims *claims
	wakers wakers
}
