package pages

import (
	"encoding/json"
	"testing"
)

func TestTidy(t *testing.T) {
	t.Parallel()
	known := func() []string { return []string{"default"} }
	for _, tt := range []struct{ name, path, give, want string }{
		{"a dead letter", "/monitor/api/queues/default/archived_tasks",
			`{"tasks":[{"id":"1","type":"mailpouch:message","error_message":"550 no (RCPT)","payload":"{\"subject\":\"Hi\",\"to\":[\"a***@x\"],\"size\":\"2 B\"}"}]}`,
			`{"tasks":[{"error_message":"550","id":"1","payload":"550 no (RCPT) · Hi · to a***@x · 2 B","type":"message"}]}`},
		{"for some of its recipients", "/q/retry_tasks", `{"tasks":[{"error_message":"","payload":"{\"subject\":\"Hi\",\"to\":[\"a\",\"b\"],\"only_to\":[\"b\"],\"size\":\"2 B\"}"}]}`,
			`{"tasks":[{"error_message":"–","payload":"Hi · to b · 2 B"}]}`},
		{"a mass task", "/q/completed_tasks", `{"tasks":[{"payload":"{\"messages\":100,\"first\":[{\"subject\":\"News\"}],\"size\":\"9 B\"}","result":"{\"messages\":100,\"replies\":[\"0: 250 Ok\"]}"}]}`,
			`{"tasks":[{"error_message":"–","payload":"100 messages · News · 9 B","result":"100 replies, 0: 250 Ok"}]}`},
		{"a reply", "/q/completed_tasks", `{"tasks":[{"payload":"{\"subject\":\"Hi\",\"size\":\"9 B\"}","result":"{\"reply\":\"250 Ok\"}"}]}`,
			`{"tasks":[{"error_message":"–","payload":"Hi · 9 B","result":"250 Ok"}]}`},
		{"something else", "/q/pending_tasks", `{"tasks":[{"payload":"x"},7]}`, `{"tasks":[{"payload":"x"},7]}`},
		{"one task", "/q/tasks/1", `{"payload":"{\"subject\":\"Hi\"}"}`, `{"payload":"{\"subject\":\"Hi\"}"}`},
		{"servers", "/servers", `{"servers":[{"queue_priorities":{"default":1,"default~2":1}},{}]}`, `{"servers":[{"queue_priorities":{"default":1}},{}]}`},
		{"a list", "/x", `[1]`, `[1]`},
	} {
		var value any
		if err := json.Unmarshal([]byte(tt.give), &value); err != nil {
			t.Fatal(err)
		}
		tidy(tt.path, value, known)
		if got, _ := json.Marshal(value); string(got) != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
