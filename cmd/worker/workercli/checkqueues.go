package workercli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/queuestats"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/settings"
)

// tryTimeout bounds each of the tries, of Redis and of a mail server.
const tryTimeout = 15 * time.Second

// queueWarnings says in which queues mail waits that a worker with these settings would not take, and no living one
// takes either, and where programs have more parts of a queue than these settings.
func queueWarnings(ctx context.Context, s settings.Settings) []string {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	client, err := redisconn.ConnectStatus(s.Queue.RedisURL.Reveal())
	if err != nil {
		return nil // that was said before
	}
	defer func() { _ = client.Close() }()
	queues, err := queuestats.Read(ctx, client)
	if err != nil {
		return []string{"the queues cannot be read: " + err.Error()}
	}
	var warnings []string
	parts := 0
	for _, q := range queues {
		name := wire.ParseQueueName(q.Name)
		ours := s.Worker.Queues[name.Queue] > 0 && (name.Mailer == "" || slices.Contains(s.Mailers(), name.Mailer))
		if ours && q.Waiting+q.Scheduled+q.Retry == 0 {
			continue
		} else if ours {
			parts = max(parts, name.Shard)
		} else if q.Unserved() {
			warnings = append(warnings, fmt.Sprintf("queue %s: %d tasks wait, no worker that runs takes them, and one with these settings would not either: "+
				"see EMAIL_QUEUES and EMAIL_MAILERS, or what the programs name", q.Name, q.Waiting+q.Scheduled+q.Retry))
		}
	}
	if parts > max(s.Queue.Shards, 1) {
		warnings = append(warnings, fmt.Sprintf("programs divide their queues into %d parts at least, and EMAIL_QUEUE_SHARDS is %d here: "+
			"a worker finds them, but see which number is right", parts, s.Queue.Shards))
	}
	return warnings
}
