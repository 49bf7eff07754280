package settings

import (
	"fmt"
	"strings"
)

// Setting describes one setting.
type Setting struct {
	Group       string
	Name        string // of the variable
	Value       string // secrets redacted
	Default     string
	Source      Source
	File        string // that the value came from, if Source is FromFile
	Description string // what it does and which values it takes
}

// Describe returns every setting of s with its value and the source of the value, group by
// group. The settings of the mailers that EMAIL_MAILERS names follow, mailer by mailer.
func Describe(s Settings) []Setting {
	unset := Default()
	all := s.describe(fields(&s), fields(&unset))
	bare := s
	bare.named = nil
	for _, m := range s.mailers()[1:] {
		unset := bare.as(m.Using)
		unset.SMTP.Port = m.SMTP.usualPort()
		all = append(all, m.describe(m.readable(), unset.readable())...)
	}
	return all
}

// describe describes fields. defaults are the same fields with nothing set.
func (s Settings) describe(all, defaults []field) []Setting {
	described := make([]Setting, len(all))
	for i, f := range all {
		d := Setting{
			Group: f.group, Name: f.name, Value: f.show(), Default: defaults[i].show(),
			Source: FromProgram, Description: f.describe(),
		}
		read, ok := s.read[f.name]
		switch {
		case ok && read.value == d.Value:
			d.Source, d.File = read.source, read.file
		case !ok && d.Value == d.Default && s.Using != "" && f.shared():
			d.Source = FromDefaultMailer
		case !ok && d.Value == d.Default:
			d.Source = FromDefault
		}
		described[i] = d
	}
	return described
}

// describe is the field's description with the values that are allowed.
func (f field) describe() string {
	desc, _ := f.tag("desc")
	low, hasMin := f.tag("min")
	high, hasMax := f.tag("max")
	oneof, hasOneof := f.tag("oneof")
	if file := f.fileVariable(); file != "" {
		desc += ". It may be in a file instead, which " + file + " names"
	}
	switch {
	case hasMin && hasMax:
		return fmt.Sprintf("%s (%s to %s)", desc, low, high)
	case hasOneof:
		return fmt.Sprintf("%s (%s)", desc, strings.ReplaceAll(oneof, ",", ", "))
	}
	return desc
}

// Markdown returns a table of settings for each group, and how named mailers are set. The
// project's documentation has it.
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
	b.WriteString("\n" + aboutMailers + "\n" + mailerRow() + "\n")
	return b.String()
}

const aboutMailers = `**Named mailers**

EMAIL_MAILERS names the mailers beside the default one. Each has its own settings: for
marketing they begin with EMAIL_MARKETING_, for eu-west with EMAIL_EU_WEST_. A mailer never
takes the default mailer's backend, server, login, TLS, certificates or directory. It has to
name its host or its URL; its port is 587 with EMAIL_MARKETING_USE_TLS, 465 with
EMAIL_MARKETING_USE_SSL, else 25. All other settings are the default mailer's unless they are
set. A program that leaves its mail to a worker (EMAIL_BACKEND=queue) needs only the names. A
secret of theirs may be in a file too: EMAIL_MARKETING_HOST_PASSWORD_FILE.

| name | default | meaning |
|---|---|---|`

// mailerRow is the one table row about the settings of named mailers.
func mailerRow() string {
	var own, shared []string
	for _, f := range mailerFields(&Settings{}, "x") {
		end := "`" + strings.TrimPrefix(f.key, prefix) + "`"
		if f.shared() {
			shared = append(shared, end)
		} else {
			own = append(own, end)
		}
	}
	return fmt.Sprintf("| `EMAIL_<NAME>_...` |  | of its own: %s; the default mailer's unless set: %s |",
		strings.Join(own, ", "), strings.Join(shared, ", "))
}
