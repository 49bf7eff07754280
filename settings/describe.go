package settings

import (
	"fmt"
	"strings"
)

// Source says where the value of a setting comes from.
type Source string

// The sources of a value.
const (
	FromDefault     Source = "default"
	FromEnvironment Source = "environment"
	FromProgram     Source = "program" // put into Settings after Load
)

// Setting is one setting in words.
type Setting struct {
	Group       string
	Name        string // of the variable
	Value       string // secrets redacted
	Default     string
	Source      Source
	Description string // what it does and what it may be
}

// Describe returns every setting with its value and where that comes from, group by
// group.
func Describe(s Settings) []Setting {
	unset := Default()
	defaults := fields(&unset)
	all := make([]Setting, 0, len(defaults))
	for i, f := range fields(&s) {
		def, _ := f.tag("default")
		d := Setting{
			Group: f.group, Name: f.name, Value: f.show(), Default: def,
			Source: FromProgram, Description: f.describe(),
		}
		read, ok := s.read[f.name]
		switch {
		case ok && read == d.Value:
			d.Source = FromEnvironment
		case !ok && d.Value == defaults[i].show():
			d.Source = FromDefault
		}
		all = append(all, d)
	}
	return all
}

// describe is the field's description with what is allowed.
func (f field) describe() string {
	desc, _ := f.tag("desc")
	low, hasMin := f.tag("min")
	high, hasMax := f.tag("max")
	oneof, hasOneof := f.tag("oneof")
	switch {
	case hasMin && hasMax:
		return fmt.Sprintf("%s (%s to %s)", desc, low, high)
	case hasOneof:
		return fmt.Sprintf("%s (%s)", desc, strings.ReplaceAll(oneof, ",", ", "))
	}
	return desc
}

// Markdown returns the tables of all settings for the README, one for each group.
func Markdown() string {
	var b strings.Builder
	escape := strings.NewReplacer("|", `\|`, "<", `\<`)
	group := ""
	for _, d := range Describe(Default()) {
		if d.Group != group {
			if group != "" {
				b.WriteByte('\n')
			}
			group = d.Group
			fmt.Fprintf(&b, "**%s**\n\n| name | default | meaning |\n|---|---|---|\n", group)
		}
		def := ""
		if d.Default != "" {
			def = "`" + d.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", d.Name, def, escape.Replace(d.Description))
	}
	return b.String()
}
