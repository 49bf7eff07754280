package settings

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a setting.
type Problem struct {
	Name string // of the variable
	Text string // what is wrong and what is allowed; never a secret
}

// Error returns one line: the variable and what is wrong with it.
func (p Problem) Error() string { return p.Name + ": " + p.Text }

// fileSuffix makes of the name of a secret's variable that of the variable which names a file with the secret.
const fileSuffix = "_FILE"

// Problems is everything that is wrong with the settings: the error of Load, Validate and
// CheckWorker, and of Named for a mailer without a host.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// err is p as an error: nil if there are no problems.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

func (p *Problems) add(name, format string, args ...any) {
	*p = append(*p, Problem{Name: name, Text: fmt.Sprintf(format, args...)})
}

// has reports whether one of the variables, or that of its file, is among the problems. Rules about several
// settings ask it first: a problem that only follows from another one is not reported.
func (p Problems) has(names ...string) bool {
	return slices.ContainsFunc(p, func(problem Problem) bool {
		return slices.Contains(names, problem.Name) || slices.Contains(names, strings.TrimSuffix(problem.Name, fileSuffix))
	})
}
