package pages

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// oneLine makes a task in a list of asynqmon's a line that says why it failed, then what it is, then to whom. asynqmon
// shows a payload that is no JSON as it is; a page of a single task has all of it.
func oneLine(task map[string]any) {
	text, _ := task["payload"].(string)
	var p struct {
		Subject  string   `json:"subject"`
		To       []string `json:"to"`
		OnlyTo   []string `json:"only_to"`
		Messages int      `json:"messages"`
		Payload  string   `json:"payload"`
		Size     string   `json:"size"`
		First    []struct {
			Subject string `json:"subject"`
		} `json:"first"`
	}
	if json.Unmarshal([]byte(text), &p) != nil {
		return
	}
	to := p.To
	if len(p.OnlyTo) > 0 {
		to = p.OnlyTo
	}
	reason, _ := task["error_message"].(string)
	parts := []string{reason, p.Subject, p.Payload}
	if p.Messages > 0 {
		parts = append(parts, number(p.Messages)+" messages")
		if len(p.First) > 0 {
			parts = append(parts, p.First[0].Subject)
		}
	}
	if len(to) > 0 {
		parts = append(parts, "to "+strings.Join(to, ", "))
	}
	parts = append(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), p.Size)
	task["payload"] = strings.Join(parts, " · ")
	task["error_message"] = cmp.Or(replyCode.FindString(reason), "–") // the words are said once
	if kind, ok := task["type"].(string); ok {
		task["type"] = strings.TrimPrefix(kind, "mailpouch:")
	}
	if result, ok := task["result"].(string); ok {
		task["result"] = oneResult(result)
	}
}

// replyCode is the code and the enhanced one that a reason begins with.
var replyCode = regexp.MustCompile(`^\d{3}( \d\.\d+\.\d+)?\b`)

// oneResult is a result in one line.
func oneResult(text string) string {
	var r struct {
		Reply    string   `json:"reply"`
		Messages int      `json:"messages"`
		Replies  []string `json:"replies"`
	}
	switch err := json.Unmarshal([]byte(text), &r); {
	case err != nil:
		return text
	case r.Messages > 0 && len(r.Replies) > 0:
		return number(r.Messages) + " replies, " + r.Replies[0]
	case r.Reply != "":
		return r.Reply
	}
	return text
}

// onlyKnown leaves out the queues of a server that are not in Redis: there is nothing behind their links.
func onlyKnown(server map[string]any, known []string) {
	queues, ok := server["queue_priorities"].(map[string]any)
	if !ok {
		return
	}
	for name := range queues {
		if !slices.Contains(known, name) {
			delete(queues, name)
		}
	}
}

// tidy makes what asynqmon's API answers shorter: its lists, and its servers.
func tidy(path string, value any, known func() []string) {
	answer, ok := value.(map[string]any)
	if !ok {
		return
	}
	if tasks, ok := answer["tasks"].([]any); ok && strings.HasSuffix(path, "_tasks") {
		for _, task := range tasks {
			if t, ok := task.(map[string]any); ok {
				oneLine(t)
			}
		}
	}
	if servers, ok := answer["servers"].([]any); ok {
		for _, server := range servers {
			if s, ok := server.(map[string]any); ok {
				onlyKnown(s, known())
			}
		}
	}
}
