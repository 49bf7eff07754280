package wire

import "testing"

func TestQueueName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name QueueName
		want string
	}{
		{QueueName{Queue: "bulk"}, "bulk"},
		{QueueName{Mailer: "marketing", Queue: "bulk"}, "marketing.bulk"},
		{QueueName{Queue: "bulk", Bulk: true}, "bulk:mass"},
		{QueueName{Mailer: "marketing", Queue: "bulk", Shard: 12, Bulk: true}, "marketing.bulk:mass~12"},
		{QueueName{Queue: "Bulk-2_x"}, "Bulk-2_x"}, // whatever is a name comes back
		{QueueName{Mailer: "a-b_C", Queue: "-"}, "a-b_C.-"},
	} {
		if got := tt.name.String(); got != tt.want || ParseQueueName(got) != tt.name {
			t.Errorf("%+v is %q, want %q, and read again it is %+v", tt.name, got, tt.want, ParseQueueName(got))
		}
	}
}

func TestSplitID(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		id, task string
		index    int
		ok       bool
	}{
		{MessageID("ABC", 0), "ABC", 0, true},
		{MessageID("key-a.b-c", 17), "key-a.b-c", 17, true},
		{"ABC", "ABC", 0, false},
		{"ABC.x", "ABC.x", 0, false},
		{"ABC.-1", "ABC.-1", 0, false},
		{"ABC.01", "ABC.01", 0, false},
	} {
		if task, index, ok := SplitID(tt.id); task != tt.task || index != tt.index || ok != tt.ok {
			t.Errorf("SplitID(%q) = %q, %d, %v", tt.id, task, index, ok)
		}
	}
	if got, want := ShardOf(MessageID("ABC", 3), 8), ShardOf("ABC", 8); got != want || got < 1 || got > 8 {
		t.Errorf("a message is in shard %d, its task in %d", got, want)
	}
	if got := ShardOf("ABC", 1); got != 0 {
		t.Errorf("shard %d of a queue in one piece", got)
	}
}
