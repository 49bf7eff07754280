package history

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/packed"
	"github.com/mailpouch/mailpouch/internal/redact"
)

// State is what became of a message.
type State byte

// The states. Their numbers are in Redis.
const (
	Sent      State = iota + 1 // the relay has accepted it
	Skipped                    // it had no recipients left
	Silent                     // its one try has failed, and it was handed over so
	Cancelled                  // taken back before it was on the wire
	Dead                       // a dead letter
	Replayed                   // a dead letter that was queued again: Reply is the ID of its new task
	Deleted                    // a dead letter that was removed by hand
)

// Record is what is kept of a message, or of those of its recipients whom it is about.
type Record struct {
	State     State
	Queue     string    // asynq's name of it
	ID        string    // of the message's task, or its own in a task of many
	MessageID string    // as in its header
	Mailing   string    // that it belongs to
	Tags      []string  //
	Due       time.Time // when it was to be sent first
	At        time.Time // when this became of it
	Tries     int       // that it had
	Reply     string    // the relay's, or why it failed; without addresses
	Member    string    // the mailer that it went with, if its own has members

	// To are the recipients, masked: the first ten of so many as Recipients says.
	To         []string
	Recipients int

	hashes []byte // hashSize of each recipient
	raw    string // the bytes that it was read from
}

// hasMember in the byte of the state says that the record has a member.
const hasMember = 0x80

// The most that a record holds of a text.
const (
	mostID        = 300
	mostMessageID = 250
	mostReply     = 300
	mostTo        = 10
	mostHashed    = 1000
	mostName      = 100
	mostTags      = 20
)

// Append appends the record to data. Recipients are addresses in full, for the hash; key may be nil: then nobody finds
// the record by them.
func (r Record) Append(data []byte, recipients []string, key *Secret) []byte {
	start := len(data)
	data = append(data, 0, 0) // the length of what follows
	state := byte(r.State)
	if r.Member != "" {
		state |= hasMember
	}
	data = append(data, state)
	data = binary.AppendUvarint(data, uint64(max(r.At.Unix(), 0)))
	data = binary.AppendUvarint(data, uint64(max(int64(r.At.Sub(r.Due)/time.Second), 0)))
	data = binary.AppendUvarint(data, uint64(max(r.Tries, 0)))
	data = packed.AppendText(data, r.ID, mostID)
	data = packed.AppendText(data, r.MessageID, mostMessageID)
	data = packed.AppendText(data, r.Mailing, mostName)
	tags := r.Tags[:min(len(r.Tags), mostTags)]
	data = append(data, byte(len(tags))) //nolint:gosec // a few
	for _, tag := range tags {
		data = packed.AppendText(data, tag, mostName)
	}
	data = packed.AppendText(data, r.Reply, mostReply)
	if r.Member != "" {
		data = packed.AppendText(data, r.Member, mostName)
	}
	data = binary.AppendUvarint(data, uint64(len(recipients)))
	for _, to := range recipients[:min(len(recipients), mostTo)] {
		data = packed.AppendText(data, redact.Address(to), mostName)
	}
	if key != nil {
		for _, to := range recipients[:min(len(recipients), mostHashed)] {
			data = key.append(data, to)
		}
	}
	binary.BigEndian.PutUint16(data[start:], uint16(len(data)-start-2)) //nolint:gosec // the limits above make it less
	return data
}

var errRecord = errors.New("history: a record that cannot be read")

// Decode reads the records of an entry of a queue's list.
func Decode(queue string, entry string) ([]Record, error) {
	var records []Record
	for len(entry) > 0 {
		if len(entry) < 2 {
			return records, errRecord
		}
		n := int(entry[0])<<8 | int(entry[1])
		if len(entry) < 2+n {
			return records, errRecord
		}
		r, ok := decodeOne(entry[2 : 2+n])
		if !ok {
			return records, errRecord
		}
		r.Queue, r.raw = queue, entry[:2+n]
		records, entry = append(records, r), entry[2+n:]
	}
	return records, nil
}

func decodeOne(data string) (r Record, ok bool) {
	d := packed.Reader{Left: data}
	state := d.Byte()
	r.State = State(state &^ hasMember)
	at := int64(d.Number()) //nolint:gosec // what is written is a time
	r.At = time.Unix(at, 0).UTC()
	r.Due = r.At.Add(-time.Duration(d.Number()) * time.Second) //nolint:gosec // what is written is a duration
	r.Tries = int(d.Number())                                  //nolint:gosec // what is written is a number of tries
	r.ID, r.MessageID, r.Mailing = d.Text(), d.Text(), d.Text()
	for range d.Byte() {
		r.Tags = append(r.Tags, d.Text())
	}
	r.Reply = d.Text()
	if state&hasMember != 0 {
		r.Member = d.Text()
	}
	r.Recipients = int(d.Number()) //nolint:gosec // what is written is a length
	for range min(r.Recipients, mostTo) {
		r.To = append(r.To, d.Text())
	}
	r.hashes = []byte(d.Left)
	return r, !d.Failed
}

// isFor reports whether the record is about the recipient with that hash.
func (r Record) isFor(hash string) bool {
	for h := range slices.Chunk(r.hashes, hashSize) {
		if string(h) == hash {
			return true
		}
	}
	return false
}
