package settings

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/hostname"
)

// warnings lists what is allowed but rarely meant, one line each. Settings that already have a
// problem get no warning. queues says that the program leaves its mail to a worker, which has settings of its own.
func (s Settings) warnings(problems Problems, queues bool) []string {
	var w Problems
	s.warnURL(&w)
	s.warnLineEnds(&w)
	s.warnFiles(&w)
	for _, m := range s.mailers() {
		if s.Delivery.Backend != queueName {
			m.warnScheme(&w)
		}
		m.warnMembers(&w)
		m.warnLogin(&w)
		m.warnOAuth(&w)
		m.warnTLS(&w)
		if !queues {
			m.warnRecipients(&w)
		}
		if most := mailerVariable(m.Using, connectionsVariable+"_MAX"); m.setsConnections() && s.sets(most) {
			w.add(most, "has no effect, since %s is set: connections keep that number", m.Variable(connectionsVariable))
		}
		if s.Delivery.Backend == queueName {
			m.checkFiles(&w)
			// A program that queues its mail needs only the mailer's name.
			if m.Using != "" && !s.find(m.Using).isNameOnly() {
				m.checkHost(&w)
			}
		}
	}
	s.Intake.warn(s.sets, &w)
	s.Events.warn(s.sets, &w)
	if _, set := s.read["EMAIL_QUEUE"]; set && s.Worker.Queues[s.Queue.Name] == 0 {
		w.add("EMAIL_QUEUE", "a worker with these settings takes nothing from %q, only from EMAIL_QUEUES, which is %s", s.Queue.Name, s.Worker.Queues)
	}
	var lines []string
	for _, warning := range w {
		if !problems.has(warning.Name) {
			lines = append(lines, warning.Error())
		}
	}
	return lines
}

// warnLineEnds warns of lists with line ends between their entries or around them, which have no effect.
func (s Settings) warnLineEnds(w *Problems) {
	for _, m := range s.mailers() {
		for _, f := range m.readable() {
			if _, set := s.read[f.name]; !set || !f.isList() {
				continue
			}
			if err := lineEndIn(os.Getenv(f.name)); err != nil {
				w.add(f.name, "has a line end in it, which has no effect")
			}
		}
	}
}

// warnFiles warns of secrets in files that everybody can read, and of files that cannot be read and that this program has no
// use for.
func (s Settings) warnFiles(w *Problems) {
	for _, name := range slices.Sorted(maps.Keys(s.read)) {
		if o := s.read[name]; o.source == FromFile && isExposed(o.file) {
			w.add(name+fileSuffix, "every user of this machine can read %s: let only those who need it", o.file)
		}
	}
	for _, u := range s.unread {
		w.add(u.name+fileSuffix, "%s", u.why)
	}
}

// warnRecipients warns of mail that does not go to its recipients: in production nobody wants that. Of a value that a mailer shares
// the default mailer says it.
func (s Settings) warnRecipients(w *Problems) {
	own := func(variable string) bool { return s.Using == "" || s.sets(mailerVariable(s.Using, variable)) }
	if len(s.Delivery.OverrideRecipients) > 0 && own(overrideVariable) {
		w.add(s.Variable(overrideVariable), "no mail goes to its recipients: all of it goes to these addresses")
	}
	if !s.Delivery.AllowedRecipients.Everybody() && own(allowedVariable) {
		w.add(s.Variable(allowedVariable), "only these get mail; whoever else a message is for becomes a dead letter")
	}
}

// warnScheme warns of a URL that only a worker can have a use for, in a program that delivers itself.
func (s Settings) warnScheme(w *Problems) {
	if t := s.Delivery.URL.target; t != nil && t.unknown {
		w.add(mailerVariable(s.Using, urlVariable), "this program does not know its scheme; the worker has to")
	}
}

// warnURL warns of a URL that nothing uses.
func (s Settings) warnURL(w *Problems) {
	t := s.Delivery.URL.target
	if t != nil && s.Delivery.Backend != t.backend && s.Worker.Backend != t.backend {
		w.add(urlVariable, "has no effect: EMAIL_BACKEND is %s and EMAIL_QUEUE_BACKEND is %s", s.Delivery.Backend, s.Worker.Backend)
	}
}

func (s Settings) warnLogin(w *Problems) {
	c, v := s.SMTP, s.Variable
	password := c.Password.Reveal() != ""
	switch {
	case s.OAuth.On(): // what is missing is a problem
	case c.User != "" && !password:
		w.add(v("EMAIL_HOST_USER"), "there is no login without %s", v("EMAIL_HOST_PASSWORD"))
	case c.User == "" && password:
		w.add(v("EMAIL_HOST_PASSWORD"), "there is no login without %s", v("EMAIL_HOST_USER"))
	case password && !c.UseTLS && !c.UseSSL && !c.AllowInsecureAuth && slices.ContainsFunc(c.Hosts, hostname.IsRemote):
		w.add(v("EMAIL_HOST_PASSWORD"), "the password is not sent to %s without TLS; %s, or set %s in a network that nobody else listens to", c.Hosts, s.howTLS(), v("EMAIL_ALLOW_INSECURE_AUTH"))
	}
}

// warnOAuth warns of settings of a login with a token that is not switched on.
func (s Settings) warnOAuth(w *Problems) {
	if s.OAuth.On() {
		return
	}
	for _, f := range fields(&s) {
		if strings.HasPrefix(f.key, oauthVariable+"_") && f.show() != "" {
			w.add(s.Variable(f.key), "has no effect without %s: set it to microsoft, google or custom", s.Variable(oauthVariable))
		}
	}
}

func (s Settings) warnTLS(w *Problems) {
	c, v := s.SMTP, s.Variable
	how, implicit := v("EMAIL_USE_TLS")+" or "+v("EMAIL_USE_SSL"), v("EMAIL_USE_SSL")
	if s.hasURL() {
		how, implicit = "smtp+starttls:// or smtps://", "smtps://"
	}
	switch {
	case c.UseSSL && (c.Port == portPlain || c.Port == portStartTLS):
		w.add(v("EMAIL_PORT"), "%d is rarely the port for %s; that is %d", c.Port, implicit, portTLS)
	case !c.UseSSL && c.Port == portTLS:
		w.add(v("EMAIL_PORT"), "%d is the port for %s, which is not set", portTLS, implicit)
	}
	if c.UseTLS || c.UseSSL {
		return
	}
	for _, file := range []struct{ name, value string }{
		{v("EMAIL_SSL_CERTFILE"), c.CertFile}, {v("EMAIL_SSL_CAFILE"), c.CAFile}, {v("EMAIL_SSL_SERVER_NAME"), c.ServerName},
	} {
		if file.value != "" {
			w.add(file.name, "has no effect without %s", how)
		}
	}
}

// unknown warns of the EMAIL_ variables in environ (as os.Environ gives it) that this
// project does not read. Variables without that prefix belong to other programs.
func (s Settings) unknown(environ []string) []string {
	known := s.variables()
	var names []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, prefix) && !slices.Contains(known, name) && !s.isOfBadName(name) {
			names = append(names, name)
		}
	}
	names, warnings := serviceLinks(names)
	for _, name := range names {
		warnings = append(warnings, name+": is not a setting and has no effect"+s.guess(name, known))
	}
	slices.Sort(warnings)
	return warnings
}

// guess is the part of the warning that suggests what was meant.
func (s Settings) guess(name string, known []string) string {
	like := s.nearestVariable(name, known)
	mailer, variable := missingMailer(name)
	switch {
	case mailer != "" && (like == "" || like == variable):
		return "; did you mean " + variable + ", or is " + mailer + " missing in " + namesVariable + "?"
	case like != "":
		return "; did you mean " + like + "?"
	}
	return ""
}

// variables returns the names of all variables that are read.
func (s Settings) variables() []string {
	all := fields(&s)
	for _, m := range s.named {
		all = append(all, mailerFields(&s, m.name)...)
	}
	return variablesOf(all)
}

// isOfBadName reports whether a variable belongs to a mailer whose name is refused. The problem
// with the name is enough; its variables get no warning.
func (s Settings) isOfBadName(variable string) bool {
	for _, name := range s.Delivery.Mailers {
		if strings.HasPrefix(variable, mailerPrefix(name)) && !slices.Contains(s.goodNames(), name) {
			return true
		}
	}
	return false
}

// nearestVariable compares names without the prefix that all have in common: a mailer's, if
// the name begins with it, else EMAIL_.
func (s Settings) nearestVariable(name string, known []string) string {
	common := prefix
	for _, m := range s.named {
		if p := mailerPrefix(m.name); strings.HasPrefix(name, p) && len(p) > len(common) {
			common = p
		}
	}
	var ends []string
	for _, k := range known {
		if end, ok := strings.CutPrefix(k, common); ok {
			ends = append(ends, end)
		}
	}
	end := Nearest(strings.TrimPrefix(name, common), ends)
	if end == "" {
		return ""
	}
	return common + end
}

// missingMailer returns the mailer that would read a variable of this name if EMAIL_MAILERS
// named it, and the default mailer's variable for the same setting; "" if there is none.
func missingMailer(name string) (mailer, variable string) {
	for _, f := range mailerFields(&Settings{}, "x") {
		middle, ok := strings.CutSuffix(strings.TrimPrefix(name, prefix), strings.TrimPrefix(f.key, "EMAIL"))
		middle = strings.ReplaceAll(strings.ToLower(middle), "_", "-")
		if ok && checkName(middle, nil) == nil && (mailer == "" || len(middle) < len(mailer)) {
			mailer, variable = middle, f.key
		}
	}
	return mailer, variable
}
