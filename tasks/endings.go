package tasks

import (
	"sync"
	"time"
)

// endings lets a sender know when asynq has ended a task. A task that has ended is in no
// list any more, so nobody will send its message again, and the ledger needs no entry
// for it: that saves a round trip for every message that has a task to itself.
type endings struct {
	mu      sync.Mutex
	waiting map[string]chan<- error // by the task's key; each has room for the one error
}

func newEndings() *endings { return &endings{waiting: map[string]chan<- error{}} }

// endPatience is how long a sender waits for asynq to end a task, before it writes the
// entry after all. While Redis answers that takes a fraction of it.
const endPatience = 50 * time.Millisecond

// expect announces the end of a task. ended gets nil when it is in Redis, else the error;
// it must have room for that.
func (e *endings) expect(key string, ended chan<- error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting[key] = ended
}

// forget takes expect back.
func (e *endings) forget(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, key)
}

// endKey is which key of asynq's script that ends a task is the task: the third of
// active, lease, task, processed today, processed. No other one has it there.
const endKey = 2

// ran is told how a script of asynq's has come back.
func (e *endings) ran(keys []string, err error) {
	if len(keys) <= endKey {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if ended, ok := e.waiting[keys[endKey]]; ok {
		delete(e.waiting, keys[endKey])
		ended <- err
	}
}
