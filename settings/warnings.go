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
	s.warnLogin(&w)
	s.warnTLS(&w)
	if s.Delivery.Backend == "queue" {
		// This program may be one that hands over only, and has no need of the files:
		// one environment file serves the worker too.
		s.SMTP.checkFiles(&w)
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

func (s Settings) warnLogin(w *Problems) {
	c := s.SMTP
	password := c.Password.Reveal() != ""
	switch {
	case c.User != "" && !password:
		w.add("EMAIL_HOST_USER", "there is no login without EMAIL_HOST_PASSWORD")
	case c.User == "" && password:
		w.add("EMAIL_HOST_PASSWORD", "there is no login without EMAIL_HOST_USER")
	case password && !c.UseTLS && !c.UseSSL && !c.AllowInsecureAuth && slices.ContainsFunc(c.Hosts, isRemote):
		w.add("EMAIL_HOST_PASSWORD", "is not sent to %s without TLS; set EMAIL_USE_TLS or EMAIL_USE_SSL, or EMAIL_ALLOW_INSECURE_AUTH in a network that nobody else listens to", c.Hosts)
	}
}

// isRemote is a guess: only connecting tells.
func isRemote(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return !addr.IsLoopback()
	}
	return host != "localhost" && !strings.HasSuffix(host, ".localhost")
}

func (s Settings) warnTLS(w *Problems) {
	c := s.SMTP
	switch {
	case c.UseSSL && (c.Port == 25 || c.Port == 587):
		w.add("EMAIL_PORT", "%d is seldom the port for EMAIL_USE_SSL; that is 465", c.Port)
	case !c.UseSSL && c.Port == 465:
		w.add("EMAIL_PORT", "465 is the port for EMAIL_USE_SSL, which is not set")
	}
	if c.UseTLS || c.UseSSL {
		return
	}
	for _, file := range []struct{ name, value string }{
		{"EMAIL_SSL_CERTFILE", c.CertFile}, {"EMAIL_SSL_CAFILE", c.CAFile}, {"EMAIL_SSL_SERVER_NAME", c.ServerName},
	} {
		if file.value != "" {
			w.add(file.name, "has no effect without EMAIL_USE_TLS or EMAIL_USE_SSL")
		}
	}
}
