package tasks

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// When Redis has been away for longer than a lease, asynq complains about each task
// that it has in hand, in lines that are all alike. Of a kind that many are enough:
const (
	quietLines = 5
	quietFor   = 30 * time.Second
)

// quiet holds lines back of which there were enough. The zero value is ready for use.
type quiet struct {
	mu    sync.Mutex
	kinds map[string]*quietKind
}

type quietKind struct {
	since  time.Time
	lines  int // since then
	missed int // lines held back, not told of yet
}

// line returns the text to log, or false if there were enough like it. It adds how many
// were held back before.
func (q *quiet) line(now time.Time, text string) (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	words := strings.Fields(text)
	name := strings.Join(words[:min(3, len(words))], " ")
	if q.kinds == nil {
		q.kinds = map[string]*quietKind{}
	}
	k := q.kinds[name]
	if k == nil {
		k = &quietKind{}
		q.kinds[name] = k
	}
	if now.Sub(k.since) > quietFor {
		k.since, k.lines = now, 0
	}
	k.lines++
	if k.lines > quietLines {
		k.missed++
		return "", false
	}
	if k.missed > 0 {
		text = fmt.Sprintf("%s (and %d more like it before)", text, k.missed)
		k.missed = 0
	}
	return text, true
}

// endedBefore says whether asynq complains of having recorded a task's end twice: the reply to
// the first time was lost, or another worker was faster. Nothing is amiss then.
func endedBefore(text string) bool {
	return strings.HasPrefix(text, "Could not remove task") && strings.Contains(text, "NOT FOUND")
}
