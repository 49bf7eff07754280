package events

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/packed"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Message is what events of a message that happen at the same time have in common.
type Message struct {
	ID        string    // of its task, or its own in a task of many
	MessageID string    // as in its header
	Mailer    string    // that it names, "" for the default one
	Mailing   string    // that it belongs to
	Tags      []string  //
	Due       time.Time // when it was to be sent first: tells apart what has the same ID one after the other
	Tries     int       // that it had
}

// Of is what a payload says of its message.
func Of(p *wire.Payload, id string, tries int) Message {
	return Message{ID: id, MessageID: p.Message.MessageID, Mailer: p.Using, Mailing: p.Mailing, Tags: p.Tags, Due: p.DueAt, Tries: tries}
}

// Recipients are the addresses of those whom the message of a payload is for.
func Recipients(p *wire.Payload) []string {
	m := p.Message
	if len(p.Recipients) > 0 {
		m = m.WithRecipients(p.Recipients)
	}
	envelope, err := m.Envelope()
	if err != nil {
		return p.Recipients
	}
	return envelope.To
}

// The most that an event holds of a text.
const (
	mostID      = 300
	mostAddress = 1000
	mostReply   = 2000
	mostName    = 100
	mostTags    = 20
)

// mostTogether is how many recipients share what an entry says of their message, at most.
const mostTogether = 1000

// usualPart is more bytes than most parts have beside their longest texts.
const usualPart = 64

// headSize is what stands before each part of an entry: its length, and how many events it has.
const headSize = 6

// Append appends events of a message to data, one for each recipient. One without recipients has one event.
func Append(data []byte, t Type, m Message, reply string, recipients ...string) []byte {
	if len(recipients) == 0 {
		recipients = []string{""}
	}
	for len(recipients) > mostTogether {
		data = appendPart(data, t, m, reply, recipients[:mostTogether])
		recipients = recipients[mostTogether:]
	}
	return appendPart(data, t, m, reply, recipients)
}

// OfTask are events of that type of all messages of a task of that kind with that payload, for eventsLeft in Lua. retried is how
// often asynq has tried the task.
func OfTask(kind, id string, payload []byte, retried int, t Type, reply string) []byte {
	data := []byte(oneMessage)
	if kind == wire.TaskTypeBulk {
		data = []byte(manyMessages)
	}
	one := func(id string, payload []byte) {
		start := len(data)
		data = append(data, 0, 0, 0, 0)
		data = OfPayload(data, id, payload, retried, t, reply)
		binary.BigEndian.PutUint32(data[start:], uint32(len(data)-start-4)) //nolint:gosec // no message has gigabytes of recipients
	}
	if kind != wire.TaskTypeBulk {
		one(id, payload)
		return data
	}
	index := 0
	for line := range wire.Lines(payload) {
		one(wire.MessageID(id, index), line)
		index++
	}
	return data
}

// OfPayload appends events of that type of a message, whose payload may be one that cannot be read.
func OfPayload(data []byte, id string, payload []byte, retried int, t Type, reply string) []byte {
	p, err := wire.Decode(payload, nil)
	if err != nil {
		return Append(data, t, Message{ID: id, Tries: retried}, reply)
	}
	return Append(data, t, Of(p, id, retried+p.Spent), reply, Recipients(p)...)
}

func appendPart(data []byte, t Type, m Message, reply string, recipients []string) []byte {
	start := len(data)
	data = slices.Grow(data, usualPart+len(m.ID)+len(m.MessageID)+len(reply)+32*len(recipients))
	data = append(data, 0, 0, 0, 0, 0, 0)
	data = append(data, t.number())
	data = binary.AppendUvarint(data, uint64(max(m.Tries, 0)))
	due := int64(0)
	if !m.Due.IsZero() {
		due = m.Due.UnixNano()
	}
	data = binary.AppendUvarint(data, uint64(max(due, 0)))
	data = packed.AppendText(data, m.ID, mostID)
	data = packed.AppendText(data, m.MessageID, mostID)
	data = packed.AppendText(data, m.Mailer, mostName)
	data = packed.AppendText(data, m.Mailing, mostName)
	tags := m.Tags[:min(len(m.Tags), mostTags)]
	data = append(data, byte(len(tags))) //nolint:gosec // a few
	for _, tag := range tags {
		data = packed.AppendText(data, tag, mostName)
	}
	data = packed.AppendText(data, reply, mostReply)
	for _, to := range recipients {
		data = packed.AppendText(data, to, mostAddress)
	}
	binary.BigEndian.PutUint32(data[start:], uint32(len(data)-start))   //nolint:gosec // the limits above make it less
	binary.BigEndian.PutUint16(data[start+4:], uint16(len(recipients))) //nolint:gosec // at most mostTogether
	return data
}

var errEntry = errors.New("events: an entry that cannot be read")

// decode reads the events of an entry of a queue's stream.
func decode(queue string, at time.Time, data string) (events []Event, err error) {
	place := wire.ParseQueueName(queue)
	for len(data) > 0 {
		if len(data) < headSize {
			return events, errEntry
		}
		size, n := int(binary.BigEndian.Uint32([]byte(data[:4]))), int(binary.BigEndian.Uint16([]byte(data[4:6])))
		if size < headSize || len(data) < size {
			return events, errEntry
		}
		these, ok := decodePart(place, at, data[headSize:size], n)
		if !ok {
			return events, errEntry
		}
		events, data = append(events, these...), data[size:]
	}
	return events, nil
}

func decodePart(place wire.QueueName, at time.Time, data string, n int) (events []Event, ok bool) {
	d := packed.Reader{Left: data}
	number := int(d.Byte())
	tries := int(d.Number()) //nolint:gosec // what is written is a number of tries
	due := int64(d.Number()) //nolint:gosec // what is written is a time
	task := d.Text()
	e := Event{At: at, EmailID: handover.MessageID(task), MessageID: d.Text(), Queue: place.Queue, Tries: tries}
	e.Mailer = cmp.Or(d.Text(), place.Mailer)
	e.Mailing = d.Text()
	for range d.Byte() {
		e.Tags = append(e.Tags, d.Text())
	}
	e.Reply = d.Text()
	if number >= len(types) || types[number] == "" {
		return nil, !d.Failed // of a newer version
	}
	e.Type = types[number]
	for range n {
		e.Recipient = d.Text()
		e.ID = eventID(task, due, e.Type, tries, e.Recipient)
		events = append(events, e)
	}
	return events, !d.Failed
}
