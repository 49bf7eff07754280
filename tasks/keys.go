package tasks

import "github.com/mailpouch/mailpouch/internal/asynqbatch"

// taskKey is where asynq keeps a task.
func taskKey(queue, id string) string { return asynqbatch.TaskKey(queue, id) }
