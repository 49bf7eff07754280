package tasks

import "github.com/mailpouch/mailpouch/internal/wire"

// outcomeOf is how a message ends whose record is in the ledger.
func outcomeOf(data string) (outcome, error) {
	r, err := wire.DecodeRecord(data)
	switch {
	case err != nil:
		return outcome{again: true}, err
	case r.Moved:
		return outcome{moved: true, rest: r.Rest}, nil
	}
	return outcome{result: r.Result(), again: true}, nil
}
