package asynqbatch

import "encoding/binary"

// The numbers of fields of asynq's protocol buffer of a task.
const (
	fieldUniqueKey = 10
	fieldRetention = 12
)

// vanishes reports whether asynq keeps nothing of a task that has ended: not the task itself for
// a while, nor a lock that has to go with it.
func vanishes(message string) bool {
	for len(message) > 0 {
		tag, n := uvarint(message)
		value, m := uvarint(message[n:])
		if n == 0 || m == 0 {
			return false
		}
		if number := tag >> 3; value > 0 && (number == fieldUniqueKey || number == fieldRetention) {
			return false
		}
		message = message[n+m:]
		switch kind := tag & 7; {
		case kind == 0: // a number
		case kind == 2 && value <= uint64(len(message)): // as many bytes
			message = message[value:]
		default:
			return false
		}
	}
	return true
}

// uvarint is binary.Uvarint of a string, which is not copied. n is 0 if it does not begin with one.
func uvarint(s string) (value uint64, n int) {
	value, n = binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
	return value, max(n, 0)
}
