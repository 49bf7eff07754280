package chaos

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// queues is what is in Redis when a run has ended.
type queues struct {
	tasks map[string]*asynq.TaskInfo // by their IDs
	dead  map[int]bool               // messages that are in dead letters
	spent map[int]int                // tries beyond the first, by message
}

// readQueues reads all tasks, finished ones too.
func readQueues(t *testing.T, inspector *asynq.Inspector) *queues {
	t.Helper()
	q := &queues{tasks: map[string]*asynq.TaskInfo{}, dead: map[int]bool{}, spent: map[int]int{}}
	names, err := inspector.Queues()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
			inspector.ListPendingTasks, inspector.ListActiveTasks, inspector.ListScheduledTasks,
			inspector.ListRetryTasks, inspector.ListCompletedTasks, inspector.ListArchivedTasks,
		} {
			for page := 1; ; page++ {
				found, err := list(name, asynq.Page(page), asynq.PageSize(1000))
				if err != nil {
					t.Fatal(err)
				}
				q.add(found)
				if len(found) < 1000 {
					break
				}
			}
		}
	}
	return q
}

var messageID = regexp.MustCompile(`(\d+)@chaos\.example\.com`)

func (q *queues) add(found []*asynq.TaskInfo) {
	for _, task := range found {
		q.tasks[task.ID] = task
		if task.State != asynq.TaskStateArchived {
			continue
		}
		for _, id := range messageID.FindAllSubmatch(wire.Plain(task.Payload), -1) {
			number, _ := strconv.Atoi(string(id[1]))
			q.dead[number] = true
		}
	}
}

// waits reports whether the message with that task is still to be sent. One of a bulk task
// may have become a task of its own.
func (q *queues) waits(task string) bool {
	info := q.tasks[task]
	if info == nil {
		info = q.tasks[carrier(task)]
	}
	return info != nil && info.State != asynq.TaskStateCompleted && info.State != asynq.TaskStateArchived
}

// tries counts the tries of each message beyond its first. Tasks of one message tell it
// themselves. What a message of a bulk task becomes is gone when that is sent, so these
// tries are counted in the workers' logs.
func (q *queues) tries(t *testing.T, l *load, logs string) {
	t.Helper()
	for number, task := range l.accepted() {
		if info := q.tasks[task]; info != nil && !l.inBulk(number) {
			q.spent[number] = info.Retried
		}
	}
	files, err := filepath.Glob(filepath.Join(logs, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for text := range bytes.Lines(data) {
			if number, ok := retried(text); ok && l.inBulk(number) {
				q.spent[number]++
			}
		}
	}
}

// retried reads a line of a worker's log: the number of a message that is to be tried again.
func retried(text []byte) (number int, ok bool) {
	var line struct {
		Message   string `json:"message"`
		MessageID string `json:"message_id"`
	}
	if json.Unmarshal(text, &line) != nil || line.Message != "retry" {
		return 0, false
	}
	id := messageID.FindStringSubmatch(line.MessageID)
	if id == nil {
		return 0, false
	}
	number, err := strconv.Atoi(id[1])
	return number, err == nil
}
