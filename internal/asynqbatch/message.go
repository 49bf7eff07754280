package asynqbatch

import (
	"encoding/binary"
	"time"
)

// Message is what asynq's protocol buffer of a task says, as far as anybody but asynq asks.
type Message struct {
	Type       string
	Payload    []byte
	LastError  string    // the text of the last failure
	LastFailed time.Time // zero if there was none
	Retried    int
	Retention  time.Duration
}

// The numbers of more fields of asynq's protocol buffer of a task.
const (
	fieldType       = 1
	fieldPayload    = 2
	fieldRetried    = 6
	fieldError      = 7
	fieldLastFailed = 11

	wireVarint = 0
	wireBytes  = 2
)

// ReadMessage reads the field msg of a task's record. It is false if that is none.
func ReadMessage(message string) (m Message, ok bool) {
	for len(message) > 0 {
		tag, n := uvarint(message)
		value, k := uvarint(message[n:])
		if n == 0 || k == 0 {
			return m, false
		}
		message = message[n+k:]
		data := ""
		switch kind := tag & 7; {
		case kind == wireVarint:
		case kind == wireBytes && value <= uint64(len(message)):
			data, message = message[:value], message[value:]
		default:
			return m, false
		}
		switch tag >> 3 { // of fields that are there twice, the last one counts
		case fieldType:
			m.Type = data
		case fieldPayload:
			m.Payload = []byte(data)
		case fieldError:
			m.LastError = data
		case fieldRetried:
			m.Retried = int(value) //nolint:gosec // asynq wrote it
		case fieldLastFailed:
			if m.LastFailed = (time.Time{}); value > 0 {
				m.LastFailed = time.Unix(int64(value), 0) //nolint:gosec // asynq wrote it
			}
		case fieldRetention:
			m.Retention = time.Duration(value) * time.Second //nolint:gosec // asynq wrote it
		}
	}
	return m, true
}

// Failed is what makes the field msg of a task's record say why the task has failed last, and when, if it is appended
// to that: protocol buffers take the last one of a field. So a script can do it without the rest.
func Failed(reason string, at time.Time) string {
	data := binary.AppendUvarint(nil, fieldError<<3|wireBytes)
	data = binary.AppendUvarint(data, uint64(len(reason)))
	data = append(data, reason...)
	data = binary.AppendUvarint(data, fieldLastFailed<<3|wireVarint)
	return string(binary.AppendUvarint(data, uint64(at.Unix()))) //nolint:gosec // no time before 1970
}

// WithPayload returns the field msg of a task's record with another payload.
func WithPayload(message string, payload []byte) []byte {
	data := make([]byte, 0, len(payload)+200)
	for rest := message; rest != ""; {
		number, _, length := field(rest)
		if length == 0 {
			break // what cannot be read stays out
		}
		if number != fieldPayload {
			data = append(data, rest[:length]...)
		}
		rest = rest[length:]
	}
	data = binary.AppendUvarint(data, fieldPayload<<3|wireBytes)
	data = binary.AppendUvarint(data, uint64(len(payload)))
	return append(data, payload...)
}
