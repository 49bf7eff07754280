package cli

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"
)

// NameVar adds a flag whose value is a name, or another text by which something is chosen, and may not be empty: an empty value
// is mostly a variable of a script that was never set, and would choose everything.
func NameVar(flags *pflag.FlagSet, p *string, name, usage string) {
	flags.Var((*nameValue)(p), name, usage)
}

type nameValue string

func (v *nameValue) String() string { return string(*v) }
func (v *nameValue) Type() string   { return "string" }

func (v *nameValue) Set(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("it is empty: leave the flag out, or give it a value")
	}
	*v = nameValue(text)
	return nil
}
