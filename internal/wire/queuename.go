package wire

import (
	"hash/fnv"
	"strconv"
	"strings"
)

// QueueName is the name of a queue of asynq's. What a producer calls the queue "bulk"
// is several of them: each named mailer has its own, a sharded one is in as many parts
// as there are shards, and bulk tasks wait beside single messages.
//
//	bulk   marketing.bulk   bulk:mass   marketing.bulk:mass~2
//
// The number of the shard comes last, for that spreads the names best over the slots of a
// Redis Cluster.
type QueueName struct {
	Mailer string // "" for the default one
	Queue  string // as the producer calls it
	Shard  int    // from 1; 0 if the queue is in one piece
	Bulk   bool   // its tasks carry many messages each
}

const bulkSuffix = ":mass"

// String is the name as asynq has it.
func (n QueueName) String() string {
	name := n.Queue
	if n.Mailer != "" {
		name = n.Mailer + "." + name
	}
	if n.Bulk {
		name += bulkSuffix
	}
	if n.Shard > 0 {
		name += "~" + strconv.Itoa(n.Shard)
	}
	return name
}

// ParseQueueName undoes String.
func ParseQueueName(name string) QueueName {
	var n QueueName
	if base, shard, ok := strings.Cut(name, "~"); ok {
		name = base
		n.Shard, _ = strconv.Atoi(shard)
	}
	name, n.Bulk = strings.CutSuffix(name, bulkSuffix)
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		n.Mailer, name = name[:i], name[i+1:]
	}
	n.Queue = name
	return n
}

// ShardOf is the shard, from 1, of a task among so many: 0 if the queue is in one piece. The
// messages of a bulk task, and what becomes of them, are where that is.
func ShardOf(id string, shards int) int {
	if shards < 2 {
		return 0
	}
	if task, _, ok := SplitID(id); ok {
		id = task
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return int(h.Sum32()%uint32(shards)) + 1 //nolint:gosec // shards is small and positive
}

// MessageID is the ID of a message in a bulk task.
func MessageID(task string, index int) string { return task + "." + strconv.Itoa(index) }

// SplitID undoes MessageID. ok is false for the ID of a task of its own.
func SplitID(id string) (task string, index int, ok bool) {
	i := strings.LastIndexByte(id, '.')
	if i < 0 {
		return id, 0, false
	}
	index, err := strconv.Atoi(id[i+1:])
	if err != nil || index < 0 || id[i+1:] != strconv.Itoa(index) {
		return id, 0, false
	}
	return id[:i], index, true
}
