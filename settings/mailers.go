package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Mailers returns the names of the mailers beside the default one, in the order of
// EMAIL_MAILERS; nil if there are none.
func (s Settings) Mailers() []string { return slices.Clone(s.Delivery.Mailers) }

// DefaultMailer names the default mailer, as "" does.
const DefaultMailer = "default"

// Named returns the settings of the mailer of that name. For "" and DefaultMailer they are s
// itself. For another mailer Using is its name, and SMTP, Delivery.Backend, Delivery.FilePath,
// Delivery.Members, Delivery.Policy, Worker.Backend and Worker.Connections are the mailer's: backend, server, login, TLS,
// certificates and directory are always its own, the rest is that of s unless the mailer sets it.
//
// A program that delivers itself uses Delivery.Backend. One that leaves its mail to a worker
// passes on only the name, so Mailers is all it needs.
//
// The error is an *UnknownMailerError if EMAIL_MAILERS does not have the name, or a Problems if
// the mailer has the smtp backend and neither a host nor a URL.
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

// connectionsVariable is the setting whose number is kept if it is set.
const connectionsVariable = "EMAIL_CONNECTIONS"

// usualConnections is its default.
const usualConnections = 4

// Connections returns how many connections to the server of these settings' mailer a worker has at first, and how many they
// may become. A number that is set, for the mailer or for all, is both. Otherwise EMAIL_CONNECTIONS_MAX is what they may become,
// and if that is less, what they are at first.
func (s Settings) Connections() (first, most int) {
	if n := s.Worker.Connections; s.setsConnections() || n != usualConnections {
		return n, n
	}
	return min(s.Worker.Connections, s.Worker.ConnectionsMax), s.Worker.ConnectionsMax
}

// setsConnections reports whether the environment has a number of connections for the mailer.
func (s Settings) setsConnections() bool {
	return s.sets(connectionsVariable) || s.sets(mailerVariable(s.Using, connectionsVariable))
}

// find returns what the environment sets for a mailer, which may be nothing.
func (s Settings) find(name string) named {
	i := slices.IndexFunc(s.named, func(m named) bool { return m.name == name })
	if i < 0 {
		return newNamed(name)
	}
	return s.named[i]
}

// newNamed returns a mailer for which the environment sets nothing.
func newNamed(name string) named {
	m := named{name: name}
	m.own.Using = name
	for _, f := range m.own.readable() {
		_ = f.decode(false)
	}
	m.own.SMTP.Hosts = nil // the default mailer's would be a guess
	return m
}

// isNameOnly reports whether no variable of the mailer is set.
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
	s.SMTP.Hosts = slices.Clone(s.SMTP.Hosts) // m.own keeps its own slice
	s.Delivery.Members = slices.Clone(s.Delivery.Members)
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

// checkNames refuses mailer names of which two would read the same variables, and names whose
// variables are already other settings.
func (s Settings) checkNames(p *Problems) {
	for i, name := range s.Delivery.Mailers {
		if err := checkName(name, s.Delivery.Mailers[:i]); err != nil {
			p.add(namesVariable, "%v", err)
		}
	}
}

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
	for _, variable := range variablesOf(fields(&Settings{})) {
		taken[variable] = DefaultMailer
	}
	for _, other := range before {
		for _, variable := range variablesOf(mailerFields(&Settings{}, other)) {
			taken[variable] = other
		}
	}
	if slices.Contains(before, name) {
		return fmt.Errorf("%q is named twice", name)
	}
	for _, variable := range variablesOf(mailerFields(&Settings{}, name)) {
		if other, ok := taken[variable]; ok {
			return fmt.Errorf("%q and %q cannot be told apart: both would read %s", other, name, variable)
		}
	}
	return nil
}

// goodNames returns the names that checkNames accepts.
func (s Settings) goodNames() []string {
	var good []string
	for i, name := range s.Delivery.Mailers {
		if checkName(name, s.Delivery.Mailers[:i]) == nil {
			good = append(good, name)
		}
	}
	return good
}

// UnknownMailerError is the error of Settings.Named for a name that EMAIL_MAILERS does not have.
type UnknownMailerError struct {
	Name    string
	Nearest string   // the known name that was most likely meant, or ""
	Known   []string // the names in EMAIL_MAILERS, in its order
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

// checkHost reports a mailer with the smtp backend and no host.
func (s Settings) checkHost(p *Problems) {
	host, link := s.Variable("EMAIL_HOST"), mailerVariable(s.Using, urlVariable)
	if s.Worker.Backend == "smtp" && len(s.SMTP.Hosts) == 0 && !p.has(host, link) {
		p.add(host, "the smtp backend needs a host here, or %s", link)
	}
}

// failoverName is the backend of a mailer that sends with other mailers.
const failoverName = "failover"

// Failover returns the mailers that these settings' mailer sends with, and whether by their weights (EMAIL_POLICY). There are none
// unless its backend, in a worker, is failover.
func (s Settings) Failover() (members Members, weighted bool) {
	if s.Worker.Backend != failoverName {
		return nil, false
	}
	return slices.Clone(s.Delivery.Members), s.Delivery.Policy == PolicyWeighted
}

// PolicyWeighted is the EMAIL_POLICY that spreads mail over all members.
const PolicyWeighted = "weighted"

// sendsByMembers reports whether a program or a worker sends with the mailer's members.
func (s Settings) sendsByMembers() bool {
	return s.Delivery.Backend == failoverName || s.Worker.Backend == failoverName
}

// checkMembers checks those of a failover mailer. That none of them has members itself rules out circles.
func (s Settings) checkMembers(p *Problems) {
	name := s.Variable(membersVariable)
	if !s.sendsByMembers() || p.has(name) {
		return
	}
	if len(s.Delivery.Members) == 0 {
		p.add(name, "the failover backend needs the names of the mailers here that it is to send with, such as ses,postmark; EMAIL_MAILERS has to have them")
	}
	for _, m := range s.Delivery.Members {
		switch known := s.Mailers(); {
		case m.Name == s.Using:
			p.add(name, "%q cannot be a member of itself", m.Name)
		case m.Name == DefaultMailer:
			p.add(name, "%q cannot be a member: give that server a name in EMAIL_MAILERS", m.Name)
		case !slices.Contains(known, m.Name):
			err := &UnknownMailerError{Name: m.Name, Nearest: Nearest(m.Name, known), Known: known}
			p.add(name, "%s", strings.TrimPrefix(err.Error(), "settings: "))
		case m.Weight < 1 || m.Weight > maxMemberWeight:
			p.add(name, "%q: the weight has to be a whole number from 1 to %d", m.Name, maxMemberWeight)
		case s.as(m.Name).sendsByMembers():
			p.add(name, "%q cannot be a member, since it has members itself", m.Name)
		}
	}
	s.checkUnusedByMembers(p)
}

// CheckMembers returns what is wrong with the members of these settings' mailer, which has the failover backend, as Problems. Load
// has found it already.
func (s Settings) CheckMembers() error {
	var problems Problems
	s.checkMembers(&problems)
	return problems.err()
}

// checkUnusedByMembers refuses what is set for a named failover mailer and has no effect, for that of its members counts: who
// sets a limit has to know that it does not hold.
func (s Settings) checkUnusedByMembers(p *Problems) {
	if s.Using == "" {
		return
	}
	for _, f := range s.readable() {
		if f.key == backendVariable || f.key == membersVariable || f.key == policyVariable {
			continue
		}
		if _, set := s.read[f.name]; set && !p.has(f.name) {
			p.add(f.name, "has no effect: %s sends with its members, so set it for these, or for all (%s)", s.Using, f.key)
		}
	}
}

// warnMembers warns of members that nothing sends with.
func (s Settings) warnMembers(w *Problems) {
	if s.sendsByMembers() {
		return
	}
	for _, key := range []string{membersVariable, policyVariable} {
		if name := mailerVariable(s.Using, key); s.sets(name) {
			w.add(name, "has no effect, since %s is not failover", s.Variable(backendVariable))
		}
	}
}
