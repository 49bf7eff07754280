// Package name holds the one rule for the names of queues, mailers and mailings. What programs take, workers and settings
// take too.
package name

import "strings"

// Rule says what Is asks for.
const Rule = "letters of the English alphabet, digits, - and _"

// Is reports whether a queue, a mailer or a mailing can have that name. Braces would
// change the slot of asynq's keys; dots, colons and tildes part the names of asynq's queues;
// commas, colons, semicolons and equals signs are how people part the entries of a list.
func Is(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}
