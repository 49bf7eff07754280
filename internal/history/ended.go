package history

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Ended writes records of messages of a queue that have ended without a worker: all of a task of that kind with that payload, or
// those whose indexes are given. reply is what the records say of it. That it fails is no failure of what was done.
func Ended(ctx context.Context, client redis.UniversalClient, queue, id, kind string, payload []byte, state State, reply string, indexes ...int) {
	installed, err := ReadInstallation(ctx, client)
	if err != nil || !installed.On() {
		return
	}
	_ = installed.Write(ctx, client, queue, recordsOf(installed.Secret, id, kind, payload, state, reply, indexes))
}

// recordsOf are the records of the messages of a task.
func recordsOf(secret *Secret, id, kind string, payload []byte, state State, reply string, indexes []int) []byte {
	now := time.Now()
	if kind != wire.TaskTypeBulk {
		return appendRecord(nil, secret, Record{State: state, ID: id, At: now, Reply: reply}, payload)
	}
	var data []byte
	index := 0
	for line := range wire.Lines(payload) {
		if len(indexes) == 0 || slices.Contains(indexes, index) {
			data = appendRecord(data, secret, Record{State: state, ID: wire.MessageID(id, index), At: now, Reply: reply}, line)
		}
		index++
	}
	return data
}

func appendRecord(data []byte, secret *Secret, r Record, payload []byte) []byte {
	r.Due = r.At
	p, err := wire.Decode(payload, nil)
	if err != nil {
		return r.Append(data, nil, secret)
	}
	r.MessageID, r.Mailing, r.Tags, r.Due, r.Tries = p.Message.MessageID, p.Mailing, p.Tags, p.DueAt, p.Spent
	message := p.Message
	if len(p.Recipients) > 0 {
		message = message.WithRecipients(p.Recipients)
	}
	r.Reply = redact.Reason(r.Reply, false)
	return r.Append(data, Recipients(message), secret)
}

// Recipients are the addresses of those whom a message is for. What has no envelope is for nobody.
func Recipients(m *mailer.EmailMessage) []string {
	envelope, err := m.Envelope()
	if err != nil {
		return nil
	}
	return envelope.To
}
