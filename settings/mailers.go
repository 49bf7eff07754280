package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Names is the list of the mailers beside the default one, which has no name.
type Names []string

// UnmarshalText reads names separated by commas.
func (n *Names) UnmarshalText(text []byte) error {
	var all Names
	for name := range strings.SplitSeq(string(text), ",") {
		all = append(all, strings.TrimSpace(name))
	}
	*n = all
	return nil
}

// String writes the names separated by commas.
func (n Names) String() string { return strings.Join(n, ",") }

// named is what the environment says of one mailer beside the default one.
type named struct {
	name string
	own  Settings        // only the fields with the tag mailer count
	set  map[string]bool // those that are set, by the default mailer's variable
}

// Mailers returns the names of the mailers beside the default one, in the order of
// EMAIL_MAILERS; nil if there are none.
func (s Settings) Mailers() []string { return slices.Clone(s.Delivery.Mailers) }

// DefaultMailer is another name for the mailer without one.
const DefaultMailer = "default"

// Named returns the settings as the mailer of that name has them, "" or DefaultMailer
// being the default one, which is s as it is. Using is the name; SMTP, Delivery.Backend and FilePath,
// Worker.Backend and Connections are the mailer's. What says whom it talks to, and as
// whom, is its own; the rest it takes from s unless it is set for this mailer.
//
// Delivery.Backend is how a program delivers that does so itself. One that leaves its
// mail to a worker hands over the name, and needs no more than Mailers.
//
// The error is an UnknownMailerError, or Problems if no more than the name is known: a
// mailer that should say where its mail goes does not.
func (s Settings) Named(name string) (Settings, error) {
	if name == "" || name == DefaultMailer {
		s.Using = ""
		return s, nil
	}
	if !slices.Contains(s.Delivery.Mailers, name) {
		return Settings{}, &UnknownMailerError{Name: name, Nearest: Nearest(name, s.Delivery.Mailers), Known: s.Mailers()}
	}
	n := s.as(name)
	var problems Problems
	if n.checkHost(&problems); len(problems) > 0 {
		return Settings{}, problems
	}
	return n, nil
}

// find returns what is known of a mailer, which may be no more than its name.
func (s Settings) find(name string) named {
	i := slices.IndexFunc(s.named, func(m named) bool { return m.name == name })
	if i < 0 {
		return newNamed(name)
	}
	return s.named[i]
}

// newNamed returns a mailer for which nothing is set.
func newNamed(name string) named {
	m := named{name: name}
	m.own.Using = name
	for _, f := range m.own.readable() {
		_ = f.decode(false)
	}
	m.own.SMTP.Hosts = nil // the default mailer's would be a guess
	return m
}

// isNameOnly says whether no variable of the mailer is set.
func (m named) isNameOnly() bool {
	return !slices.Contains(slices.Collect(maps.Values(m.set)), true)
}

// as is Named for a name that is known.
func (s Settings) as(name string) Settings {
	m := s.find(name)
	s.Using = name
	from := mailerFields(&m.own, name)
	for i, f := range mailerFields(&s, name) {
		if !f.shared() || m.set[f.key] {
			f.value.Set(from[i].value)
		}
	}
	s.SMTP.Hosts = slices.Clone(s.SMTP.Hosts) // m.own goes on being used
	s.Worker.Backend = s.Delivery.Backend
	return s
}

// mailers returns the settings of the default mailer and of each other one.
func (s Settings) mailers() []Settings {
	all := make([]Settings, 0, 1+len(s.named))
	all = append(all, s)
	for _, m := range s.named {
		all = append(all, s.as(m.name))
	}
	return all
}

// mailerFields returns the settings that each mailer has, under the names of the
// variables that this one reads.
func mailerFields(s *Settings, name string) []field {
	var all []field
	for _, f := range fields(s) {
		if _, ok := f.tag("mailer"); ok {
			f.group, f.name = "mailer "+name, mailerVariable(name, f.key)
			all = append(all, f)
		}
	}
	return all
}

// shared says whether a mailer for which the field is not set has the default mailer's.
func (f field) shared() bool {
	mode, _ := f.tag("mailer")
	return mode == "shared"
}

// mailerPrefix is what the variables of a mailer begin with.
func mailerPrefix(name string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_"
}

// mailerVariable is the variable of a mailer for what the default one's sets.
func mailerVariable(name, variable string) string {
	if name == "" {
		return variable
	}
	return mailerPrefix(name) + strings.TrimPrefix(variable, prefix)
}

// Variable returns the variable that sets, for this mailer, what the given one sets for the
// default mailer: the one to name to a person who is to set it.
func (s Settings) Variable(name string) string { return s.variable(name) }

// variable returns the variable from which these settings have what the given one says
// for the default mailer. Rules are written with the default mailer's names.
func (s Settings) variable(name string) string {
	own := name
	for _, f := range mailerFields(&Settings{}, s.Using) {
		if f.key == name && s.Using != "" {
			if _, set := s.read[f.name]; set || !f.shared() {
				own = f.name
			}
		}
	}
	if s.read[own].source == FromURL {
		return mailerVariable(s.Using, urlVariable)
	}
	return own
}

// checkNames refuses the names that cannot be told apart, or whose variables already
// mean something.
func (s Settings) checkNames(p *Problems) {
	for i, name := range s.Delivery.Mailers {
		if err := checkName(name, s.Delivery.Mailers[:i]); err != nil {
			p.add(namesVariable, "%v", err)
		}
	}
}

const namesVariable = "EMAIL_MAILERS"

func checkName(name string, before []string) error {
	if !isMailerName(name) {
		return fmt.Errorf("%q is not a mailer's name; use lower-case letters and digits, with - or _ inside", name)
	}
	if name == DefaultMailer {
		return fmt.Errorf("%q is what the mailer without a name is called; leave it out", name)
	}
	for _, f := range fields(&Settings{}) {
		if strings.HasPrefix(f.name, mailerPrefix(name)) {
			return fmt.Errorf("%q cannot be a mailer's name, because %s is another setting", name, f.name)
		}
	}
	taken := map[string]string{}
	for _, other := range before {
		for _, f := range mailerFields(&Settings{}, other) {
			taken[f.name] = other
		}
	}
	if slices.Contains(before, name) {
		return fmt.Errorf("%q is named twice", name)
	}
	for _, f := range mailerFields(&Settings{}, name) {
		if other, ok := taken[f.name]; ok {
			return fmt.Errorf("%q and %q cannot be told apart: both would read %s", other, name, f.name)
		}
	}
	return nil
}

func isMailerName(name string) bool {
	inner := func(r rune) bool { return r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }
	return name != "" && strings.Trim(name, "-_") == name && !strings.ContainsFunc(name, func(r rune) bool { return !inner(r) })
}

// goodNames returns the names that checkNames has nothing against.
func (s Settings) goodNames() []string {
	var good []string
	for i, name := range s.Delivery.Mailers {
		if checkName(name, s.Delivery.Mailers[:i]) == nil {
			good = append(good, name)
		}
	}
	return good
}

// UnknownMailerError says that no mailer of a name is configured.
type UnknownMailerError struct {
	Name    string
	Nearest string   // the name that was most likely meant, or ""
	Known   []string // the names of EMAIL_MAILERS, in its order
}

func (e *UnknownMailerError) Error() string {
	text := fmt.Sprintf("settings: the mailer %q is not configured", e.Name)
	if e.Nearest != "" {
		text += fmt.Sprintf("; did you mean %s?", e.Nearest)
	}
	if len(e.Known) == 0 {
		return text + ": EMAIL_MAILERS names none"
	}
	return text + " (EMAIL_MAILERS has " + strings.Join(e.Known, ", ") + ")"
}

// readMailer reads the variables of one mailer.
func (s *Settings) readMailer(name string, problems *Problems, l Loader) {
	m := newNamed(name)
	m.own.read = s.read
	set := m.own.decode(problems, l)
	m.own.normalise()
	m.own.remember(FromEnvironment, func(f field) bool { return set[f.name] })
	m.set = map[string]bool{}
	for _, f := range m.own.readable() {
		m.set[f.key] = set[f.name]
	}
	if !m.set["EMAIL_HOST"] {
		m.own.SMTP.Hosts = nil
	}
	if !m.set["EMAIL_PORT"] {
		m.own.SMTP.Port = m.own.SMTP.usualPort()
	}
	m.own.useURL(problems)
	m.own.read = nil
	s.named = append(s.named, m)
}

// The ports of RFC 5321, of message submission (RFC 6409), and of submission with TLS
// from the first octet (RFC 8314).
const (
	portPlain    = 25
	portStartTLS = 587
	portTLS      = 465
)

// usualPort is the one that goes with the kind of TLS.
func (c SMTP) usualPort() int {
	switch {
	case c.UseSSL:
		return portTLS
	case c.UseTLS:
		return portStartTLS
	}
	return portPlain
}

// checkHost reports a mailer that does not say where its mail goes.
func (s Settings) checkHost(p *Problems) {
	host, link := s.variable("EMAIL_HOST"), mailerVariable(s.Using, urlVariable)
	if s.Worker.Backend == "smtp" && len(s.SMTP.Hosts) == 0 && !p.concern(host, link) {
		p.add(host, "the smtp backend needs a host here, or %s", link)
	}
}
