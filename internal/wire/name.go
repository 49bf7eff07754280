package wire

import "strings"

// NameRule says what IsName asks for.
const NameRule = "letters of the English alphabet, digits, - and _"

// IsName reports whether a queue or a mailer can have that name. It is the one rule for
// programs, workers and settings: what one of them takes the others take too. Braces would
// change the slot of asynq's keys; dots, colons and tildes part the names of asynq's queues;
// commas, colons, semicolons and equals signs are how people part the entries of a list.
func IsName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}
