package settings

import (
	"net/netip"
	"slices"
	"strings"
)

// warnings names what is allowed and seldom meant. Settings with a problem are not
// looked at.
func (s Settings) warnings(problems Problems) []string {
	var w Problems
	s.warnURL(&w)
	for _, m := range s.mailers() {
		if s.Delivery.Backend != queueName {
			m.warnScheme(&w)
		}
		m.warnLogin(&w)
		m.warnTLS(&w)
		if s.Delivery.Backend == queueName {
			m.SMTP.checkFiles(&w, m.variable)
			// The name alone is all that a program without a worker needs.
			if m.Using != "" && !s.find(m.Using).isNameOnly() {
				m.checkHost(&w)
			}
		}
	}
	if _, set := s.read["EMAIL_QUEUE"]; set && s.Worker.Queues[s.Queue.Name] == 0 {
		w.add("EMAIL_QUEUE", "a worker with these settings takes nothing from %q, only from EMAIL_QUEUES, which is %s", s.Queue.Name, s.Worker.Queues)
	}
	var lines []string
	for _, warning := range w {
		if !problems.concern(warning.Name) {
			lines = append(lines, warning.Error())
		}
	}
	return lines
}

// warnScheme finds a URL that only a worker can have a use for, in a program that delivers itself.
func (s Settings) warnScheme(w *Problems) {
	if t := s.Delivery.URL.target; t != nil && t.unknown {
		w.add(mailerVariable(s.Using, urlVariable), "this program does not know its scheme; the worker has to")
	}
}

// warnURL finds a URL that nothing uses.
func (s Settings) warnURL(w *Problems) {
	t := s.Delivery.URL.target
	if t != nil && s.Delivery.Backend != t.backend && s.Worker.Backend != t.backend {
		w.add(urlVariable, "has no effect: EMAIL_BACKEND is %s and EMAIL_QUEUE_BACKEND is %s", s.Delivery.Backend, s.Worker.Backend)
	}
}

func (s Settings) warnLogin(w *Problems) {
	c, v := s.SMTP, s.variable
	password := c.Password.Reveal() != ""
	switch {
	case c.User != "" && !password:
		w.add(v("EMAIL_HOST_USER"), "there is no login without %s", v("EMAIL_HOST_PASSWORD"))
	case c.User == "" && password:
		w.add(v("EMAIL_HOST_PASSWORD"), "there is no login without %s", v("EMAIL_HOST_USER"))
	case password && !c.UseTLS && !c.UseSSL && !c.AllowInsecureAuth && slices.ContainsFunc(c.Hosts, isRemote):
		w.add(v("EMAIL_HOST_PASSWORD"), "the password is not sent to %s without TLS; %s, or set %s in a network that nobody else listens to", c.Hosts, s.howTLS(), v("EMAIL_ALLOW_INSECURE_AUTH"))
	}
}

func (s Settings) howTLS() string {
	if s.hasURL() {
		return "begin the URL with smtp+starttls:// or smtps://"
	}
	return "set " + s.variable("EMAIL_USE_TLS") + " or " + s.variable("EMAIL_USE_SSL")
}

// hasURL says whether a URL names the server.
func (s Settings) hasURL() bool {
	t := s.Delivery.URL.target
	return t != nil && t.backend == "smtp"
}

// isRemote is a guess: only connecting tells.
func isRemote(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return !addr.IsLoopback()
	}
	return host != "localhost" && !strings.HasSuffix(host, ".localhost")
}

func (s Settings) warnTLS(w *Problems) {
	c, v := s.SMTP, s.variable
	how, implicit := v("EMAIL_USE_TLS")+" or "+v("EMAIL_USE_SSL"), v("EMAIL_USE_SSL")
	if s.hasURL() {
		how, implicit = "smtp+starttls:// or smtps://", "smtps://"
	}
	switch {
	case c.UseSSL && (c.Port == portPlain || c.Port == portStartTLS):
		w.add(v("EMAIL_PORT"), "%d is seldom the port for %s; that is %d", c.Port, implicit, portTLS)
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
