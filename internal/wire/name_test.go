package wire

import "testing"

func TestIsName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"default", "a", "Bulk-2", "eu_bulk", "0", "-"} {
		if !IsName(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{
		"", " ", "with blank", " bulk", "größe", "eu.bulk", "bulk:mass", "bulk~2", "{bulk}", "default;bulk", "default=3", "a,b",
		"a\n", "a\x00", "a\xff", "a/b", "a%b", "a*", "ａ",
	} {
		if IsName(name) {
			t.Errorf("%q is taken", name)
		}
	}
	// Whatever is a name comes back from the name of asynq's queue.
	for _, n := range []QueueName{
		{Queue: "Bulk-2_x"}, {Mailer: "a-b_C", Queue: "-"}, {Mailer: "m", Queue: "q", Shard: 64, Bulk: true},
	} {
		if got := ParseQueueName(n.String()); got != n {
			t.Errorf("%q is read as %+v, want %+v", n, got, n)
		}
	}
}
