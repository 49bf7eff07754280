package tasks

import (
	"bytes"
	"slices"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

// The queue is a backend like any other: what it accepts is in Redis, whole.
func TestQueue_conformance(t *testing.T) {
	t.Parallel()
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		t.Helper()
		t.Parallel()
		server := redistest.Start(t, redistest.Options{})
		return mailertest.Harness{
			Backend:  NewQueue(server.Client(t), QueueConfig{}),
			Received: func() []mailertest.Mail { return waiting(t, server) },
			Down:     server.Kill,
		}
	})
}

// waiting returns the messages that wait in the queue, as they will be sent.
func waiting(t *testing.T, server *redistest.Server) []mailertest.Mail {
	t.Helper()
	var mails []mailertest.Mail
	for _, queue := range []string{"default:mass", "default"} {
		ids, err := server.Client(t).LRange(t.Context(), "asynq:{"+queue+"}:pending", 0, -1).Result()
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(ids) // oldest first
		for _, id := range ids {
			task, err := inspect(t, server).GetTaskInfo(queue, id)
			if err != nil {
				t.Fatal(err)
			}
			for line := range wire.Lines(task.Payload) {
				p, err := wire.Decode(line, nil)
				if err != nil {
					t.Fatal(err)
				}
				m := p.Message
				if len(p.Recipients) > 0 {
					m = m.WithRecipients(p.Recipients)
				}
				mails = append(mails, asMail(t, m))
			}
		}
	}
	return mails
}

func asMail(t *testing.T, m *mailer.EmailMessage) mailertest.Mail {
	t.Helper()
	var data bytes.Buffer
	if _, err := m.WriteTo(&data); err != nil {
		t.Fatal(err)
	}
	envelope, err := m.Envelope()
	if err != nil {
		t.Fatal(err)
	}
	return mailertest.Mail{Envelope: envelope, Data: data.Bytes()}
}
