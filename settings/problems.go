package settings

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with the environment.
type Problem struct {
	Name string // of the variable
	Text string // what is wrong with it and what is allowed; never a secret
}

// Error is one line: the variable and what is wrong with it.
func (p Problem) Error() string { return p.Name + ": " + p.Text }

// Problems is everything that is wrong with the environment: the error of Load and
// of Validate.
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

// concern says whether one of the variables is known to be wrong. Rules about several
// settings ask it first: what follows from another problem is no news.
func (p Problems) concern(names ...string) bool {
	for _, problem := range p {
		for _, name := range names {
			if problem.Name == name {
				return true
			}
		}
	}
	return false
}
