package asynqbatch

import "encoding/binary"

// The numbers of fields of asynq's protocol buffer of a task.
const (
	fieldTimeout   = 8
	fieldDeadline  = 9
	fieldUniqueKey = 10
	fieldRetention = 12
)

// vanishes reports whether asynq keeps nothing of a task that has ended: not the task itself for
// a while, nor a lock that has to go with it.
func vanishes(message string) bool {
	for len(message) > 0 {
		number, value, n := field(message)
		if n == 0 || value > 0 && (number == fieldUniqueKey || number == fieldRetention) {
			return false
		}
		message = message[n:]
	}
	return true
}

// uvarint is binary.Uvarint of a string, which is not copied. n is 0 if it does not begin with one.
func uvarint(s string) (value uint64, n int) {
	value, n = binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
	return value, max(n, 0)
}

// field reads the first field of a protocol buffer: its number, its value if that is a number and else its length, and how
// many bytes it takes, 0 if it cannot be read.
func field(message string) (number, value uint64, length int) {
	tag, n := uvarint(message)
	value, m := uvarint(message[n:])
	if n == 0 || m == 0 {
		return 0, 0, 0
	}
	length = n + m
	switch kind := tag & 7; {
	case kind == 0: // a number
	case kind == 2 && value <= uint64(len(message)-length): //nolint:gosec // as many bytes, which are not fewer than none
		length += int(value) //nolint:gosec // no more than the message has
	default:
		return 0, 0, 0
	}
	return tag >> 3, value, length
}
