package main

import (
	"fmt"
	"strings"

	"github.com/mailpouch/mailpouch/internal/cli"
)

// submission is what a command line of sendmail(8) says.
type submission struct {
	fromHeader bool    // -t: the recipients are in the header
	sender     *string // -f, -r: of the envelope; nil if not given
	name       string  // -F: of the sender
	dots       bool    // -i: a line with a dot alone does not end the message
	verbose    bool    // -v

	recipients []string
	long       []string // the options with two dashes, which are the queue's
}

// The one-letter options of sendmail(8), as Sendmail, Postfix and Exim know them. Except for
// those in set and setValue they have no meaning for a queue, or are done anyway.
const (
	lettersWithValue = "ABCFLNORVXbefhopr"
	lettersAlone     = "EGUimnstvx"
)

// parseSubmission reads a command line as sendmail does: letters may be bundled, a
// value may follow at once or as the next argument, and options end at the first
// recipient or at "--". takesValue reports whether an option with two dashes has a value.
// An unknown letter is refused: the next argument might be its value, and not a recipient.
func parseSubmission(args []string, takesValue func(long string) bool) (submission, error) {
	var s submission
	next := func() (string, bool) {
		if len(args) == 0 {
			return "", false
		}
		value := args[0]
		args = args[1:]
		return value, true
	}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg, _ := next()
		switch {
		case arg == "--":
			s.recipients = args
			return s, nil
		case strings.HasPrefix(arg, "--"):
			s.long = append(s.long, arg)
			if !strings.Contains(arg, "=") && takesValue(arg[2:]) {
				value, ok := next()
				if !ok {
					return s, cli.Exitf(cli.ExitUsage, "%s: a value is expected", arg)
				}
				s.long = append(s.long, value)
			}
		default:
			if err := s.letters(arg[1:], next); err != nil {
				return s, cli.Exit(cli.ExitUsage, err)
			}
		}
	}
	for _, r := range args {
		if strings.HasPrefix(r, "-") {
			return s, cli.Exitf(cli.ExitUsage, "%s: options come before the recipients", r)
		}
	}
	s.recipients = args
	return s, nil
}

// letters reads a bundle such as "ti" or "fann@example.com".
func (s *submission) letters(bundle string, next func() (string, bool)) error {
	for bundle != "" {
		letter := bundle[0]
		bundle = bundle[1:]
		switch {
		case strings.IndexByte(lettersAlone, letter) >= 0:
			s.set(letter)
		case letter == 'd': // debugging: the rest, if any, says of what
			return nil
		case letter == 'q', letter == 'I':
			return fmt.Errorf("-%c: there is no queue or alias file to run: only messages are taken, on standard input", letter)
		case strings.IndexByte(lettersWithValue, letter) >= 0:
			if bundle == "" {
				var ok bool
				if bundle, ok = next(); !ok {
					return fmt.Errorf("-%c: a value is expected", letter)
				}
			}
			return s.setValue(letter, bundle)
		default:
			return fmt.Errorf("-%c: no such option", letter)
		}
	}
	return nil
}

func (s *submission) set(letter byte) {
	switch letter {
	case 't':
		s.fromHeader = true
	case 'i':
		s.dots = true
	case 'v':
		s.verbose = true
	}
}

func (s *submission) setValue(letter byte, value string) error {
	switch letter {
	case 'f', 'r':
		s.sender = &value
	case 'F':
		s.name = value
	case 'b':
		if value != "m" {
			return fmt.Errorf("-b%s: only -bm is possible: a message on standard input", value)
		}
	case 'o':
		s.dots = s.dots || value == "i"
	case 'O':
		name, yes, _ := strings.Cut(strings.ToLower(value), "=")
		s.dots = s.dots || name == "ignoredots" && !strings.HasPrefix(yes, "f")
	}
	return nil
}
