// Package manpage writes the manual pages of a command from its cobra commands, in the
// man macros of roff: a page for each command, such as enqueue-dead-list.1.
package manpage

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mailpouch/mailpouch/settings"
)

// Page is one manual page.
type Page struct {
	Name string // of its file: enqueue-send.1
	Text string
}

// Info is what the pages say beside the commands.
type Info struct {
	Date     time.Time
	Version  string
	Settings []settings.Setting // the environment, on the page of the root
}

// Pages returns the pages of a command and all commands under it, but for hidden ones.
func Pages(c *cobra.Command, info Info) []Page {
	pages := []Page{{Name: pageName(c) + ".1", Text: page(c, info)}}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			pages = append(pages, Pages(sub, info)...)
		}
	}
	return pages
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func page(c *cobra.Command, info Info) string {
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	var w writer
	w.line(fmt.Sprintf(`.TH "%s" "1" "%s" "Mailpouch %s" "Mailpouch"`, strings.ToUpper(pageName(c)), info.Date.UTC().Format(time.DateOnly), info.Version))
	w.macro(".SH", "NAME")
	w.line(pageName(c) + ` \- ` + escape(c.Short))
	w.macro(".SH", "SYNOPSIS")
	if c.HasAvailableSubCommands() {
		w.bold(c.CommandPath() + " COMMAND")
	} else {
		w.bold(c.UseLine())
	}
	w.macro(".SH", "DESCRIPTION")
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	w.text(long)
	w.commands(c)
	w.flags("OPTIONS", c.NonInheritedFlags())
	w.flags("OPTIONS OF ALL COMMANDS", c.InheritedFlags())
	if !c.HasParent() {
		w.environment(info.Settings)
	}
	if c.Example != "" {
		w.macro(".SH", "EXAMPLES")
		w.text(c.Example)
	}
	w.seeAlso(c)
	return w.b.String()
}

// writer writes roff.
type writer struct{ b strings.Builder }

func (w *writer) line(s string) { w.b.WriteString(s + "\n") }

// macro writes a request with its arguments, each in quotes.
func (w *writer) macro(name string, args ...string) {
	for _, a := range args {
		name += ` "` + strings.ReplaceAll(escape(a), `"`, `\(dq`) + `"`
	}
	w.line(name)
}

func (w *writer) bold(s string) { w.macro(".B", s) }

// text writes paragraphs. Those with lines that begin with white space stay as they are.
func (w *writer) text(s string) {
	for i, paragraph := range strings.Split(strings.Trim(s, "\n"), "\n\n") {
		if i > 0 {
			w.line(".PP")
		}
		literal := strings.HasPrefix(paragraph, " ") || strings.Contains(paragraph, "\n ")
		if literal {
			w.line(".nf")
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			w.line(guard(escape(line)))
		}
		if literal {
			w.line(".fi")
		}
	}
}

func (w *writer) commands(c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	w.macro(".SH", "COMMANDS")
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			w.line(".TP")
			w.bold(sub.Name())
			w.line(guard(escape(sub.Short)) + ".")
		}
	}
}

func (w *writer) flags(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	w.macro(".SH", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		w.line(".TP")
		head := `\fB` + escape(name) + `\fR`
		if value != "" {
			head += ` \fI` + escape(value) + `\fR`
		}
		w.line(head)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
			usage += fmt.Sprintf(" (default: %s)", f.DefValue)
		}
		w.line(guard(escape(usage)) + ".")
	})
}

func (w *writer) environment(all []settings.Setting) {
	if len(all) == 0 {
		return
	}
	w.macro(".SH", "ENVIRONMENT")
	for _, s := range all {
		w.line(".TP")
		w.bold(s.Name)
		text := s.Description
		if s.Default != "" {
			text += fmt.Sprintf(" (default: %s)", s.Default)
		}
		w.line(guard(escape(text)) + ".")
	}
}

func (w *writer) seeAlso(c *cobra.Command) {
	var names []string
	if c.HasParent() {
		names = append(names, pageName(c.Parent()))
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, pageName(sub))
		}
	}
	if len(names) == 0 {
		return
	}
	w.macro(".SH", "SEE ALSO")
	for i, name := range names {
		comma := ","
		if i == len(names)-1 {
			comma = ""
		}
		w.macro(".BR", name, "(1)"+comma)
	}
}

// escape writes text so that roff shows it as it is. Characters beyond ASCII have
// names there.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '\t':
			b.WriteString("    ")
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// guard keeps a line from being taken for a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}
