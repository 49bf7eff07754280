package tasks

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// unwritten knows of which messages the outcome is still to be written to Redis: accepted ones, until Redis knows that,
// and at_most_once ones whose mark is to be taken back. While there are some a worker does not end of itself, for
// another one would send them again, or make dead letters of them. The zero value is ready for use.
type unwritten struct {
	mu       sync.Mutex
	messages map[string]string // task IDs, by the names of deliveries
}

func (u *unwritten) add(deliveries ...*delivery) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.messages == nil {
		u.messages = map[string]string{}
	}
	for _, d := range deliveries {
		u.messages[d.name()] = d.key[strings.Index(d.key, "}:t:")+len("}:t:"):] + d.suffix
	}
}

// written notes that Redis knows, or that nobody will try to tell it again.
func (u *unwritten) written(deliveries ...*delivery) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, d := range deliveries {
		delete(u.messages, d.name())
	}
}

// restored notes that Redis knows all of these, by their names.
func (u *unwritten) restored(names map[string]string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.messages, func(name, _ string) bool { return names[name] != "" })
}

// any reports whether there are some.
func (u *unwritten) any() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.messages) > 0
}

// ids are the IDs of their tasks.
func (u *unwritten) ids() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Values(u.messages))
}
