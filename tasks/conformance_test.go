package tasks

import (
	"bytes"
	"testing"

	"github.com/mailpouch/mailpouch/internal/redistest"
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
	client := server.Client(t)
	ids, err := client.LRange(t.Context(), "asynq:{default}:pending", 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		task, err := inspect(t, server).GetTaskInfo("default", id)
		if err != nil {
			t.Fatal(err)
		}
		p, err := decodePayload(task.Payload)
		if err != nil {
			t.Fatal(err)
		}
		mails = append(mails, asMail(t, p.Message))
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
